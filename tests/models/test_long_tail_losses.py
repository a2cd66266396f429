"""Long-tail losses against naive float64 loops, and in the heads of MMPretrain."""

import math

import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.models import (
    BalancedSoftmaxLoss,
    ClassBalancedLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    SoftmaxFocalLoss,
)
from mmlt.models.losses.long_tail import (
    effective_number_weights,
    ldam_loss,
    ldam_margins,
    logit_adjusted_loss,
    softmax_focal_loss,
)
from mmlt.utils.class_info import ClassInfo

COUNTS = [400, 51, 18, 4]
LABELS = [0, 3, 1, 2, 3, 0]
WITH_COUNTS = ['LogitAdjustedLoss', 'BalancedSoftmaxLoss', 'LDAMLoss', 'ClassBalancedLoss']


def counts():
    return torch.tensor(COUNTS, dtype=torch.float64)


def logits(factor=2.0):
    z = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return (factor * z).requires_grad_()


def mixed():
    """Targets of mixup: 0.7 of one label and 0.3 of the next image's."""
    one_hot = torch.eye(4, dtype=torch.float64)[LABELS]
    return 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)


def log_softmax(row, c):
    return row[c] - sum(z.exp() for z in row).log()


# Naive losses of one row of logits and one label


def naive_adjusted(row, y, tau=1.0):
    return -log_softmax([z + tau * math.log(n / sum(COUNTS)) for z, n in zip(row, COUNTS)], y)


def naive_balanced(row, y):
    return -(COUNTS[y] * row[y].exp() / sum(n * z.exp() for n, z in zip(COUNTS, row))).log()


def naive_focal(row, y, gamma=2.0):
    p = log_softmax(row, y).exp()
    return -((1 - p) ** gamma) * p.log()


def naive_weights(beta=0.9999):
    weights = [(1 - beta) / (1 - beta**n) for n in COUNTS]
    return [w * len(COUNTS) / sum(weights) for w in weights]


def naive_ldam(row, y, max_margin=0.5, scale=30.0):
    margins = [n**-0.25 for n in COUNTS]
    margin = margins[y] * max_margin / max(margins)
    return -log_softmax([scale * (z - margin * (c == y)) for c, z in enumerate(row)], y)


def naive(loss, z, target, weights=(1, 1, 1, 1)):
    """Losses of all rows; a soft target weighs the losses of its classes."""
    rows = []
    for row, t in zip(z, target):
        soft = t if t.ndim else torch.eye(4, dtype=torch.float64)[t]
        rows.append(sum(soft[c] * weights[c] * loss(row, c) for c in range(4)))
    return torch.stack(rows)


def check(actual, expected, z, tolerance=1e-12):
    """Values and gradients agree, relative to the largest."""
    assert actual.shape == expected.shape == (6,)
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()
    a, b = (torch.autograd.grad(x.sum(), z, retain_graph=True)[0] for x in (actual, expected))
    assert b.abs().max() > 1e-3
    assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.fixture(params=['labels', 'mixup'])
def target(request):
    return torch.tensor(LABELS) if request.param == 'labels' else mixed()


@pytest.mark.parametrize('tau', [0.0, 1.0, 1.7])
def test_logit_adjustment(target, tau):
    z = logits()
    actual = logit_adjusted_loss(z, target, counts(), tau)
    check(actual, naive(lambda row, y: naive_adjusted(row, y, tau), z, target), z)


def test_balanced_softmax(target):
    z = logits()
    loss = BalancedSoftmaxLoss(class_counts=COUNTS, reduction='none')
    check(loss(z, target), naive(naive_balanced, z, target), z)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_softmax_focal(target, gamma, weighted):
    z, weights = logits(), naive_weights()
    class_weight = torch.tensor(weights, dtype=torch.float64) if weighted else None
    actual = softmax_focal_loss(z, target, gamma, class_weight)
    check(actual, naive(lambda row, y: naive_focal(row, y, gamma), z, target, weights if weighted else (1,) * 4), z)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0])
def test_focal_of_certain_predictions_has_a_finite_gradient(gamma):
    z = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    loss = softmax_focal_loss(z, torch.tensor([0, 0]), gamma)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 200.0]
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize('beta', [0.9, 0.999, 0.9999])
def test_effective_number_weights(beta):
    expected = torch.tensor(naive_weights(beta), dtype=torch.float64)
    assert (effective_number_weights(counts(), beta) - expected).abs().max() <= 1e-12 * 4
    single = effective_number_weights(counts().float(), beta)
    assert (single - expected).abs().max() <= 1e-6 * 4  # no cancellation in single precision
    assert single.sum().item() == pytest.approx(4, abs=1e-5)


def test_effective_number_weights_at_the_ends():
    assert effective_number_weights(counts(), 0.0).tolist() == [1, 1, 1, 1]
    inverse = 1 / counts()
    nearly = effective_number_weights(counts(), 1 - 1e-9)
    assert (nearly - 4 * inverse / inverse.sum()).abs().max() <= 1e-5


@pytest.mark.parametrize('weighted', [False, True])
def test_ldam(target, weighted):
    z, weights = logits(0.3), naive_weights() if weighted else (1,) * 4
    class_weight = torch.tensor(weights, dtype=torch.float64) if weighted else None
    actual = ldam_loss(z, target, ldam_margins(counts(), 0.5), 30.0, class_weight)
    check(actual, naive(naive_ldam, z, target, weights), z)


def test_ldam_margins():
    margins = ldam_margins(counts(), 0.4)
    assert margins.max() == margins[3] == 0.4
    assert (margins / margins[3] - torch.tensor([(4 / n) ** 0.25 for n in COUNTS])).abs().max() <= 1e-6


@pytest.mark.parametrize('gamma', [0.0, 1.5])
def test_class_balanced_loss(target, gamma):
    z = logits()
    loss = ClassBalancedLoss(beta=0.99, gamma=gamma, class_counts=COUNTS, reduction='none')
    expected = naive(lambda row, y: naive_focal(row, y, gamma), z, target, naive_weights(0.99))
    check(loss(z, target), expected, z)


def test_class_balanced_loss_is_cross_entropy_by_default():
    z, target = logits(), torch.tensor(LABELS)
    weights = torch.tensor(naive_weights(), dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(z, target, weight=weights, reduction='none')
    check(ClassBalancedLoss(class_counts=COUNTS, reduction='none')(z, target), expected, z)


def test_deferred_weights_begin_at_their_epoch(target):
    name = 'test of deferred weights'
    hub = MessageHub.get_instance(name)
    try:
        z = logits(0.3)
        loss = LDAMLoss(class_counts=COUNTS, reduction='none', drw_epoch=3)
        never = LDAMLoss(class_counts=COUNTS, reduction='none')
        plain, weighted = (naive(naive_ldam, z, target, w) for w in ((1,) * 4, naive_weights()))
        assert (plain - weighted).abs().max() > 0.1
        check(loss(z, target), plain, z)  # no epoch is known outside a training
        for epoch, expected in ((0, plain), (2, plain), (3, weighted), (7, weighted)):
            hub.update_info('epoch', epoch)
            check(loss(z, target), expected, z)
            check(never(z, target), plain, z)
    finally:
        del MessageHub._instance_dict[name]


# Modules


def build(name, **kwargs):
    return MODELS.build(dict(type=f'mmlt.{name}', **kwargs))


@pytest.mark.parametrize('name', [*WITH_COUNTS, 'SoftmaxFocalLoss'])
def test_reduction(name):
    loss = build(name, loss_weight=0.5)
    if name in WITH_COUNTS:
        loss.set_class_info(ClassInfo('abcd', COUNTS))
    z, target, weight = logits(0.3), torch.tensor(LABELS), torch.tensor([1.0, 0, 2, 1, 1, 3])
    each = loss(z, target, reduction_override='none')
    assert each.shape == (6,) and each.min() > 0
    assert loss(z, target).item() == pytest.approx(each.mean().item())
    assert loss(z, target, reduction_override='sum').item() == pytest.approx(each.sum().item())
    assert loss(z, target, avg_factor=4).item() == pytest.approx(each.sum().item() / 4)
    assert loss(z, target, weight).item() == pytest.approx((weight * each).mean().item())
    double = build(name, loss_weight=1.0, reduction='sum')
    if name in WITH_COUNTS:
        double.set_class_info(ClassInfo('abcd', COUNTS))
    assert double(z, target).item() == pytest.approx(2 * each.sum().item())


@pytest.mark.parametrize('name', [*WITH_COUNTS, 'SoftmaxFocalLoss'])
@pytest.mark.parametrize('soft', [False, True])
def test_in_a_head(name, soft):
    """The head passes its average factor; counts come from outside; mixup's targets are soft."""
    loss = dict(type=f'mmlt.{name}', loss_weight=2.0)
    head = MODELS.build(dict(type='LinearClsHead', num_classes=4, in_channels=8, loss=loss))
    for module in head.modules():
        if hasattr(module, 'set_class_info'):
            module.set_class_info(ClassInfo('abcd', COUNTS))
    x = torch.randn(6, 8)
    target = mixed().float() if soft else torch.tensor(LABELS)
    samples = [DataSample().set_gt_score(t) if soft else DataSample().set_gt_label(t) for t in target]
    value = head.loss((x,), samples)['loss']
    value.backward()
    assert head.fc.weight.grad.abs().max() > 0
    expected = 2 * head.loss_module.losses(head((x,)), target).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    if name != 'SoftmaxFocalLoss':
        assert value.item() != pytest.approx(2 * torch.nn.functional.cross_entropy(head((x,)), target).item(), rel=1e-3)


@pytest.mark.parametrize('name', [*WITH_COUNTS, 'SoftmaxFocalLoss'])
def test_half_precision_logits_are_computed_in_single(name):
    loss = build(name)
    if name in WITH_COUNTS:
        loss.set_class_info(ClassInfo('abcd', COUNTS))
    loss = loss.half()  # counts stay exact
    z, target = logits(0.3).detach().bfloat16(), torch.tensor(LABELS)
    expected = loss(z.double(), target)
    with torch.autocast('cpu', torch.bfloat16):
        for t in (target, torch.eye(4)[target].bfloat16()):
            value = loss(z, t)
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('name', WITH_COUNTS)
def test_counts_are_not_in_the_checkpoint(name):
    plain = MODELS.build(dict(type='LinearClsHead', num_classes=4, in_channels=8))
    loss = dict(type=f'mmlt.{name}', class_counts=COUNTS)
    head = MODELS.build(dict(type='LinearClsHead', num_classes=4, in_channels=8, loss=loss))
    assert set(head.state_dict()) == set(plain.state_dict())
    head.load_state_dict(plain.state_dict())


@pytest.mark.parametrize('name', WITH_COUNTS)
def test_given_counts_win_and_a_dataset_without_counts_changes_nothing(name):
    loss = build(name, class_counts=COUNTS)
    loss.set_class_info(ClassInfo('abcd', [1, 1, 1, 1]))
    assert loss.class_counts.tolist() == COUNTS
    loss = build(name)
    loss.set_class_info(ClassInfo('abcd', COUNTS))
    loss.set_class_info(ClassInfo('abcd', None))
    assert loss.class_counts.tolist() == COUNTS
    loss.set_class_info(ClassInfo('abcd', [9, 3, 2, 1]))
    assert loss.class_counts.tolist() == [9, 3, 2, 1]


# What cannot be used


@pytest.mark.parametrize('name', WITH_COUNTS)
def test_bad_counts(name):
    z, target = logits(), torch.tensor(LABELS)
    loss = build(name)
    loss.set_class_info(ClassInfo('abcd'))
    with pytest.raises(InputError, match=rf'{name} does not know the class counts: .*ClassInfoHook.*class_counts=\['):
        loss(z, target)
    with pytest.raises(InputError, match='has 3 class counts, but there are 4 classes'):
        loss.set_class_info(ClassInfo('abcd', [3, 2, 1]))
    with pytest.raises(InputError, match='has 4 class counts, but there are 5 classes'):
        build(name, class_counts=COUNTS).set_class_info(ClassInfo('abcde', [1] * 5))
    for give in (
        lambda: loss.set_class_info(ClassInfo('abcd', [3, 2, 0, 0])),
        lambda: build(name, class_counts=[3, 2, 0, 1]),
    ):
        with pytest.raises(InputError, match=f'{name}: class 2 has no training images; give every class'):
            give()
    with pytest.raises(InputError, match=r'has 3 class counts, but the head gives 4 logits: .*num_classes'):
        build(name, class_counts=[3, 2, 1])(z, target)


@pytest.mark.parametrize(
    ('loss', 'setting', 'sentence'),
    [
        (LogitAdjustedLoss, dict(tau=-1), "LogitAdjustedLoss's tau is -1; it must not be negative"),
        (LDAMLoss, dict(max_margin=-0.5), 'max_margin is -0.5; it must not be negative'),
        (LDAMLoss, dict(logit_scale=0), 'logit_scale is 0; it must be positive'),
        (LDAMLoss, dict(beta=1), r'beta is 1; it must lie in \[0, 1\)'),
        (ClassBalancedLoss, dict(beta=-0.1), r"ClassBalancedLoss's beta is -0.1; it must lie in \[0, 1\)"),
        (ClassBalancedLoss, dict(gamma=-1), 'gamma is -1; it must not be negative'),
        (SoftmaxFocalLoss, dict(gamma=-2), "SoftmaxFocalLoss's gamma is -2; it must not be negative"),
    ],
)
def test_bad_settings(loss, setting, sentence):
    with pytest.raises(InputError, match=sentence):
        loss(**setting)


# Labels that are not to be scored


@pytest.mark.parametrize('name', ['SoftmaxFocalLoss', *WITH_COUNTS])
@pytest.mark.parametrize('mark', [-1, -100, torch.iinfo(torch.long).min])
def test_images_that_are_not_scored_are_left_out(name, mark):
    settings = dict(class_counts=COUNTS) if name in WITH_COUNTS else {}
    loss = build(name, **settings)
    z, target = logits(), torch.tensor(LABELS)
    z.requires_grad_()
    marked, others = target.clone(), torch.arange(len(target)) != 1
    marked[1] = mark
    expected = loss(z[others], target[others])
    assert loss(z, marked).item() == pytest.approx(expected.item(), rel=1e-12)
    assert loss(z, marked, avg_factor=len(z)).item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss(z, marked), z)
    assert (gradient[1] == 0).all() and gradient.abs().sum() > 0
    assert loss(z, torch.full_like(target, mark)) == 0
    soft = torch.nn.functional.one_hot(target, len(COUNTS)).double()
    soft[1, 2] = float('nan')
    assert loss(z, soft).item() == pytest.approx(loss(z[others], soft[others]).item(), rel=1e-12)
    weight = torch.arange(1.0, len(z) + 1)
    expected = loss(z[others], target[others], weight[others])
    assert loss(z, marked, weight).item() == pytest.approx(expected.item(), rel=1e-12)
