"""Nearest class mean, tau-normalisation and learnable weight scaling against naive float64 loops."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.models import LWSHead, NCMHead, TauNormClsHead
from mmlt.models.heads.baseline_heads import mean_features, tau_normalized

LABELS = [0, 2, 1, 0, 2, 2, 0]


def features(n=7, width=5, dtype=torch.float64, seed=1):
    x = torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.3
    return x.to(dtype)


def samples(labels=LABELS):
    return [DataSample().set_gt_label(y) for y in labels]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def naive_means(x, labels, num_classes=3):
    return [sum(row for row, y in zip(x, labels) if y == c) / labels.count(c) for c in range(num_classes)]


# NCMHead


def fitted():
    head = MODELS.build(dict(type='mmlt.NCMHead', num_classes=3, in_channels=5))
    head.fit(features(dtype=torch.float32), torch.tensor(LABELS))
    return head


def test_mean_features():
    x = features()
    expected = torch.stack(naive_means(x, LABELS))
    assert (mean_features(x, torch.tensor(LABELS), 3) - expected).abs().max() <= 1e-14


def test_mean_of_many_features_is_not_rounded():
    x = torch.full((200_000, 1), 1000.1)
    x[0] = 0
    mean = mean_features(x, torch.zeros(200_000, dtype=torch.long), 1)
    assert mean.item() == pytest.approx(x.double().mean().item(), rel=1e-7)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_features_that_are_not_finite_have_no_mean(bad):
    x = features()
    x[2, 0] = bad
    with pytest.raises(InputError, match=f'features of 1 of {len(x)} images are NaN or infinite'):
        mean_features(x, torch.tensor(LABELS), 3)


def test_nearest_class_mean():
    head, x = fitted(), features(4, seed=2)
    means = naive_means(features(), LABELS)
    expected = [[dot(f, m) / (dot(f, f) * dot(m, m)).sqrt() for m in means] for f in x]
    actual = head((x.float(),))
    assert (actual - torch.tensor(expected)).abs().max() <= 1e-6
    predictions = head.predict((x.float(),), [DataSample() for _ in x])
    assert [p.pred_label.item() for p in predictions] == torch.tensor(expected).argmax(1).tolist()
    assert all(p.pred_score.shape == (3,) for p in predictions)
    with torch.autocast('cpu', torch.bfloat16):
        half = head((x.bfloat16(),))
    assert half.dtype == torch.float32
    assert (half - head((x.bfloat16().float(),))).abs().max() <= 1e-6


def test_means_travel_with_a_checkpoint():
    head, other = fitted(), NCMHead(num_classes=3, in_channels=5)
    assert not other.fitted
    other.load_state_dict(head.state_dict())
    assert other.fitted and torch.equal(other.means, head.means)
    assert set(head.state_dict()) == {'means'} and not list(head.parameters())


def test_unfitted():
    head = NCMHead(num_classes=3, in_channels=5)
    for use in (lambda: head.predict((features(dtype=torch.float32),)), lambda: head((features(dtype=torch.float32),))):
        with pytest.raises(InputError, match='NCMHead has no class means yet: add .*FitHeadHook'):
            use()


@pytest.mark.parametrize(
    ('shape', 'labels', 'sentence'),
    [
        ((7, 4), LABELS, r'features of width 5, but they have the shape \(7, 4\)'),
        ((7, 5, 2, 2), LABELS, r'shape \(7, 5, 2, 2\): .*pool the features'),
        ((7, 5), [0, 1, 2, 3, 0, 1, 2], 'labels go from 0 to 3, but the head has 3 classes'),
        ((7, 5), [-1, 1, 2, 1, 0, 1, 2], 'labels go from -1 to 2'),
        ((7, 5), [0, 0, 2, 2, 0, 0, 2], 'Class 1 has no training images'),
    ],
)
def test_bad_features(shape, labels, sentence):
    head = NCMHead(num_classes=3, in_channels=5)
    with pytest.raises(InputError, match=sentence):
        head.fit(torch.ones(shape), torch.tensor(labels))
    assert not head.fitted


def test_predicted_features_of_another_width():
    with pytest.raises(InputError, match='width 5'):
        fitted()((torch.ones(2, 6),))


# TauNormClsHead


@pytest.mark.parametrize('tau', [0.0, 0.5, 1.0, 1.3])
def test_tau_normalized(tau):
    trained = LinearClsHead(3, 5)
    torch.nn.init.normal_(trained.fc.weight)
    torch.nn.init.normal_(trained.fc.bias)
    head = MODELS.build(dict(type='mmlt.TauNormClsHead', num_classes=3, in_channels=5, tau=tau))
    head.load_state_dict(trained.state_dict())  # the same names, all of them
    x, weight = features(), trained.fc.weight.detach().double()
    expected = [[dot(f, w) / dot(w, w).sqrt() ** tau for w in weight] for f in x]
    assert (head((x.float(),)) - torch.tensor(expected)).abs().max() <= 1e-5
    labels = [p.pred_label.item() for p in head.predict((x.float(),))]
    assert labels == torch.tensor(expected).argmax(1).tolist()


def test_tau_of_one_makes_all_vectors_equally_long():
    weight = features(3)
    assert torch.allclose(tau_normalized(weight, 1.0).norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert torch.equal(tau_normalized(weight, 0.0), weight)
    assert torch.isfinite(tau_normalized(torch.zeros(1, 4), 1.0)).all()


def test_tau_default_and_errors():
    assert TauNormClsHead(3, 5).tau == 0.5
    with pytest.raises(InputError, match='tau is -1; it must not be negative'):
        TauNormClsHead(3, 5, tau=-1)
    with pytest.raises(InputError, match='only tests a classifier .* train a LinearClsHead'):
        TauNormClsHead(3, 5).loss((features(dtype=torch.float32),), samples())


# LWSHead


def lws():
    trained = LinearClsHead(3, 5)
    torch.nn.init.normal_(trained.fc.weight)
    torch.nn.init.normal_(trained.fc.bias)
    head = MODELS.build(dict(type='mmlt.LWSHead', num_classes=3, in_channels=5))
    missing = head.load_state_dict(trained.state_dict(), strict=False)
    assert missing.missing_keys == ['log_scales'] and not missing.unexpected_keys
    return head, trained


def test_learnable_weight_scaling():
    head, trained = lws()
    x = features()
    assert head.scales.tolist() == [1, 1, 1]
    assert (head((x.float(),)) - trained((x.float(),))).abs().max() <= 1e-6
    scales = [0.5, 1.0, 3.0]
    head.log_scales.data = torch.tensor(scales).log()
    weight, bias = trained.fc.weight.detach().double(), trained.fc.bias.detach().double()
    expected = [[s * dot(f, w) + b for s, w, b in zip(scales, weight, bias)] for f in x]
    assert (head((x.float(),)) - torch.tensor(expected)).abs().max() <= 1e-5


def test_only_the_scales_are_trained_and_stay_positive():
    head, trained = lws()
    assert [n for n, p in head.named_parameters() if p.requires_grad] == ['log_scales']
    wrapper = build_optim_wrapper(head, dict(optimizer=dict(type='SGD', lr=5.0, weight_decay=0.01)))
    x = features(dtype=torch.float32)
    before = head.loss((x,), samples())['loss'].item()
    for _ in range(50):
        wrapper.update_params(head.loss((x,), samples())['loss'])
    assert head.loss((x,), samples())['loss'].item() < before
    assert head.scales.min() > 0 and (head.scales - 1).abs().max() > 0.05
    assert torch.equal(head.fc.weight, trained.fc.weight) and torch.equal(head.fc.bias, trained.fc.bias)
    assert isinstance(head, LWSHead)
