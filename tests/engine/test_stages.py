import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import Runner
from mmlt.engine.stages import (
    RunRecord,
    decisive,
    keep_part,
    plan,
    resolve_placeholders,
    stage_dir,
    stage_ids,
    starting_checkpoint,
)


@pytest.fixture
def chain(tmp_path):
    """c.py needs b.py needs a.py; a.py lies in a folder of its own that others share."""
    (tmp_path / 'a.py').write_text('model = dict(type="A")\nrandomness = dict(seed=1)\n')
    (tmp_path / 'b.py').write_text(
        'model = dict(type="B", weights="{stage:a}/x.pth")\nrandomness = dict(seed=2)\n'
        f'stages = dict(a=dict(config="a.py", work_dir="{tmp_path}/shared"))\n'
    )
    (tmp_path / 'c.py').write_text(
        'model = dict(type="C", parts=["{stage:b}/1", dict(p="{stage:b}/2")])\nrandomness = dict(seed=3)\n'
        'stages = dict(b=dict(config="b.py", load_from=True, options=dict(model=dict(depth=5))))\n'
    )
    cfg = Config.fromfile(tmp_path / 'c.py')
    cfg.work_dir = str(tmp_path / 'w')
    return cfg


def test_plan_lists_the_earliest_first(chain, tmp_path):
    stages = plan(chain)
    assert [s.name for s in stages] == ['a', 'b', 'c']
    assert [s.work_dir for s in stages] == [f'{tmp_path}/shared', f'{tmp_path}/w/b', f'{tmp_path}/w']
    assert stages[1].cfg.model.depth == 5
    # a stage of this run follows its seed, a shared one keeps its own
    assert [s.cfg.randomness.seed for s in stages] == [1, 3, 3]


@pytest.fixture
def heir(chain, tmp_path):
    """A config in another folder that inherits c.py; returns a function that writes it and reads it."""
    folder = tmp_path / 'elsewhere' / 'deep'
    folder.mkdir(parents=True)

    def write(text='', base='../../c.py', name='heir.py'):
        (folder / name).write_text(f"_base_ = ['{base}']\n{text}")
        cfg = Config.fromfile(folder / name)
        cfg.work_dir = str(tmp_path / 'w')
        return cfg

    return write


def test_stages_of_a_base_elsewhere(heir, tmp_path):
    assert [s.name for s in plan(heir())] == ['a', 'b', 'heir']
    heir_of_heir = heir(base='heir.py', name='second.py')
    assert [Path(s.cfg.filename).resolve() for s in plan(heir_of_heir)[:2]] == [tmp_path / 'a.py', tmp_path / 'b.py']
    # beside the config that is run comes first
    (tmp_path / 'elsewhere/deep/b.py').write_text('model = dict(type="own")\n')
    assert [s.cfg.model.type for s in plan(heir())] == ['own', 'C']


def test_of_several_bases_the_one_that_names_the_stage(heir, tmp_path):
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'b.py').write_text('model = dict(type="wrong")\n')
    (other / 'd.py').write_text('train_cfg = dict()\n')
    cfg = heir('', base="../../c.py', '../../other/d.py")
    assert plan(cfg)[0].cfg.model.type == 'A'


def test_a_stage_that_is_nowhere(heir, tmp_path):
    (tmp_path / 'b.py').unlink()
    with pytest.raises(
        InputError, match=r"stage 'b', 'b\.py', does not exist beside .*heir\.py' .*stages\.b\.config=<file>"
    ):
        plan(heir())


@pytest.mark.parametrize(
    'text, sentence',
    [
        (
            'stages = dict(b=dict(lod_from=True))',
            r"stages\.b\.lod_from: A stage has no argument 'lod_from', .*'load_from'",
        ),
        ('stages = dict(z=dict(load_from=True))', r'stages\.z names no config'),
        ('stages = dict(b=dict(options=dict(model=dict(type=dict(x=1)))))', 'do not fit'),
    ],
)
def test_settings_of_a_stage(heir, text, sentence):
    with pytest.raises(InputError, match=sentence):
        plan(heir(text))


def test_where_settings_of_a_stage_are_in_the_last_config(chain):
    assert [s.key for s in plan(chain)] == ['stages.b.options.stages.a', 'stages.b', '']
    chain.merge_from_dict({'stages.b.options.stages.a.work_dir': 'given'})
    assert plan(chain)[0].work_dir == 'given'


def test_a_stage_that_two_others_share_is_trained_once(tmp_path, chain):
    (tmp_path / 'd.py').write_text(
        'model = dict(type="D")\n'
        f'stages = dict(own=dict(config="b.py"), a=dict(config="a.py", work_dir="{tmp_path}/shared"))\n'
    )
    cfg = Config.fromfile(tmp_path / 'd.py')
    cfg.work_dir = str(tmp_path / 'w')
    stages = plan(cfg)
    assert [(s.name, s.shared) for s in stages] == [('a', True), ('own', False), ('d', False)]


def test_placeholders_become_directories(chain, tmp_path):
    resolve_placeholders(chain)
    assert chain.model.parts[0] == f'{tmp_path}/w/b/1'
    assert chain.model.parts[1].p == f'{tmp_path}/w/b/2'
    chain.model.type = '{stage:nowhere}'
    with pytest.raises(InputError, match="stage 'nowhere' but lists b"):
        resolve_placeholders(chain)
    assert stage_dir(chain, 'b') == f'{tmp_path}/w/b'


def test_record_knows_what_was_trained(chain, tmp_path):
    record = RunRecord(str(tmp_path / 'w'))
    assert record.read() is None and not record.finished and record.difference(chain) is None
    record.begin(decisive(chain), stage_ids(chain), resumed=False)
    first = record.read()['id']
    assert not record.finished and record.difference(chain) is None
    record.finish()
    assert record.finished and record.read()['id'] == first

    chain.model.type = 'D'
    assert record.difference(chain) == "model.type was 'C' and is now 'D'"
    chain.model.type = 'C'
    chain.train_dataloader = dict(batch_size=1, num_workers=3)
    assert 'train_dataloader' in record.difference(chain)
    chain.train_dataloader = None
    chain.log_level = 'DEBUG'
    assert record.difference(chain) is None

    # an earlier stage that is trained anew makes this run stale
    RunRecord(str(tmp_path / 'w/b')).begin({'load_from': None}, {}, resumed=False)
    assert record.difference(chain) == "stage 'b' was trained anew since"
    record.begin(decisive(chain), stage_ids(chain), resumed=True)
    assert record.read()['id'] == first and not record.finished
    record.begin(decisive(chain), stage_ids(chain), resumed=False)
    assert record.read()['id'] != first


def test_record_knows_which_part_was_loaded(chain, tmp_path):
    record = RunRecord(str(tmp_path / 'w'))
    record.begin(decisive(chain), stage_ids(chain), resumed=False)
    assert 'stages' not in record.read()['config']  # as records of all weights always were
    chain.stages.b.load_from = 'backbone'
    assert record.difference(chain) == "stages was not set and is now {'b': {'load_from': 'backbone'}}"
    record.begin(decisive(chain), stage_ids(chain), resumed=False)
    assert record.difference(chain) is None
    chain.stages.b.load_from = 'neck'
    assert record.difference(chain) == "stages.b.load_from was 'backbone' and is now 'neck'"


@pytest.mark.parametrize('load_from', [True, 'backbone'])
def test_start_of_a_config(chain, tmp_path, load_from):
    chain.stages.b.load_from = load_from
    with pytest.raises(InputError, match="earlier stage 'b' is not finished"):
        starting_checkpoint(chain)
    record = RunRecord(str(tmp_path / 'w/b'))
    record.begin({'load_from': None}, {}, resumed=False)
    record.finish()
    (tmp_path / 'w/b/last_checkpoint').write_text('some.pth')
    assert starting_checkpoint(chain) == ('some.pth', None if load_from is True else load_from)
    chain.stages.b.load_from = False
    assert starting_checkpoint(chain) == (None, None)


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('bare', [False, True])
def test_part_of_a_checkpoint(prefix, bare):
    model = nn.ModuleDict({n: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for n in ('back', 'backbone', 'head')})
    state = type(model.state_dict())((prefix + k, v) for k, v in model.state_dict().items())
    state._metadata = model.state_dict()._metadata
    checkpoint = state if bare else {'state_dict': state, 'meta': {'epoch': 3}}
    keep_part(checkpoint, 'backbone', 'some.pth')
    kept = checkpoint if bare else checkpoint['state_dict']
    assert list(kept) == [f'{prefix}backbone.{k}' for k in model['backbone'].state_dict()]
    assert kept._metadata['backbone.1'] == {'version': 2}  # of BatchNorm, which tells how to read it
    assert bare or checkpoint['meta'] == {'epoch': 3}
    with pytest.raises(InputError, match=r"load_from='neck', but 'some.pth' holds no weights .*; it holds backbone\."):
        keep_part(checkpoint, 'neck', 'some.pth')


@pytest.fixture
def linear_stages(two_stages):
    """ce.py trains a linear classifier; crt.py a narrower one on its backbone; tau.py tests it."""
    files = {
        'ce': """
_base_ = ['./a.py']
model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=3, in_channels=64))
train_cfg = dict(max_epochs=1, val_interval=1)
""",
        'crt': """
_base_ = ['./ce.py']
stages = dict(ce=dict(config='ce.py', load_from='backbone'))
model = dict(
    backbone=dict(pretrained=None, frozen=True),
    neck=dict(type='LinearNeck', in_channels=64, out_channels=32, norm_cfg=None),
    head=dict(in_channels=32))
train_cfg = dict(max_epochs=2, val_interval=2)
""",
        'tau': """
_base_ = ['./ce.py']
stages = dict(ce=dict(config='ce.py', load_from=True))
model = dict(backbone=dict(pretrained=None), head=dict(type='mmlt.TauNormClsHead'))
train_cfg = train_dataloader = optim_wrapper = param_scheduler = None
val_cfg = val_dataloader = val_evaluator = None
""",
    }
    for name, text in files.items():
        (two_stages / f'{name}.py').write_text(text)
    return two_stages


def weights(path):
    return read_checkpoint(path)['state_dict']


def test_backbone_alone_is_loaded(linear_stages, train_tool, capsys):
    train_tool.main(['crt.py'])
    ce, crt = weights('work_dirs/crt/ce/epoch_1.pth'), weights('work_dirs/crt/epoch_2.pth')
    backbone = [k for k in ce if k.startswith('backbone')]
    assert backbone and all(torch.equal(ce[k], crt[k]) for k in backbone)
    assert crt['head.fc.weight'].shape == (3, 32)
    record = json.loads(Path('work_dirs/crt/run.json').read_text())
    assert record['config']['stages'] == {'ce': {'load_from': 'backbone'}}
    # The run's own checkpoint is tested, and resumed, as a whole.
    capsys.readouterr()
    train_tool.main(['crt.py'])
    assert 'already finished' in capsys.readouterr().out
    Path('work_dirs/crt/epoch_2.pth').unlink()
    Path('work_dirs/crt/last_checkpoint').write_text('work_dirs/crt/epoch_1.pth')
    cfg = Config.fromfile('crt.py')
    cfg.work_dir, cfg.resume = 'work_dirs/crt', True
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.load_part is None
    again = weights('work_dirs/crt/epoch_2.pth')
    assert all(torch.allclose(again[k], crt[k], atol=1e-6) for k in crt)


def test_part_that_is_not_there(linear_stages, train_tool):
    train_tool.main(['ce.py', '--work-dir', 'ce', '--no-test'])
    options = ['stages.ce.work_dir=ce', 'stages.ce.load_from=tower']
    with pytest.raises(
        SystemExit, match=r"load_from='tower', but .*epoch_1\.pth' holds no .*; it holds backbone, head"
    ):
        train_tool.main(['crt.py', '--cfg-options', *options])
    with pytest.raises(SystemExit, match=r'has head\.fc\.weight of shape \(3, 64\)'):  # all of it does not fit
        train_tool.main(['crt.py', '--restart', '--cfg-options', 'stages.ce.work_dir=ce', 'stages.ce.load_from=True'])


def test_config_without_training_tests_its_stage(linear_stages, train_tool, test_tool, capsys):
    cfg = Config.fromfile('tau.py')
    cfg.work_dir = 'work_dirs/tau'
    with pytest.raises(InputError, match="earlier stage 'ce' is not finished"):
        Runner.from_cfg(cfg)
    metrics = train_tool.main(['tau.py', '--cfg-options', 'model.head.tau=0.0'])
    out = capsys.readouterr().out
    assert 'Stage 1/2: ce (work_dirs/tau/ce): training' in out
    assert 'Stage 2/2: tau (work_dirs/tau): nothing to train' in out
    # With tau = 0 it is the stage's classifier without its bias.
    checkpoint = read_checkpoint('work_dirs/tau/ce/epoch_1.pth')
    checkpoint['state_dict']['head.fc.bias'].zero_()
    torch.save(checkpoint, 'no_bias.pth')
    assert test_tool.main(['ce.py', 'no_bias.pth', '--work-dir', 't']) == pytest.approx(metrics)
    # A checkpoint that is given wins, and no stage has to be there.
    given = ['tau.py', 'no_bias.pth', '--work-dir', 'elsewhere', '--cfg-options', 'model.head.tau=0.0']
    assert test_tool.main(given) == pytest.approx(metrics)
