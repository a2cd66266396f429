"""Random transforms depend on the place in the training, and an interrupted training is the uninterrupted one."""

import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import RUNNERS
from torch.utils.data import DataLoader

from mmlt.checkpoints import read_checkpoint
from mmlt.engine import EpochHook
from mmlt.engine.draws import Draw, number_draws
from mmlt.engine.random_state import random_state, restore_of_rank, restore_random_state


class Noise(torch.utils.data.Dataset):
    """Items are random numbers of all libraries."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        assert type(index) is int
        return index, random.random(), np.random.random(), float(torch.rand(()))


class Order:
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 12

    def __iter__(self):
        return iter(np.random.default_rng(self.epoch).permutation(12).tolist())


def epochs(workers, number=3, first=0, seed=5):
    loader = number_draws(DataLoader(Noise(), 4, sampler=Order(), num_workers=workers, collate_fn=list), seed)
    found = []
    for epoch in range(first, number):
        loader.sampler.set_epoch(epoch)
        found.append([item for batch in loader for item in batch])
    return found


def test_items_are_those_of_the_place():
    whole = epochs(0)
    assert epochs(2) == whole  # whatever the workers
    assert epochs(1, first=2) == whole[2:]  # whatever came before
    values = {item[k] for epoch in whole for item in epoch for k in (1, 2, 3)}
    assert len(values) == 3 * 36  # and never the same
    assert epochs(0, seed=6) != whole


class Skips(Order):
    """As OneDL's InfiniteSampler, which a resumed training tells how much it had."""

    skipped = 0

    def skip(self, number):
        self.skipped = number

    def __iter__(self):
        return iter(list(super().__iter__())[self.skipped :])


def test_samplers_that_begin_in_the_middle():
    whole = epochs(0, number=1)[0]
    loader = number_draws(DataLoader(Noise(), 4, sampler=Skips(), collate_fn=list), 5)
    loader.sampler.skip(8)
    assert [item for batch in loader for item in batch] == whole[8:]


def test_nothing_else_is_changed():
    def state():
        return random.random(), np.random.random(), float(torch.rand(()))

    before = random_state()
    expected = state()
    restore_random_state(before)
    epochs(0)
    epochs(1)
    assert state() == expected


def test_the_dataset_is_as_ever():
    dataset = Noise()
    loader = number_draws(DataLoader(dataset, 4, sampler=Order()), 0)
    next(iter(loader))
    assert loader.dataset is dataset and vars(dataset) == {} and type(dataset) is Noise
    assert isinstance(loader, DataLoader) and number_draws(loader, 0) is loader
    assert not isinstance(loader.batch_sampler.sampler.sampler, type(loader.batch_sampler.sampler))


def test_draws_are_indices():
    import pickle

    draw = pickle.loads(pickle.dumps(Draw(3, 2**40)))
    assert draw == 3 and [5, 6, 7, 8][draw] == 8 and draw.number == 2**40


def test_states_of_another_number_of_processes_are_left_alone():
    before = random_state()
    assert not restore_of_rank(None) and not restore_of_rank([before, before])
    assert restore_of_rank([before])


class _PowerCut(Exception):
    pass


JITTER = dict(type='mmlt.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)


def training(work_dir, workers, by_iterations):
    cfg = Config.fromfile('a.py')
    cfg.work_dir = work_dir
    loader = cfg.train_dataloader
    loader.update(num_workers=workers, persistent_workers=bool(workers))
    loader.dataset.pipeline = [*loader.dataset.pipeline[:-1], JITTER, loader.dataset.pipeline[-1]]
    cfg.model.backbone.frozen = False
    cfg.model.data_preprocessor.update(
        num_classes=3, batch_augments=dict(augments=dict(type='Mixup', alpha=0.8))
    )  # draws in the process of the training
    if by_iterations:
        loader.sampler = dict(type='InfiniteSampler')
        cfg.train_cfg = dict(by_epoch=False, max_iters=6, val_interval=2)
        cfg.param_scheduler = []
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    return cfg


@pytest.mark.parametrize(
    'by_iterations, workers',
    [
        pytest.param(False, 0, id='epochs-0'),
        pytest.param(True, 1, id='iterations-1'),
        pytest.param(False, 1, id='epochs-1', marks=pytest.mark.slow),
        pytest.param(True, 0, id='iterations-0', marks=pytest.mark.slow),
    ],
)
def test_a_resumed_training_is_the_uninterrupted_one(two_stages, workers, by_iterations, monkeypatch):
    whole = RUNNERS.build(training('whole', workers, by_iterations))
    whole.train()

    def cut(hook, runner, *args, **kwargs):
        if (runner.iter if by_iterations else 10 * runner.epoch) == (3 if by_iterations else 20):
            raise _PowerCut

    with monkeypatch.context() as patch, pytest.raises(_PowerCut):
        patch.setattr(EpochHook, 'before_train_iter', cut, raising=False)
        RUNNERS.build(training('cut', workers, by_iterations)).train()
    cfg = training('cut', workers, by_iterations)
    cfg.resume = True
    RUNNERS.build(cfg).train()
    last = 'iter_6.pth' if by_iterations else 'epoch_3.pth'
    a, b = (read_checkpoint(f'{folder}/{last}') for folder in ('whole', 'cut'))
    start = read_checkpoint(f'whole/{last[:-5]}1.pth')['state_dict']
    assert any(not torch.equal(a['state_dict'][k], start[k]) for k in start)
    for k, value in a['state_dict'].items():
        assert torch.equal(value, b['state_dict'][k]), k
    assert torch.equal(a['random_states'][0]['torch'], b['random_states'][0]['torch'])
