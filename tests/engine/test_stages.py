import pytest
from mmengine.config import Config

from mmlt import InputError
from mmlt.engine.stages import RunRecord, decisive, plan, resolve_placeholders, stage_dir, stage_ids


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
