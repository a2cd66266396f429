"""A training whose newest checkpoint is damaged goes on from the one before it."""

from pathlib import Path

import pytest
import torch

from mmlt.checkpoints import read_checkpoint
from mmlt.engine import EpochHook, Runner
from mmlt.evaluation import ShotAccuracy

OPTIONS = ['--no-test', '--no-validate']


class _PowerCut(Exception):
    pass


@pytest.fixture
def interrupted(two_stages, train_tool, monkeypatch):
    """a.py, cut off in its third epoch; the folder."""

    def cut(hook, runner):
        if runner.epoch == 2:
            raise _PowerCut

    with monkeypatch.context() as patch, pytest.raises(_PowerCut):
        patch.setattr(EpochHook, 'before_train_epoch', cut)
        train_tool.main(['a.py', *OPTIONS])
    return Path('work_dirs/a')


def damage(path, kind):
    content = path.read_bytes()
    if kind == 'note':
        (path.parent / 'last_checkpoint').write_text(str(path)[:-5])
    else:
        path.write_bytes({'half': content[: len(content) // 2], 'empty': b'', 'end': content[:-30]}[kind])


@pytest.mark.parametrize('kind', ['half', 'empty', 'end', 'note'])
def test_the_one_before_is_used(interrupted, train_tool, capsys, kind):
    train_tool.main(['a.py', *OPTIONS, '--work-dir', 'whole'])
    damage(interrupted / 'epoch_2.pth', kind)
    capsys.readouterr()
    train_tool.main(['a.py', *OPTIONS])
    told = "epoch_2.pth' cut off or damaged: the training goes on from" in capsys.readouterr().out
    assert told == (kind != 'note')
    a, b = (read_checkpoint(folder / 'epoch_3.pth')['state_dict'] for folder in (Path('whole'), interrupted))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_where_none_is_whole(interrupted, train_tool):
    for path in interrupted.glob('epoch_*.pth'):
        damage(path, 'half')
    with pytest.raises(SystemExit, match='^mmlt: Of the training in .*no checkpoint is whole .*epoch_2.* --restart'):
        train_tool.main(['a.py', *OPTIONS])
    train_tool.main(['a.py', *OPTIONS, '--restart'])
    assert 'state_dict' in read_checkpoint(interrupted / 'epoch_3.pth')


@pytest.mark.parametrize('best', [False, True])
def test_the_last_checkpoint_is_removed_when_the_next_is_written(two_stages, train_tool, monkeypatch, best):
    """One is kept, and the disk is full when the second is written."""
    writing = Runner.save_checkpoint

    victim = 'best_shot_nll_epoch_2.pth' if best else 'epoch_2.pth'

    def full(runner, out_dir, filename, *args, **kwargs):
        if filename == victim:
            raise _PowerCut
        return writing(runner, out_dir, filename, *args, **kwargs)

    keep = ['default_hooks.checkpoint.max_keep_ckpts=1', 'default_hooks.checkpoint.save_best=shot/nll']
    options = ['--cfg-options', *keep, 'train_cfg.val_interval=1']
    with monkeypatch.context() as patch, pytest.raises(_PowerCut):
        patch.setattr(Runner, 'save_checkpoint', full)
        train_tool.main(['a.py', *options])
    names = {path.name for path in Path('work_dirs/a').glob('*.pth')}
    assert names == {'best_shot_nll_epoch_1.pth', 'epoch_2.pth' if best else 'epoch_1.pth'}
    train_tool.main(['a.py', *options])
    names = {path.name for path in Path('work_dirs/a').glob('*.pth')}
    assert names == {'best_shot_nll_epoch_3.pth', 'epoch_3.pth'}


@pytest.mark.parametrize('by_iterations', [False, True])
def test_a_validation_that_was_cut_off_is_made_up_for(two_stages, train_tool, monkeypatch, by_iterations):
    """The best checkpoint of the whole training is that of the validation in which it was interrupted."""
    loop = 'by_epoch=False, max_iters' if by_iterations else 'by_epoch=True, max_epochs'
    config = f"_base_ = 'a.py'\ntrain_cfg = dict(_delete_=True, {loop}=3, val_interval=2)\nparam_scheduler = []\n"
    if by_iterations:
        config += "train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler'))\n"
    config += f"default_hooks = dict(checkpoint=dict(save_best='shot/nll', by_epoch={not by_iterations}))\n"
    Path('best.py').write_text(config)
    command = ['best.py']
    with monkeypatch.context() as patch:
        worse = iter([1.0, 2.0])  # the second validation is worse
        compute = ShotAccuracy.compute_metrics
        patch.setattr(ShotAccuracy, 'compute_metrics', lambda self, r: {**compute(self, r), 'nll': next(worse)})
        with pytest.raises(_PowerCut):
            patch.setattr(Runner, 'save_checkpoint', cut_at_best(Runner.save_checkpoint))
            train_tool.main([*command, '--no-test'])
    worse = iter([1.0, 2.0])
    monkeypatch.setattr(ShotAccuracy, 'compute_metrics', lambda self, r: {**compute(self, r), 'nll': next(worse)})
    train_tool.main([*command, '--no-test'])
    best = [path.name for path in Path('work_dirs/best').glob('best_*')]
    assert best == [f'best_shot_nll_{"iter" if by_iterations else "epoch"}_2.pth']


def cut_at_best(save):
    def cut(runner, out_dir, filename, *args, **kwargs):
        if 'best' in filename:
            raise _PowerCut
        return save(runner, out_dir, filename, *args, **kwargs)

    return cut
