"""The best checkpoint by validation is what a training gives; other batches and other recipes are told."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import Runner
from mmlt.engine.stages import RunRecord
from mmlt.evaluation import ShotAccuracy

BEST = [
    'default_hooks.checkpoint.save_best=shot/all',
    'default_hooks.checkpoint.rule=greater',
    'train_cfg.val_interval=1',
]


@HOOKS.register_module()
class SeenInTest(Hook):
    """Keeps a weight as a test sees it, after every other hook."""

    priority = 'LOWEST'
    seen: list = []

    def before_test_iter(self, runner, *args, **kwargs):
        self.seen[:] = [runner.model.backbone.visual.proj.detach().clone()]


@pytest.fixture
def scores(monkeypatch):
    """Validation finds 10, 30, 20 in the three epochs of a training, whatever the model is."""
    found = iter([10.0, 30.0, 20.0] * 4)
    original = ShotAccuracy.compute_metrics

    def compute(self, results):
        return {**original(self, results), 'all': next(found)}

    monkeypatch.setattr(ShotAccuracy, 'compute_metrics', compute)


def weights(path):
    return read_checkpoint(path)['state_dict']['backbone.visual.proj']


def warnings(monkeypatch):
    """All that is logged as a warning from now on."""
    told = []
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, message, *args: told.append(str(message)))
    return told


def warnings_of(cfg, monkeypatch):
    told = warnings(monkeypatch)
    Runner.from_cfg(cfg).train()
    return told


def watched(config):
    """A config like another one, with SeenInTest."""
    path = Path(f'watched_{config}')
    path.write_text(f"_base_ = ['./{config}']\ncustom_hooks = [dict(type='SeenInTest')]\n")
    return str(path)


def test_the_best_goes_to_the_next_stage_and_is_tested(two_stages, train_tool, scores):
    phase_a = [f'stages.phase_a.options.{option}' for option in BEST]
    train_tool.main([watched('b.py'), '--work-dir', 'w', '--cfg-options', *phase_a])
    best, last = Path('w/phase_a/best_shot_all_epoch_2.pth'), Path('w/phase_a/epoch_3.pth')
    assert RunRecord('w/phase_a').read()['best'] == best.name and Path(RunRecord('w/phase_a').result) == best
    assert not torch.equal(weights(best), weights(last))
    assert torch.equal(weights('w/epoch_3.pth'), weights(best))  # phase B has the towers frozen
    assert torch.equal(SeenInTest.seen[0], weights(best))
    assert RunRecord('w').read()['best'] is None and RunRecord('w').result.endswith('epoch_3.pth')


def test_the_training_itself_ends_with_the_best(two_stages, train_tool, scores):
    config = watched('a.py')
    for _ in range(2):  # trained, then found finished
        SeenInTest.seen.clear()
        train_tool.main([config, '--work-dir', 'w', '--cfg-options', *BEST])
        assert torch.equal(SeenInTest.seen[0], weights('w/best_shot_all_epoch_2.pth'))
    Path('w/best_shot_all_epoch_2.pth').unlink()
    with pytest.raises(SystemExit, match='best_shot_all_epoch_2.pth, is gone.*--restart'):
        train_tool.main([config, '--work-dir', 'w', '--cfg-options', *BEST])


@pytest.mark.parametrize('best', [True, False])
def test_with_averaged_weights(two_stages, train_tool, scores, best):
    """An EMAHook's averages are what a checkpoint holds, and what is tested after a training, too."""
    Path('ema.py').write_text(
        "_base_ = ['./a.py']\ncustom_hooks = [dict(type='EMAHook', momentum=0.3), dict(type='SeenInTest')]\n"
    )
    train_tool.main(['ema.py', '--work-dir', 'w', *(['--cfg-options', *BEST] if best else [])])
    path = 'w/best_shot_all_epoch_2.pth' if best else 'w/epoch_3.pth'
    checkpoint = read_checkpoint(path)
    (seen,) = SeenInTest.seen
    assert torch.equal(seen, checkpoint['state_dict']['backbone.visual.proj'])
    assert not torch.equal(seen, checkpoint['ema_state_dict']['module.backbone.visual.proj'])


def resumed(folder, *options):
    return ['a.py', '--work-dir', folder, '--resume', 'w/epoch_2.pth', '--no-test', '--cfg-options', *options]


def test_the_best_is_found_where_it_lies(two_stages, train_tool, scores):
    """Of a training that began in another folder, whose later epochs are no better."""
    train_tool.main(['a.py', '--work-dir', 'w', '--no-test', '--cfg-options', *BEST])
    train_tool.main(resumed('w2', *BEST))  # epoch 3 scores 10
    assert RunRecord('w2').result == str(Path('w/best_shot_all_epoch_2.pth').resolve())
    train_tool.main(resumed('w3', 'train_cfg.val_interval=1'))
    assert RunRecord('w3').result.endswith('w3/epoch_3.pth')  # this config keeps none


def test_a_best_that_is_gone_at_the_end_gives_way_to_the_last(two_stages, train_tool, scores, monkeypatch):
    train_tool.main(['a.py', '--work-dir', 'w', '--no-test', '--cfg-options', *BEST])
    Path('w/best_shot_all_epoch_2.pth').unlink()
    told = warnings(monkeypatch)
    train_tool.main(resumed('w2', *BEST))
    assert RunRecord('w2').result.endswith('w2/epoch_3.pth')
    assert any("best_shot_all_epoch_2.pth', is gone: the last one" in line for line in told)


def test_which_checkpoint_is_the_result_decides(two_stages, train_tool):
    train_tool.main(['a.py', '--work-dir', 'w', '--no-test', '--cfg-options', *BEST])
    last = [*BEST[2:], 'default_hooks.checkpoint.save_best=None']
    with pytest.raises(SystemExit, match="another config: checkpoint was .*'shot/all'.* and is now not set"):
        train_tool.main(['a.py', '--work-dir', 'w', '--no-test', '--cfg-options', *last])


def test_without_validation_the_last_one_stands(two_stages, train_tool):
    train_tool.main(['a.py', '--work-dir', 'w', '--no-validate', '--no-test', '--cfg-options', *BEST[:2]])
    assert RunRecord('w').result.endswith('epoch_3.pth')


def test_old_records_have_the_last_one(tmp_path):
    record = RunRecord(str(tmp_path))
    record._write(dict(id='x', finished=True, config={}, stages={}))
    assert record.result is None  # nothing there


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        ({}, False),
        ({'train_dataloader.batch_size': 2}, True),
        ({'train_dataloader.batch_size': 2, 'optim_wrapper.accumulative_counts': 2}, False),
        ({'train_dataloader.batch_size': 2, 'auto_scale_lr.enable': True}, False),
        ({'train_dataloader.batch_size': 2, 'auto_scale_lr': None}, False),
    ],
)
def test_another_batch_is_told_once(two_stages, monkeypatch, options, told):
    cfg = Config.fromfile('a.py')
    cfg.work_dir = 'w'
    cfg.merge_from_dict(options)
    lines = [m for m in warnings_of(cfg, monkeypatch) if 'for a batch of' in m]
    assert len(lines) == told
    if told:
        assert 'batch of 4, the batch here is 2' in lines[0] and '--auto-scale-lr' in lines[0]


@pytest.mark.parametrize(
    ('options', 'difference'),
    [
        ({'optim_wrapper.optimizer.lr': 0.5}, 'optim_wrapper.optimizer.lr was 0.01 and is now 0.5'),
        ({'optim_wrapper.optimizer.weight_decay': 0.1}, 'optim_wrapper.optimizer.weight_decay was not set'),
        ({'train_cfg.max_epochs': 4}, 'train_cfg.max_epochs was 3 and is now 4'),
        ({'train_dataloader.sampler.shuffle': False}, 'train_dataloader.sampler.shuffle'),
        ({'train_dataloader.dataset.ann_file': 'meta/other.txt'}, "ann_file was 'train.txt' and is now 'other.txt'"),
        ({'train_dataloader.dataset.data_root': './', 'train_dataloader.dataset.ann_file': './train.txt'}, None),
        ({'train_dataloader.num_workers': 1, 'log_level': 'WARNING', 'default_hooks.logger.interval': 1}, None),
    ],
)
def test_a_resume_names_the_first_difference_of_the_recipe(two_stages, monkeypatch, options, difference):
    cfg = Config.fromfile('a.py')
    cfg.work_dir = 'w'
    Runner.from_cfg(cfg).train()
    again = Config.fromfile('a.py')
    again.work_dir, again.resume = 'w', True
    again.merge_from_dict(options)
    Path('meta').mkdir()
    Path('meta/other.txt').write_text(Path('train.txt').read_text())
    lines = [m for m in warnings_of(again, monkeypatch) if 'another recipe' in m]
    assert len(lines) == (difference is not None)
    assert difference is None or difference in lines[0]


def test_a_resume_with_another_model_is_still_refused(two_stages):
    cfg = Config.fromfile('a.py')
    cfg.work_dir = 'w'
    Runner.from_cfg(cfg).train()
    again = Config.fromfile('a.py')
    again.work_dir, again.resume = 'w', True
    again.merge_from_dict({'model.head.logit_scale': 30.0})
    with pytest.raises(InputError, match='model.head.logit_scale was 20.0 and is now 30.0'):
        Runner.from_cfg(again).train()
