"""Any number of pictures, batch size and processes: batches that fit, or one sentence before the training."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner as MMEngineRunner
from PIL import Image
from torch.utils.data import DataLoader

from mmlt import InputError
from mmlt.datasets import LongTailedDataset
from mmlt.engine import batches
from mmlt.engine.batches import check_evaluated, fit_batches


class Numbers:
    """N pictures of two classes."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, number):
        self.number = number

    def __len__(self):
        return self.number

    def __getitem__(self, i):
        return i

    def get_gt_labels(self):
        return np.arange(self.number) % 2


def fitted(monkeypatch, number, size, world, sampler='DefaultSampler', drop_last=True, **settings):
    """The batches of every process, which are computed one after the other."""
    config = dict(dataset=Numbers(number), batch_size=size, drop_last=drop_last, sampler=dict(type=sampler, **settings))

    def build(rank, config):
        import mmlt.datasets.samplers.class_samplers as ours

        for module in (ours, sys.modules['mmengine.dataset.sampler']):
            monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, world))
        return MMEngineRunner.build_dataloader(config, seed=0)

    shares = [torch.tensor([len(build(rank, config).sampler)]) for rank in range(world)]
    monkeypatch.setattr(batches, 'all_gather', lambda own: shares)
    monkeypatch.setattr(batches, 'get_world_size', lambda: world)
    return [[len(b) for b in fit_batches(lambda c, r=rank: build(r, c), config)] for rank in range(world)]


def test_prepared_config_of_90_pictures_in_two_processes(monkeypatch):
    assert fitted(monkeypatch, 90, 64, 2) == [[45], [45]]


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'mmlt.ClassBalancedSampler', 'mmlt.ClassAwareSampler'])
@pytest.mark.parametrize('drop_last', [True, False])
def test_every_process_has_equal_batches(monkeypatch, sampler, drop_last):
    for number, size, world in itertools.product((2, 3, 64, 65, 90), (1, 4, 64), (1, 2, 3, 8)):
        settings = dict(num_samples='images') if 'Aware' in sampler else {}
        found = fitted(monkeypatch, number, size, world, sampler, drop_last, **settings)
        share = math.ceil(number / world)
        whole, rest = divmod(share, size)
        expected = [size] * whole + [rest] * bool(rest and (not drop_last or not whole))
        assert found == [expected] * world, (number, size, world)


def test_draws_of_a_sampler_count_not_pictures(monkeypatch):
    assert fitted(monkeypatch, 90, 64, 2, 'mmlt.SquareRootSampler', num_samples=10) == [[5], [5]]
    assert fitted(monkeypatch, 90, 64, 2, 'mmlt.SquareRootSampler', num_samples=300) == [[64, 64]] * 2


def test_processes_with_other_batches_are_refused(monkeypatch):
    unequal = dict(sampler='DefaultSampler', round_up=False)
    assert fitted(monkeypatch, 91, 15, 2, **unequal) == [[15] * 3] * 2  # the 46th is dropped
    assert fitted(monkeypatch, 91, 64, 2, **unequal) == [[45]] * 2
    with pytest.raises(InputError, match='processes get 46 and 45 pictures .*round_up=True'):
        fitted(monkeypatch, 91, 23, 2, **unequal)
    with pytest.raises(InputError, match='get 46 and 45'):
        fitted(monkeypatch, 91, 64, 2, drop_last=False, **unequal)
    with pytest.raises(InputError, match='of 2 pictures, one of the 3 processes gets none: train on fewer'):
        fitted(monkeypatch, 2, 1, 3, **unequal)


def test_endless_sampler_fills_its_batches():
    config = dict(dataset=Numbers(3), batch_size=8, drop_last=True, sampler=dict(type='InfiniteSampler'))
    loader = fit_batches(lambda c: MMEngineRunner.build_dataloader(c, seed=0), config)
    assert len(next(iter(loader))) == 8


def test_what_cannot_be_rebuilt_is_refused():
    with pytest.raises(InputError, match='process gets 3 pictures, fewer than batch_size=4: make it at most 3'):
        fit_batches(lambda c: c, DataLoader(Numbers(3), batch_size=4, drop_last=True))
    sampler = torch.utils.data.BatchSampler(range(3), 4, drop_last=True)
    with pytest.raises(InputError, match='train_dataloader has no batch'):
        fit_batches(lambda c: c, DataLoader(Numbers(3), batch_sampler=sampler))


def test_evaluation_leaves_out_nothing():
    check_evaluated(DataLoader(Numbers(8), batch_size=4, drop_last=True), 'val_dataloader')
    check_evaluated(DataLoader(Numbers(9), batch_size=4), 'val_dataloader')
    with pytest.raises(InputError, match='val_dataloader.drop_last=True would leave out 1 of the 9 pictures'):
        check_evaluated(DataLoader(Numbers(9), batch_size=4, drop_last=True), 'val_dataloader')


def run(command, env):
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=env)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_prepared_data_train_in_two_processes(tmp_path, monkeypatch, repo, launcher_env):
    """BALLAD: phase A in epochs, phase B on cached features; a validation split of one picture."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, count in (('apple', 7), ('pear', 3), ('plum', 1)):
        Path('p', name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(f'p/{name}/{i}.png')
    prepare = [sys.executable, repo / 'tools/dataset_converters/prepare.py', 'p', '--out', 'd', '--epochs', '1']
    prepare += ['--model', 'mmlt-tiny-vit', '--pretrained', 'none', '--test-per-class', '1']
    status, said = run(prepare, launcher_env)
    assert status == 0, said
    lists = {split: Path('d', f'{split}.txt').read_text().splitlines() for split in ('train', 'test')}
    assert len(lists['train']) == 9
    Path('d/test.txt').write_text(f'{lists["test"][0]}\n')  # less than processes
    assert Config.fromfile('d/ballad_d.py').train_dataloader.batch_size == 9
    train = ['bash', repo / 'tools/dist_train.sh', 'd/ballad_d.py', '2', '--cfg-options']
    status, said = run(
        [*train, 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'], launcher_env
    )
    assert status == 0, said[-3000:]
    assert said.count('each of 2 processes gets 5 pictures an epoch, fewer than batch_size=9: the batch is 5') >= 1
    assert 'Stage 2/2' in said and 'AssertionError' not in said
    assert len(LongTailedDataset('test.txt', train_ann_file='train.txt', data_root='d', data_prefix='../p')) == 1
