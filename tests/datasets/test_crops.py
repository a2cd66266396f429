"""Crops that grow with the epochs, told to running workers, and the five crops of a test."""

import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, Compose, RepeatDataset
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmpretrain.registry import TRANSFORMS
from torch.utils.data import DataLoader

from mmlt import InputError
from mmlt.datasets import FiveCropPart, GrowingRandomResizedCrop, growing_crop_minimum
from mmlt.engine import EpochHook


@pytest.mark.parametrize('start', [0.08, 0.5])
@pytest.mark.parametrize('epochs', [2, 5, 10])
def test_minimum_grows_as_the_formula(epochs, start):
    values = [growing_crop_minimum(e, epochs, start) for e in range(epochs)]
    for e, value in enumerate(values):
        assert value == pytest.approx(start + (1 - start) * (1 - math.sqrt(1 - (e / (epochs - 1)) ** 2)), abs=1e-12)
    assert values[0] == pytest.approx(start) and values[-1] == pytest.approx(1)
    assert values == sorted(values)


def test_minimum_of_lift_plus():
    assert [growing_crop_minimum(e, 5) for e in range(5)] == pytest.approx(
        [0.08, 0.10921, 0.20326, 0.39147, 1], abs=1e-5
    )


def test_minimum_of_one_epoch_and_beyond_the_last():
    assert growing_crop_minimum(0, 1) == 0.08
    assert growing_crop_minimum(7, 5) == 1


def area_shares(transform, n=200):
    """Share of the image in each crop, by its resized gradient."""
    shares = []
    for _ in range(n):
        _, _, height, width = transform.rand_crop_params(np.zeros((100, 100, 3), np.uint8))
        shares.append(height * width / 100**2)
    return np.array(shares)


def test_crops_keep_to_the_minimum_of_the_epoch():
    np.random.seed(0)
    transform = TRANSFORMS.build(dict(type='mmlt.GrowingRandomResizedCrop', scale=24))
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    for epoch in range(5):
        transform.set_epoch(epoch, 5)
        result = transform(dict(img=image))
        assert result['img'].shape == (24, 24, 3)
        minimum = growing_crop_minimum(epoch, 5)
        assert transform.crop_ratio_range == (pytest.approx(minimum), 1.0)
        shares = area_shares(transform)
        assert shares.min() >= minimum - 0.02
        assert epoch == 4 or shares.min() < minimum + 0.1
    assert 'start=0.08' in repr(transform)


def test_pickled_it_crops_alone():
    transform = GrowingRandomResizedCrop(8)
    twin = pickle.loads(pickle.dumps(transform))
    twin.set_epoch(3, 5)
    assert transform._epochs.tolist() == [0, 1] and twin._epochs.tolist() == [3, 5]


class Minima(BaseDataset):
    """Items are the smallest crop in use where they are made."""

    def load_data_list(self):
        return [dict(i=i) for i in range(4)]

    def prepare_data(self, idx):
        crop = next(t for t in self.pipeline.transforms if isinstance(t, GrowingRandomResizedCrop))
        crop(dict(img=np.zeros((20, 20, 3), np.uint8)))
        return crop.crop_ratio_range[0]


def runner_with(loader, loop=EpochBasedTrainLoop, epoch=0, max_epochs=5):
    return SimpleNamespace(train_dataloader=loader, train_loop=loop.__new__(loop), epoch=epoch, max_epochs=max_epochs)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('wrapped', [False, True])
def test_workers_that_live_on_hear_of_the_epoch(workers, wrapped):
    dataset = Minima(pipeline=[dict(type='mmlt.GrowingRandomResizedCrop', scale=8)])
    if wrapped:
        dataset = RepeatDataset(dataset, 1)
    loader = DataLoader(
        dataset,
        2,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context='fork' if workers else None,
    )
    for epoch in range(5):
        EpochHook().before_train_epoch(runner_with(loader, epoch=epoch))
        seen = torch.cat(list(loader)).tolist()
        assert seen == pytest.approx([growing_crop_minimum(epoch, 5)] * 4, abs=1e-6)


def test_hook_finds_transforms_inside_of_others():
    crops = [GrowingRandomResizedCrop(8) for _ in range(3)]
    both = SimpleNamespace(transforms=[crops[0], SimpleNamespace(transforms=crops[1])])
    dataset = SimpleNamespace(
        dataset=SimpleNamespace(datasets=[SimpleNamespace(pipeline=Compose([])), SimpleNamespace(pipeline=both)])
    )
    dataset.pipeline = SimpleNamespace(
        subroutines=[SimpleNamespace(transforms=[crops[2]])], transforms=dataset
    )  # a ring
    EpochHook().before_train_epoch(runner_with(SimpleNamespace(dataset=dataset), epoch=2))
    assert [c._epochs.tolist() for c in crops] == [[2, 5]] * 3


def test_data_without_length_is_refused_only_where_it_matters():
    crop = SimpleNamespace(pipeline=Compose([GrowingRandomResizedCrop(8)]))
    plain = SimpleNamespace(pipeline=Compose([]))
    with pytest.raises(InputError, match='GrowingRandomResizedCrop changes with the epochs, but the length.*sampler'):
        EpochHook().before_train(runner_with(SimpleNamespace(dataset=crop), IterBasedTrainLoop))
    EpochHook().before_train_epoch(runner_with(SimpleNamespace(dataset=plain), IterBasedTrainLoop))


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(start=0), r'start is 0; it is a share of the image, in \(0, 1\]'),
        (dict(start=1.5), r'start is 1.5'),
        (dict(crop_ratio_range=(0.5, 1)), 'give the first minimum as start=0.08'),
    ],
)
def test_bad_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        GrowingRandomResizedCrop(8, **options)


# FiveCropPart


@pytest.mark.parametrize(
    ('position', 'top', 'left'),
    [('top-left', 0, 0), ('top-right', 0, 6), ('bottom-left', 4, 0), ('bottom-right', 4, 6), ('centre', 2, 3)],
)
def test_five_crop_part(position, top, left):
    image = np.arange(12 * 14 * 3).reshape(12, 14, 3)
    transform = TRANSFORMS.build(dict(type='mmlt.FiveCropPart', crop_size=8, position=position))
    result = transform(dict(img=image))
    assert np.array_equal(result['img'], image[top : top + 8, left : left + 8])
    assert result['img_shape'] == (8, 8)
    assert position in repr(transform)


def test_five_crop_part_refuses_what_it_cannot_cut():
    with pytest.raises(InputError, match="position is 'left'; choose one of top-left, .*centre"):
        FiveCropPart(8, 'left')
    with pytest.raises(InputError, match='cannot cut 8 px out of an image of 6 x 12: resize it before'):
        FiveCropPart(8, 'centre')(dict(img=np.zeros((12, 6, 3), np.uint8)))
