import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmlt.checkpoints import read_checkpoint
from mmlt.engine import EpochHook


class _PowerCut(Exception):
    pass


def checkpoints(folder):
    return {p.name: p.stat().st_mtime_ns for p in Path(folder).glob('epoch_*.pth')}


def weights(path):
    return read_checkpoint(path)['state_dict']


def test_all_stages_run_once_and_end_in_a_report(two_stages, train_tool, capsys):
    metrics = train_tool.main(['b.py'])
    work = two_stages / 'work_dirs/b'
    assert set(metrics) >= {'shot/all', 'shot/few', 'shot/medium', 'shot/balanced', 'shot/ece'} - {'shot/medium'}
    report = json.loads((work / 'shot_report.json').read_text())
    assert [c['train_images'] for c in report['per_class']] == [6, 3, 1]
    assert (work / 'shot_report.png').stat().st_size > 5000
    assert 'few (3)' in capsys.readouterr().out
    first_a, first_b = checkpoints(work / 'phase_a'), checkpoints(work)
    assert 'epoch_3.pth' in first_a and 'epoch_3.pth' in first_b
    # phase B holds phase A's towers, unchanged, and a trained adapter
    a, b = weights(work / 'phase_a/epoch_3.pth'), weights(work / 'epoch_3.pth')
    assert all(torch.equal(a[k], b[k]) for k in a if k.startswith(('backbone', 'head.text.')))
    assert b['neck.linear.weight'].shape == (64, 64)

    again = train_tool.main(['b.py'])
    assert 'already finished' in capsys.readouterr().out
    assert again == pytest.approx(metrics)
    assert checkpoints(work / 'phase_a') == first_a
    assert checkpoints(work) == first_b


def test_another_config_in_the_same_folder_is_refused_and_restart_trains_anew(two_stages, train_tool):
    train_tool.main(['b.py'])
    work = two_stages / 'work_dirs/b'
    first_a, first_b = checkpoints(work / 'phase_a'), checkpoints(work)
    changed = ['b.py', '--cfg-options', 'model.neck.residual_ratio=0.5']
    with pytest.raises(SystemExit, match=r'model\.neck\.residual_ratio was not set and is now 0\.5.*--restart'):
        train_tool.main(changed)
    train_tool.main([*changed, '--restart'])
    assert checkpoints(work / 'phase_a') == first_a
    assert checkpoints(work)['epoch_3.pth'] != first_b['epoch_3.pth']
    # phase A trained anew makes the old phase B stale
    train_tool.main([*changed, '--restart', 'phase_a', 'b'])
    assert checkpoints(work / 'phase_a')['epoch_3.pth'] != first_a['epoch_3.pth']
    with pytest.raises(SystemExit, match='no stage'):
        train_tool.main(['b.py', '--restart', 'phase_c'])


def test_stale_phase_b_is_noticed(two_stages, train_tool):
    train_tool.main(['b.py'])
    train_tool.main(['a.py', '--work-dir', 'work_dirs/b/phase_a', '--restart'])
    with pytest.raises(SystemExit, match="stage 'phase_a' was trained anew"):
        train_tool.main(['b.py'])


@pytest.mark.parametrize('where', ['phase_a', pytest.param('b', marks=pytest.mark.slow)])
def test_interrupted_stage_goes_on_where_it_was(two_stages, train_tool, capsys, monkeypatch, where):
    train_tool.main(['b.py', '--work-dir', 'whole'])
    capsys.readouterr()

    def cut(hook, runner):
        if Path(runner.work_dir).name == where and runner.epoch == 2:
            raise _PowerCut

    with monkeypatch.context() as patch, pytest.raises(_PowerCut):
        patch.setattr(EpochHook, 'before_train_epoch', cut)
        train_tool.main(['b.py'])
    train_tool.main(['b.py'])
    out = capsys.readouterr().out
    assert out.count('resuming') == 1
    folder = two_stages / 'work_dirs/b'
    if where == 'b':
        assert 'phase_a (work_dirs/b/phase_a): already finished' in out
    for stage in ('phase_a', '.'):
        a, b = weights(two_stages / 'whole' / stage / 'epoch_3.pth'), weights(folder / stage / 'epoch_3.pth')
        assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


def test_options_reach_earlier_stages(two_stages, train_tool):
    train_tool.main(
        ['b.py', '--cfg-options', 'stages.phase_a.options.train_cfg.max_epochs=1', 'randomness.seed=7', '--no-validate']
    )
    record = json.loads((two_stages / 'work_dirs/b/phase_a/run.json').read_text())
    assert record['finished'] and record['config']['train_cfg']['max_epochs'] == 1
    assert record['config']['randomness']['seed'] == 7
    assert list(checkpoints(two_stages / 'work_dirs/b/phase_a')) == ['epoch_1.pth']


def test_amp_without_gpu_trains_in_bfloat16(two_stages, train_tool):
    metrics = train_tool.main(['b.py', '--amp', '--auto-scale-lr'])
    assert 0 <= metrics['shot/all'] <= 100


def test_how_to_run_is_no_other_training(two_stages, train_tool, capsys):
    """Finished in one way, it is finished in every other."""
    train_tool.main(['b.py', '--no-test', '--cfg-options', 'stages.phase_a.work_dir=shared'])
    shared = ['--cfg-options', 'stages.phase_a.work_dir=shared']
    files = checkpoints('shared') | checkpoints('work_dirs/b')
    for how in (['--amp'], ['--no-validate'], ['--no-pin-memory', '--no-persistent-workers'], []):
        capsys.readouterr()
        options = ['train_dataloader.num_workers=1', 'stages.phase_a.options.train_dataloader.num_workers=1']
        train_tool.main(['b.py', '--no-test', *how, *shared, *(options if not how else [])])
        assert capsys.readouterr().out.count('already finished') == 2
    assert checkpoints('shared') | checkpoints('work_dirs/b') == files


@pytest.mark.parametrize('first, then', [([], ['--amp']), (['--amp'], [])])
def test_resuming_in_another_precision(two_stages, train_tool, capsys, monkeypatch, first, then):
    with monkeypatch.context() as patch, pytest.raises(_PowerCut):
        patch.setattr(EpochHook, 'before_train_epoch', lambda hook, runner: runner.epoch == 2 and _cut())
        train_tool.main(['a.py', '--no-test', *first])
    train_tool.main(['a.py', '--no-test', *then])
    assert 'resuming' in capsys.readouterr().out
    assert 'epoch_3.pth' in checkpoints('work_dirs/a')


def _cut():
    raise _PowerCut


def test_amp_of_another_wrapper(two_stages, train_tool):
    with pytest.raises(SystemExit, match="'a.py' has an optimizer wrapper of its own, ApexOptimWrapper: leave out"):
        train_tool.main(['a.py', '--amp', '--cfg-options', 'optim_wrapper.type=ApexOptimWrapper'])


def test_remedies_of_another_training(two_stages, train_tool, capsys):
    """Each of them is followed."""
    shared = ['--cfg-options', 'stages.phase_a.work_dir=shared']
    one = ['stages.phase_a.options.train_cfg.max_epochs=1', 'train_cfg.max_epochs=1']
    train_tool.main(['b.py', '--no-test', *shared, *one])
    other = [*shared, *one, 'stages.phase_a.options.optim_wrapper.optimizer.lr=0.1']
    with pytest.raises(
        SystemExit, match=r'Give --cfg-options stages\.phase_a\.work_dir=<folder>, or .* --restart phase_a\.'
    ):
        train_tool.main(['b.py', '--no-test', *other])
    # the last stage would be of another phase A: told before that is trained
    before = checkpoints('shared')
    with pytest.raises(SystemExit, match=r"stage 'phase_a' is to be trained anew\. .* --restart phase_a b\."):
        train_tool.main(['b.py', '--no-test', '--restart', 'phase_a', *other])
    assert checkpoints('shared') == before
    train_tool.main(['b.py', '--no-test', '--restart', 'phase_a', 'b', *other])
    assert checkpoints('shared') != before
    elsewhere = ['stages.phase_a.work_dir=elsewhere', *one, '--work-dir', 'w']
    train_tool.main(['b.py', '--no-test', '--cfg-options', *elsewhere])
    capsys.readouterr()
    train_tool.main(['b.py', '--no-test', *other])
    assert capsys.readouterr().out.count('already finished') == 2
    # a stage whose folder is gone
    for path in Path('shared').iterdir():
        if path.is_file():
            path.unlink()
    with pytest.raises(
        SystemExit, match=r"stage 'phase_a' was trained anew since\. Give another --work-dir, or .* --restart\."
    ):
        train_tool.main(['b.py', '--no-test', *other])


def test_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(two_stages, train_tool):
    blow_up = ['a.py', '--cfg-options', 'optim_wrapper.optimizer.lr=1e30', 'param_scheduler=None']
    with pytest.raises(SystemExit, match=r'loss became .* at iteration \d+ .*no checkpoint was written yet'):
        train_tool.main(blow_up)
    train_tool.main(['a.py', '--work-dir', 'w', '--cfg-options', 'train_cfg.max_epochs=1'])
    good = weights('w/epoch_1.pth')
    later = ['a.py', '--work-dir', 'w', '--resume', '--cfg-options', 'train_cfg.max_epochs=3']
    with pytest.raises(SystemExit, match=r'the last checkpoint is .*epoch_1\.pth'):
        train_tool.main([*later, 'default_hooks.poison.type=TestPoisonHook'])
    kept = weights('w/epoch_1.pth')
    assert all(torch.equal(good[k], kept[k]) for k in good)
    assert sorted(checkpoints('w')) == ['epoch_1.pth']


@HOOKS.register_module(name='TestPoisonHook', force=True)
class PoisonHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        next(runner.model.parameters()).data.fill_(float('nan'))


def test_resume_with_another_model_is_refused(two_stages, train_tool):
    train_tool.main(['a.py', '--cfg-options', 'train_cfg.max_epochs=1'])
    with pytest.raises(SystemExit, match=r'Cannot resume from .*model\.head\.logit_scale was 20\.0 and is now 30\.0'):
        train_tool.main(['a.py', '--resume', '--cfg-options', 'model.head.logit_scale=30.0'])
    train_tool.main(['a.py', '--resume', '--cfg-options', 'train_cfg.max_epochs=2'])
    assert 'epoch_2.pth' in checkpoints('work_dirs/a')


def test_adapter_of_another_width_is_named(two_stages, train_tool):
    with pytest.raises(SystemExit, match=r'width 32, but they are 64 wide: set in_channels=64'):
        train_tool.main(['b.py', '--cfg-options', 'model.neck.in_channels=32'])


@pytest.mark.parametrize(
    'arguments, sentence',
    [
        (['a.py', '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'], 'for which batch size'),
        (['missing.py'], r"config 'missing\.py' does not exist"),
        (['broken.py'], r"config 'broken\.py' could not be read \(SyntaxError in line 1 of 'broken\.py': '\(' was"),
        (['heir.py'], r"'heir\.py' could not be read \(NameError in line 2 of '.*wrong\.py': name 'foo'"),
        (['orphan.py'], r"'orphan\.py' could not be read \(FileNotFoundError: .*nobase\.py'"),
        (['.'], r"'\.' is a folder: give a config"),
        (['a.py', '--cfg-options', 'train_cfg.max_epochs=abc'], r"^mmlt: train_cfg\.max_epochs is 'abc': give a whole"),
        (['a.py', '--cfg-options', 'train_cfg.max_epochs=1.5'], r'train_cfg\.max_epochs is 1\.5: give a whole number'),
        (
            ['a.py', '--cfg-options', 'train_dataloader.batch_size=0'],
            r'train_dataloader\.batch_size is 0: give a whole',
        ),
        (['a.py', '--resume', 'nofile.pth'], r"checkpoint 'nofile\.pth' does not exist: give a"),
        (['a.py', '--launcher', 'pytorch'], 'but RANK is not set, so nothing has started the processes: leave it out'),
        (
            ['a.py', '--cfg-options', 'model.neck=dict(_delete_=True,type=GlobalAveragePooling)'],
            r'model\.neck\._delete_: the base has nothing here that could be deleted; leave it out',
        ),
        (['b.py', '--cfg-options', 'stages.phase_a.config=none.py'], r"config of stage 'phase_a', 'none\.py'"),
        (['a.py', '--cfg-options', 'model.backbone.model=RN5000'], "no model 'RN5000'"),
        (['a.py', '--cfg-options', 'model.backbone.pretrained=/no/such.pt'], r"'/no/such\.pt'.*does not exist"),
        (['a.py', '--cfg-options', 'train_dataloader.dataset.ann_file=no.txt'], r"no\.txt' does not exist"),
    ],
)
def test_bad_input_ends_in_one_sentence(two_stages, train_tool, arguments, sentence):
    Path('broken.py').write_text('model = dict(')
    Path('wrong.py').write_text('\nmodel = foo')
    Path('heir.py').write_text("_base_ = 'wrong.py'")
    Path('orphan.py').write_text("_base_ = 'nobase.py'")
    with pytest.raises(SystemExit, match=sentence) as stop:
        train_tool.main(arguments)
    assert str(stop.value).startswith('mmlt: ')
    assert '\n' not in str(stop.value)


def test_zero_shot_without_checkpoint_and_test_of_a_checkpoint(two_stages, train_tool, test_tool):
    zero_shot = test_tool.main(['a.py', '--work-dir', 'z'])
    trained = train_tool.main(['a.py'])
    tested = test_tool.main(
        ['a.py', 'work_dirs/a/epoch_3.pth', '--work-dir', 'z2', '--out', 'metrics.json', '--out-item', 'metrics']
    )
    assert tested == pytest.approx(trained)
    assert json.loads(Path('metrics.json').read_text()) == pytest.approx(trained)
    assert zero_shot['shot/ece'] != pytest.approx(trained['shot/ece'])
    with pytest.raises(SystemExit, match=r"lacks 2 weights .* 'neck\.linear\.weight'"):
        test_tool.main(['b.py', 'work_dirs/a/epoch_3.pth'])
    with pytest.raises(SystemExit, match="'none.pth' does not exist"):
        test_tool.main(['a.py', 'none.pth'])
    tta = test_tool.main(['a.py', 'work_dirs/a/epoch_3.pth', '--tta', '--amp', '--out', 'p.pkl'])
    assert 0 <= tta['shot/all'] <= 100
    test_tool.main(['a.py', 'work_dirs/a/epoch_3.pth', '--show-dir', 'shown'])
    assert len(list(Path('shown').rglob('*.png'))) == 6


def run_stock(name, *arguments):
    import mmpretrain

    tool = Path(mmpretrain.__file__).parent / '.mim/tools' / name
    return subprocess.run([sys.executable, tool, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_stock_tools_run_every_stage(two_stages, repo, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', str(repo))
    missing = run_stock('train.py', 'b.py')
    assert missing.returncode != 0
    assert "The earlier stage 'phase_a' is not finished in './work_dirs/b/phase_a'" in missing.stderr
    assert run_stock('train.py', 'a.py', '--work-dir', 'work_dirs/b/phase_a').returncode == 0
    done = run_stock('train.py', 'b.py', '--work-dir', 'work_dirs/b')
    assert done.returncode == 0, done.stderr[-2000:]
    tested = run_stock('test.py', 'b.py', 'work_dirs/b/epoch_3.pth')
    assert tested.returncode == 0, tested.stderr[-2000:]
    assert 'shot_report.png' in tested.stdout + tested.stderr


def test_reused_phase_a_may_have_another_seed(two_stages, train_tool, capsys):
    train_tool.main(['a.py', '--work-dir', 'shared', '--cfg-options', 'randomness.seed=5'])
    train_tool.main(['b.py', '--cfg-options', 'stages.phase_a.work_dir=shared'])
    assert 'phase_a (shared): already finished' in capsys.readouterr().out


def test_config_without_training_is_tested(two_stages, train_tool, test_tool, capsys):
    Path('zero.py').write_text(
        "_base_ = ['./a.py']\ntrain_cfg = None\ntrain_dataloader = None\noptim_wrapper = None\nparam_scheduler = None\n"
    )
    metrics = train_tool.main(['zero.py', '--amp'])
    assert 'nothing to train' in capsys.readouterr().out
    assert metrics == pytest.approx(test_tool.main(['a.py', '--work-dir', 'z']))
    with pytest.raises(SystemExit, match="'b.py' is the last of several stages"):
        test_tool.main(['b.py'])


def test_options_keep_the_spaces_of_a_text(train_tool):
    options = ['a.txt="a photo of the {}"', 'b=[1, 2]', 'c=x y', 'd=1,2', 'e=(3.0, f)', 'f=True']
    parsed = train_tool.parse_args(['c.py', '--cfg-options', *options]).cfg_options
    assert parsed == {'a.txt': 'a photo of the {}', 'b': [1, 2], 'c': 'x y', 'd': [1, 2], 'e': (3.0, 'f'), 'f': True}
