"""LIFT's and LIFT+'s configs have the settings of the published code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmlt import InputError
from mmlt.datasets import GrowingRandomResizedCrop
from mmlt.evaluation.functional import get_protocol, shot_groups
from mmlt.models import AdaptFormer
from mmlt.utils.long_tail import exponential_profile

CONFIGS = Path(__file__).parents[2] / 'configs' / 'lift'
DATA = ('imagenet-lt', 'places-lt', 'inat18', 'cifar100-lt', 'cifar100-lt_ir50', 'cifar100-lt_ir10')
CLASSES = {'imagenet-lt': 1000, 'places-lt': 365, 'inat18': 8142, 'cifar100-lt': 100}
BOTTLENECKS = {'imagenet-lt': 32, 'places-lt': 8, 'inat18': 256, 'cifar100-lt': 4}


def resolved(method, data):
    return Config.fromfile(CONFIGS / f'{method}_vit-b16_{data}.py')


def interpolations(pipeline):
    """Of all resizing transforms."""
    return {t.get('interpolation') for t in pipeline if t.type.endswith(('ResizedCrop', 'ResizeEdge'))}


@pytest.mark.parametrize('data', DATA)
@pytest.mark.parametrize('method', ['lift', 'lift-plus'])
def test_settings(method, data):
    cfg, plus = resolved(method, data), method == 'lift-plus'
    lr, epochs = (0.02, 5) if plus else (0.01, 10)
    if data == 'inat18':
        epochs = 15 if plus else 20
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=lr, momentum=0.9, weight_decay=5e-4)
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (epochs, 128)
    (schedule,) = cfg.param_scheduler
    assert schedule == dict(type='mmlt.EpochCosineLR', eta_min=0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = PARAM_SCHEDULERS.build(dict(end=epochs, **schedule), default_args=dict(optimizer=optimizer))
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([lr * (1 + np.cos(np.pi * e / epochs)) / 2 for e in range(epochs)], rel=1e-12)

    train, test = cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline
    kind = {'bicubic'} if plus else {'bilinear'}
    assert interpolations(train) == interpolations(test) == interpolations(cfg.tta_pipeline) == kind
    assert cfg.val_dataloader.dataset.pipeline == test
    flips = [t for t in train if t.type == 'mmlt.RandomFlip']
    crop = next(t for t in train if t.type.endswith('ResizedCrop'))
    if plus:
        assert not flips and (crop.type, crop.square, crop.start) == ('mmlt.GrowingRandomResizedCrop', True, 0.08)
    else:
        assert len(flips) == 1 and (crop.type, crop.crop_ratio_range) == ('mmlt.RandomResizedCrop', (0.08, 1.0))
    classes = CLASSES[data.split('_')[0]]
    assert cfg.model.head.num_classes == cfg.model.backbone.adapter.num_classes == classes
    assert cfg.model.backbone.adapter.init == 'normal'
    assert AdaptFormer(768, 12, num_classes=classes).down.out_features == BOTTLENECKS[data.split('_')[0]]


@pytest.mark.parametrize(
    ('ratio', 'images', 'shots'), [(100, 10847, [35, 35, 30]), (50, 12608, [41, 41, 18]), (10, 19573, [69, 31, 0])]
)
def test_shots_of_cifar_follow_from_its_own_counts(ratio, images, shots):
    """Loop over the classes of the published profile, 500 (1 / ratio) ** (c / 99) images each."""
    counts = [int(500 * (1 / ratio) ** (c / 99)) for c in range(100)]
    assert exponential_profile(500, ratio, 100) == counts and sum(counts) == images
    many, few = sum(n > 100 for n in counts), sum(n < 20 for n in counts)
    assert [many, 100 - many - few, few] == shots
    groups = shot_groups(np.array(counts), get_protocol('standard'))
    assert np.bincount(groups, minlength=3).tolist() == shots
    if ratio != 100:
        for method in ('lift', 'lift-plus'):
            cfg = resolved(method, f'cifar100-lt_ir{ratio}')
            loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
            assert {loader.dataset.imbalance_ratio for loader in loaders} == {ratio}


@pytest.mark.parametrize('init', ['normal', 'uniform'])
def test_deviation_of_the_down_projection(init):
    torch.manual_seed(0)
    weight = AdaptFormer(768, 12, bottleneck=256, init=init).down.weight
    assert weight.std().item() == pytest.approx((3 * 768) ** -0.5, rel=0.01)
    bounded = weight.abs().max().item() <= 768**-0.5 + 1e-6  # a uniform one has an end
    assert bounded == (init == 'uniform')
    with pytest.raises(InputError, match="'kaiming'"):
        AdaptFormer(768, 12, bottleneck=256, init='kaiming')


@pytest.mark.parametrize('shape', [(60, 90), (90, 60), (64, 64), (1, 40), (40, 2)])
def test_square_crops(shape):
    """Area uniform in shares of the shorter side squared, any place equally likely, never outside."""
    np.random.seed(0)
    transform = GrowingRandomResizedCrop(32, square=True)
    transform.crop_ratio_range = (0.3, 1.0)
    picture = np.zeros((*shape, 3), np.uint8)
    found = np.array([transform.rand_crop_params(picture) for _ in range(4000)])
    top, left, height, width = found.T
    assert (height == width).all() and (height >= 1).all()
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= shape[0]).all() and (left + width <= shape[1]).all()
    shorter = min(shape)
    if shorter < 60:
        return
    areas = (height / shorter) ** 2
    assert areas.min() >= 0.3 - 2 / shorter and areas.mean() == pytest.approx(0.65, abs=0.02)
    assert areas.std() == pytest.approx(0.7 / 12**0.5, rel=0.05)
    for start, size in ((top, shape[0]), (left, shape[1])):
        room = size - height
        places = (start[room > 4] + 0.5) / (room[room > 4] + 1)
        assert places.mean() == pytest.approx(0.5, abs=0.02) and places.std() == pytest.approx(12**-0.5, rel=0.05)


def test_crops_of_lift_are_not_square():
    np.random.seed(0)
    found = np.array(
        [GrowingRandomResizedCrop(32).rand_crop_params(np.zeros((60, 90, 3), np.uint8)) for _ in range(50)]
    )
    assert (found[:, 2] != found[:, 3]).any()
