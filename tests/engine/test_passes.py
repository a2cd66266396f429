"""Settings by epoch, in trainings by epochs and by iterations."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner as MMEngineRunner

from mmlt import InputError
from mmlt.datasets.transforms.crops import growing_crop_minimum
from mmlt.engine import Runner
from mmlt.engine.passes import count_epochs, pass_length
from mmlt.registry import DATASETS, HOOKS, TRANSFORMS


@DATASETS.register_module()
class TwelveSquares(BaseDataset):
    METAINFO = dict(classes=('a', 'b', 'c'))

    def load_data_list(self):
        return [dict(img=torch.full((8, 8, 3), 20 * i).byte().numpy(), gt_label=i % 3) for i in range(12)]


@TRANSFORMS.register_module()
class Spy:
    """Keeps the crop's range of every picture in a list of the main process."""

    seen = []

    def __init__(self):
        from mmlt.datasets.transforms.crops import GrowingRandomResizedCrop

        self.transforms = [GrowingRandomResizedCrop(8)]

    def __call__(self, results):
        results = self.transforms[0](results)
        Spy.seen.append(self.transforms[0].crop_ratio_range[0])
        return results


@HOOKS.register_module()
class Watch(Hook):
    """Whether the loss weighs the classes, and the rate, in every iteration."""

    seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        Watch.seen.append((runner.model.head.loss_module._reweighted, runner.optim_wrapper.get_lr()['lr'][0]))


def config(work_dir, train_cfg, runner='mmlt.Runner', **changes):
    cfg = dict(
        default_scope='mmpretrain',
        work_dir=str(work_dir),
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.CIFARResNet', depth=8, base_channels=4),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=3, in_channels=16, loss=dict(type='mmlt.LDAMLoss', drw_epoch=2)
            ),
        ),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            dataset=dict(type='mmlt.TwelveSquares', pipeline=[dict(type='mmlt.Spy'), dict(type='PackInputs')]),
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        train_cfg=train_cfg,
        custom_hooks=[dict(type='mmlt.ClassInfoHook'), dict(type='mmlt.Watch')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch='max_epochs' in train_cfg, interval=1)),
        log_level='WARNING',
        randomness=dict(seed=0),
    )
    if runner:
        cfg['runner_type'] = runner
    return Config({**cfg, **changes})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """MMEngine sleeps two seconds where a pass begins."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)
    Spy.seen, Watch.seen = [], []


EPOCHS, ITERATIONS = dict(by_epoch=True, max_epochs=4), dict(by_epoch=False, max_iters=12)


@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS], ids=['epochs', 'iterations'])
def test_losses_and_transforms_follow_the_passes(tmp_path, loop):
    Runner.from_cfg(config(tmp_path, loop)).train()
    assert [w for w, _ in Watch.seen] == [False] * 6 + [True] * 6  # of three iterations each, from the third on
    expected = [growing_crop_minimum(e, 4) for e in range(4) for _ in range(12)]
    assert Spy.seen == pytest.approx(expected, abs=1e-6)


def test_a_last_pass_that_is_not_whole_counts(tmp_path):
    runner = Runner.from_cfg(config(tmp_path, dict(by_epoch=False, max_iters=8)))
    runner.train()
    assert count_epochs(runner) == 3 and [w for w, _ in Watch.seen] == [False] * 6 + [True] * 2
    assert Spy.seen == pytest.approx([growing_crop_minimum(i // 12, 3) for i in range(32)], abs=1e-6)


@pytest.mark.parametrize('loop', [EPOCHS, ITERATIONS], ids=['epochs', 'iterations'])
def test_a_resumed_training_knows_its_pass(tmp_path, loop):
    Runner.from_cfg(config(tmp_path, loop)).train()
    half = 'epoch_2.pth' if loop is EPOCHS else 'iter_7.pth'
    Spy.seen, Watch.seen = [], []
    Runner.from_cfg(config(tmp_path / 'b', loop, resume=True, load_from=str(tmp_path / half))).train()
    assert [w for w, _ in Watch.seen] == ([True] * 6 if loop is EPOCHS else [True] * 5)
    assert Spy.seen[-12:] == pytest.approx([1.0] * 12)


def test_length_of_a_pass_of_an_endless_sampler(monkeypatch):
    dataset = list(range(100))
    loader = SimpleNamespace(dataset=dataset, batch_size=8, sampler=InfiniteSampler(dataset))
    assert pass_length(loader) == 13
    monkeypatch.setattr('mmlt.engine.passes.get_world_size', lambda: 2)
    assert pass_length(loader) == 7


@pytest.mark.parametrize(
    ('schedule', 'loop', 'match'),
    [
        (dict(type='CosineAnnealingLR', T_max=4), ITERATIONS, r'CosineAnnealingLR changes by epoch.*\(3 are a pass'),
        (dict(type='mmlt.EpochCosineLR'), ITERATIONS, 'EpochCosineLR changes by epoch.*by_epoch=False'),
        (dict(type='MultiStepLR', milestones=[2]), ITERATIONS, 'MultiStepLR changes by epoch'),
        (dict(type='LinearLR', start_factor=0.1, end=3, by_epoch=False), ITERATIONS, None),
        (dict(type='CosineAnnealingLR', T_max=4), EPOCHS, None),
        (dict(type='CosineAnnealingLR', T_max=4, convert_to_iter_based=True), EPOCHS, None),
    ],
)
def test_schedules_by_epoch(tmp_path, schedule, loop, match):
    runner = Runner.from_cfg(config(tmp_path, loop, param_scheduler=[schedule]))
    if match:
        with pytest.raises(InputError, match=match):
            runner.train()
        assert not Watch.seen
    else:
        runner.train()
        assert len({lr for _, lr in Watch.seen}) >= 3


@pytest.mark.parametrize(
    ('hook', 'loop', 'match'),
    [
        (dict(type='EMAHook', begin_epoch=2), ITERATIONS, 'EMAHook has begin_epoch=2.*give begin_iter instead'),
        (dict(type='EMAHook', begin_epoch=9), EPOCHS, 'begin_epoch=9, but the training ends after 4 epochs'),
        (dict(type='EMAHook', begin_iter=99), EPOCHS, 'begin_iter=99, but the training ends after 12 iterations'),
        (dict(type='EMAHook', begin_iter=5), ITERATIONS, None),
        (dict(type='EMAHook', begin_epoch=2), EPOCHS, None),
        (
            dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=2, train_augments=None)]),
            ITERATIONS,
            'SwitchRecipeHook has action_epoch=2',
        ),
        (
            dict(type='WarmupParamHook', param_name='x', module_name='head', warmup_epochs=2),
            ITERATIONS,
            'warmup_epochs=2',
        ),
    ],
)
def test_hooks_of_others_that_count_epochs(tmp_path, hook, loop, match):
    cfg = config(tmp_path, loop)
    cfg.custom_hooks.append(hook)
    runner = Runner.from_cfg(cfg)
    if match:
        with pytest.raises(InputError, match=match):
            runner.train()
        assert not Watch.seen
    else:
        runner.train()


def test_what_begins_after_the_end_and_checkpoints_by_epoch_are_told(tmp_path, caplog):
    told = []
    runner = Runner.from_cfg(
        config(
            tmp_path,
            ITERATIONS,
            param_scheduler=[dict(type='LinearLR', start_factor=0.1, begin=50, end=60, by_epoch=False)],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=True, interval=1)),
        )
    )
    runner.logger.handle = lambda record: (
        told.append(record.getMessage()) if record.levelno >= logging.WARNING else None
    )
    runner.train()
    assert any('LinearLR begins at iteration 50, after the end of the training at 12' in line for line in told)
    assert any('one checkpoint, at the end' in line for line in told)


def test_a_loss_by_epoch_under_the_stock_runner(tmp_path):
    # Without the hook it is refused in a training by iterations, with it it works; by epochs it always does.
    cfg = config(tmp_path / 'a', ITERATIONS, runner=None)
    with pytest.raises(
        InputError, match=r"MMEngine counts one epoch in this training: add dict\(type='mmlt.EpochHook'"
    ):
        MMEngineRunner.from_cfg(cfg).train()
    Watch.seen = []
    cfg = config(tmp_path / 'b', ITERATIONS, runner=None)
    cfg.custom_hooks.append(dict(type='mmlt.EpochHook'))
    MMEngineRunner.from_cfg(cfg).train()
    assert [w for w, _ in Watch.seen] == [False] * 6 + [True] * 6
    Watch.seen = []
    MMEngineRunner.from_cfg(config(tmp_path / 'c', EPOCHS, runner=None)).train()
    assert [w for w, _ in Watch.seen] == [False] * 6 + [True] * 6


def test_a_sampler_planned_for_another_length_is_told(tmp_path):
    told = []
    cfg = config(tmp_path, ITERATIONS)
    cfg.train_dataloader.sampler = dict(type='mmlt.MixBalancedSampler', max_epochs=100)
    runner = Runner.from_cfg(cfg)
    runner.logger.handle = lambda record: (
        told.append(record.getMessage()) if record.levelno >= logging.WARNING else None
    )
    runner.train()
    assert any('max_epochs=100, but the training has 4 passes over the images' in line for line in told)
    assert runner.train_dataloader.sampler.epoch == 3
