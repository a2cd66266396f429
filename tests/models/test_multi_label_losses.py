"""Distribution-balanced loss and class-balanced BCE: equal to loops in float64, fed by the dataset's counts."""

import copy
import math

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmpretrain.models import CrossEntropyLoss
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.engine import ClassInfoHook
from mmlt.models.losses.multi_label import (
    ClassBalancedBCELoss,
    DistributionBalancedLoss,
    distribution_balanced_loss,
    effective_number_weight,
    focal_bce,
    prior_bias,
    rebalanced_weight,
)
from mmlt.registry import MODELS
from mmlt.utils.class_info import ClassInfo

COUNTS = [90, 30, 6, 2]
NUM_IMAGES = 100


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def naive_db(z, y, counts, total, alpha, beta, mu, kappa, scale, gamma):
    """Wu et al. 2020, element by element: Eq. 3-6 for the weight, Eq. 9 for the rest, focal as published."""
    out = np.zeros_like(z)
    for k in range(len(z)):
        repeats = sum(1 / counts[j] for j in range(len(counts)) if y[k, j])
        for i in range(len(counts)):
            weight = alpha + (sigmoid(beta * ((1 / counts[i]) / repeats - mu)) if repeats else 1)
            nu = kappa * math.log(total / counts[i] - 1)  # -kappa * b, b = -log(1 / p - 1)
            shifted = z[k, i] - nu
            if y[k, i]:
                bce, miss = math.log1p(math.exp(-shifted)), sigmoid(-shifted)
            else:
                bce, miss = math.log1p(math.exp(scale * shifted)) / scale, sigmoid(scale * shifted)
            out[k, i] = weight * miss**gamma * bce
    return out


def draw(dtype=torch.float64, n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(n, len(COUNTS), generator=generator, dtype=torch.float64)
    y = (torch.rand(n, len(COUNTS), generator=generator) < 0.4).double()
    y[0] = 0  # an image without labels
    y[1] = 1
    return z.to(dtype), y.to(dtype)


SETTINGS = [
    dict(alpha=0.1, beta=10.0, mu=0.3, kappa=0.05, neg_scale=5.0, gamma=0.0),
    dict(alpha=0.1, beta=10.0, mu=0.2, kappa=0.025, neg_scale=2.0, gamma=2.0),
    dict(alpha=0.5, beta=3.0, mu=0.7, kappa=1.0, neg_scale=1.0, gamma=0.5),
]


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_distribution_balanced_loss_is_the_naive_one(settings, dtype, tolerance):
    z, y = draw(dtype)
    loss = distribution_balanced_loss(z, y, torch.tensor(COUNTS, dtype=dtype), NUM_IMAGES, **settings)
    expected = naive_db(z.double().numpy(), y.numpy(), COUNTS, NUM_IMAGES, *settings.values())
    assert np.abs(loss.double().numpy() / expected - 1).max() < tolerance * 10
    assert loss.dtype == dtype


@pytest.mark.parametrize('settings', SETTINGS)
def test_gradient_of_distribution_balanced_loss(settings):
    z, y = draw()
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: distribution_balanced_loss(x, y, counts, NUM_IMAGES, **settings), z.requires_grad_()
    )


def test_extreme_logits_are_finite():
    z = torch.tensor([[1e4, -1e4, 1e4, -1e4]], requires_grad=True)
    y = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    for gamma in (0.0, 0.5, 2.0):
        loss = focal_bce(z, y, gamma, 5.0)
        assert loss.detach()[0].tolist() == pytest.approx([0, 1e4, 1e4, 0])
        (grad,) = torch.autograd.grad(loss.sum(), z)
        assert grad[0].tolist() == pytest.approx([0, -1, 1, 0])


def test_weights_of_the_paper():
    counts = torch.tensor([100.0, 10.0])
    both, rare, none = rebalanced_weight(torch.tensor([[1.0, 1], [0, 1], [0, 0]]), counts, 0.1, 10.0, 0.3)
    assert both.tolist() == pytest.approx([0.1 + sigmoid(10 * (1 / 11 - 0.3)), 0.1 + sigmoid(10 * (10 / 11 - 0.3))])
    assert rare.tolist() == pytest.approx([0.1 + sigmoid(10 * (0.1 - 0.3)), 0.1 + sigmoid(7)])
    assert none.tolist() == pytest.approx([1.1, 1.1])


def test_bias_lowers_rare_classes_and_stays_finite():
    bias = prior_bias(torch.tensor([100.0, 50.0, 1.0]), 100, 0.05)
    assert bias.tolist() == pytest.approx([0.05 * math.log(100), 0, 0.05 * math.log(1 / 99)])


@pytest.mark.parametrize('beta', [0.0, 0.9, 0.9999])
def test_effective_numbers(beta):
    expected = np.array([(1 - beta) / (1 - beta**n) for n in COUNTS])
    weight = effective_number_weight(torch.tensor(COUNTS, dtype=torch.float64), beta)
    assert weight.numpy() == pytest.approx(expected / expected.mean(), rel=1e-9)


def test_plain_bce_is_a_special_case():
    z, y = draw(torch.float32)
    expected = CrossEntropyLoss(use_sigmoid=True)(z, y, avg_factor=len(z)) / len(COUNTS)
    assert ClassBalancedBCELoss(beta=0, class_counts=COUNTS)(z, y, avg_factor=len(z)) == pytest.approx(float(expected))


def test_class_balanced_bce_is_the_naive_one():
    z, y = draw()
    raw = [(1 - 0.99) / (1 - 0.99**n) for n in COUNTS]
    expected = 0.0
    for k in range(len(z)):
        for i, w in enumerate(raw):
            p = sigmoid(float(z[k, i])) if y[k, i] else sigmoid(-float(z[k, i]))
            expected -= w / np.mean(raw) * (1 - p) ** 2 * math.log(p) / z.numel()
    assert float(ClassBalancedBCELoss(gamma=2, class_counts=COUNTS)(z, y)) == pytest.approx(expected, rel=1e-5)


LOSSES = [
    dict(type='mmlt.DistributionBalancedLoss', num_images=NUM_IMAGES),
    dict(type='mmlt.ClassBalancedBCELoss'),
]


@pytest.mark.parametrize('cfg', LOSSES, ids=lambda c: c['type'])
def test_reductions(cfg):
    z, y = draw(torch.float32)
    loss = MODELS.build({**cfg, 'class_counts': COUNTS, 'loss_weight': 3.0})
    each = loss(z, y, reduction_override='none')
    assert each.shape == (12,)
    assert loss(z, y) == pytest.approx(float(each.mean()))
    assert loss(z, y, avg_factor=24) == pytest.approx(float(each.sum() / 24))
    assert loss(z, y, reduction_override='sum') == pytest.approx(float(each.sum()))
    weight = torch.arange(12.0)
    assert loss(z, y, weight) == pytest.approx(float((weight * each).mean()))
    assert each[3] == pytest.approx(3 * float(loss.elementwise(z, y)[3].mean()))


@pytest.mark.parametrize('cfg', LOSSES, ids=lambda c: c['type'])
def test_half_precision_is_computed_in_single(cfg):
    z, y = draw(torch.float32)
    loss = MODELS.build({**cfg, 'class_counts': COUNTS})
    z = z.bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = loss(z, y)
    assert half.dtype == torch.float32
    assert half == pytest.approx(float(loss(z.float(), y)), rel=1e-6)


@pytest.mark.parametrize('cfg', LOSSES, ids=lambda c: c['type'])
def test_counts_come_from_the_dataset(cfg):
    head = MODELS.build(ConfigDict(type='mmpretrain.MultiLabelLinearClsHead', num_classes=4, in_channels=3, loss=cfg))
    head.loss_module.set_class_info(ClassInfo(tuple('abcd'), COUNTS, None))
    feats = (torch.randn(2, 3),)
    samples = [DataSample().set_gt_label([0, 2]), DataSample().set_gt_label([])]
    value = head.loss(feats, samples)['loss']
    given = MODELS.build({**cfg, 'class_counts': COUNTS})
    target = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    assert value.item() == pytest.approx(given(head(feats), target).item())
    value.backward()
    assert head.fc.weight.grad.abs().sum() > 0
    given.set_class_info(ClassInfo(tuple('abcd'), [1, 1, 1, 1]))  # what was given stays
    assert given.class_counts.tolist() == COUNTS
    assert copy.deepcopy(head).loss_module.class_counts.tolist() == COUNTS
    assert not [k for k in head.state_dict() if 'count' in k]


def test_the_hook_tells_counts_and_number_of_images():
    from types import SimpleNamespace

    from mmengine.runner.base_loop import BaseLoop

    class Loop(BaseLoop):
        def run(self):
            """Nothing."""

    meta = dict(classes=tuple('abcd'), class_counts=COUNTS, num_train_images=NUM_IMAGES)
    loop = Loop.__new__(Loop)
    loop.dataloader = SimpleNamespace(dataset=SimpleNamespace(metainfo=meta))
    asking = torch.nn.Sequential(
        DistributionBalancedLoss(), DistributionBalancedLoss(num_images=7), ClassBalancedBCELoss()
    )
    runner = SimpleNamespace(model=asking, _train_loop=loop, _val_loop=None, _test_loop=None)
    ClassInfoHook().before_run(runner)
    assert [m.class_counts.tolist() for m in asking] == [COUNTS] * 3
    assert [m.num_images for m in asking[:2]] == [NUM_IMAGES, 7]
    z, y = draw(torch.float32)
    own = DistributionBalancedLoss(class_counts=COUNTS, num_images=NUM_IMAGES)
    assert asking[0](z, y) == own(z, y)


@pytest.mark.parametrize(
    ('make', 'sentence'),
    [
        (lambda: DistributionBalancedLoss(num_images=9), 'DistributionBalancedLoss does not know the class counts'),
        (lambda: ClassBalancedBCELoss(), 'ClassBalancedBCELoss does not know the class counts'),
        (lambda: ClassBalancedBCELoss(class_counts=[3, 2]), 'has 2 class counts, but the head gives 4 logits'),
        (lambda: DistributionBalancedLoss(class_counts=COUNTS), 'does not know how many training images'),
        (lambda: DistributionBalancedLoss(neg_scale=0), 'neg_scale is 0'),
        (lambda: ClassBalancedBCELoss(beta=1), 'beta is 1'),
        (lambda: ClassBalancedBCELoss(class_counts=[3, 0, 1, 1]), 'class 1 has no training images'),
        (lambda: DistributionBalancedLoss(class_counts=COUNTS, num_images=50), 'a class has 90 training images of 50'),
    ],
)
def test_errors(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()(*draw(torch.float32))


def test_repr():
    assert 'mu=0.2' in repr(DistributionBalancedLoss(mu=0.2)) and 'beta=0.5' in repr(ClassBalancedBCELoss(beta=0.5))


# Labels that are not to be scored, counts that stay what they are


def builder(cfg):
    return MODELS.build({**cfg, 'class_counts': COUNTS})


@pytest.mark.parametrize('mark', [-1.0, float('nan'), -100.0])
@pytest.mark.parametrize('cfg', LOSSES, ids=lambda c: c['type'])
def test_labels_that_are_not_scored_are_left_out(cfg, mark):
    z, y = draw()
    loss = builder(cfg)
    z.requires_grad_()
    marked = y.clone()
    marked[2, [0, 3]] = mark
    marked[5] = mark
    value = loss(z, marked)
    (gradient,) = torch.autograd.grad(value, z)
    assert (gradient[2, [0, 3]] == 0).all() and (gradient[5] == 0).all() and gradient[2, 1] != 0
    # By hand: the image's mean over its other classes, and the mean over the other images.
    plain = y.clone()
    plain[2, [0, 3]] = 0  # the weights of the distribution-balanced loss ask which labels an image has
    each = loss.elementwise(z, plain)
    expected = (each.mean(1).sum() - each.mean(1)[[2, 5]].sum() + each[2, [1, 2]].mean()) / (len(z) - 1)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss(z, marked, avg_factor=len(z)).item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss(z, marked, reduction_override='none')[5] == 0
    assert loss(z, torch.full_like(y, mark)) == 0


@pytest.mark.parametrize('cfg', LOSSES, ids=lambda c: c['type'])
def test_a_head_hands_on_labels_that_are_not_scored(cfg):
    head = MODELS.build(ConfigDict(type='mmpretrain.MultiLabelLinearClsHead', num_classes=4, in_channels=3, loss=cfg))
    head.loss_module.set_class_info(ClassInfo(tuple('abcd'), COUNTS, None))
    feats = (torch.randn(2, 3),)
    samples = [DataSample().set_gt_score([1.0, -1, 0, 0]), DataSample().set_gt_score([-1.0, -1, -1, -1])]
    target = torch.tensor([[1.0, -1, 0, 0]])
    expected = head.loss_module(head(feats)[:1], target)
    assert head.loss(feats, samples)['loss'].item() == pytest.approx(expected.item())


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
@pytest.mark.parametrize('cfg', LOSSES, ids=lambda c: c['type'])
def test_counts_survive_half_precision(cfg, dtype):
    counts = [115_846, 70_001, 2049, 1]  # the largest is above the largest half, the third between two halves
    z, y = draw(torch.float32)
    settings = {**cfg, 'class_counts': counts}
    if 'num_images' in cfg:
        settings['num_images'] = 200_000
    loss = MODELS.build(settings)
    expected = loss(z, y)
    loss.to(dtype)
    assert loss.class_counts.tolist() == counts
    assert loss(z, y) == expected


@pytest.mark.parametrize('cfg', LOSSES, ids=lambda c: c['type'])
def test_counts_of_another_number_of_classes_are_refused(cfg):
    with pytest.raises(InputError, match='has 2 class counts, but there are 3 classes'):
        MODELS.build(cfg).set_class_info(ClassInfo('abc', [5, 2]))
    with pytest.raises(InputError, match='has 4 class counts, but there are 3 classes'):
        builder(cfg).set_class_info(ClassInfo('abc', [5, 2, 1]))
