"""BALLAD's Eq. 5 against a naive version."""

import pytest
import torch
from mmpretrain.registry import MODELS

from mmlt import InputError
from mmlt.models import BalancedLinearAdapter
from mmlt.models.necks import balanced_linear_adapter


def naive(f, weight, bias, ratio, relu):
    out = torch.zeros_like(f)
    for n in range(f.shape[0]):
        for i in range(f.shape[1]):
            value = sum(weight[i, j] * f[n, j] for j in range(f.shape[1]))
            if bias is not None:
                value = value + bias[i]
            if relu and value < 0:
                value = value * 0
            out[n, i] = ratio * value + (1 - ratio) * f[n, i]
    return out


@pytest.mark.parametrize('relu', [True, False])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('ratio', [0.2, 0.75])
def test_equation_5(relu, bias, ratio):
    adapter = BalancedLinearAdapter(5, residual_ratio=ratio, relu=relu, bias=bias).double()
    f = torch.randn(7, 5, dtype=torch.float64)
    weight = adapter.linear.weight
    assert (adapter.linear.bias is not None) == bias
    expected = naive(f, weight, adapter.linear.bias, ratio, relu)
    assert (adapter(f) - expected).abs().max() <= 1e-14
    assert (balanced_linear_adapter(f, weight, adapter.linear.bias, ratio, relu) - expected).abs().max() <= 1e-14
    # The test data tell the variants apart.
    assert (naive(f, weight, adapter.linear.bias, ratio, not relu) - expected).abs().max() > 1e-3


def test_gradients():
    f = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    scale = torch.randn(4, 3, dtype=torch.float64)
    expected = torch.autograd.grad((naive(f, weight, bias, 0.3, True) * scale).sum(), (f, weight, bias))
    actual = torch.autograd.grad((balanced_linear_adapter(f, weight, bias, 0.3) * scale).sum(), (f, weight, bias))
    for a, b in zip(actual, expected):
        assert (a - b).abs().max() <= 1e-14


def test_defaults_are_the_papers():
    adapter = BalancedLinearAdapter(4)
    assert adapter.residual_ratio == 0.2
    assert adapter.relu
    assert adapter.linear.bias is not None
    f = torch.randn(3, 4)
    assert torch.equal(adapter(f), balanced_linear_adapter(f, adapter.linear.weight, adapter.linear.bias))


def test_ratio_0_passes_and_1_replaces():
    f = torch.randn(6, 4)
    assert torch.equal(BalancedLinearAdapter(4, residual_ratio=0)(f), f)
    adapter = BalancedLinearAdapter(4, residual_ratio=1)
    replaced = adapter(f)
    assert torch.equal(replaced, adapter.linear(f).relu())
    assert (replaced - f).abs().max() > 0.1


def test_tuples_keep_their_form():
    adapter = BalancedLinearAdapter(4)
    stages = (torch.randn(2, 9), torch.randn(2, 4))
    out = adapter(stages)
    assert isinstance(out, tuple) and len(out) == 2
    assert out[0] is stages[0]
    assert torch.equal(out[1], adapter(stages[1]))
    assert isinstance(adapter(stages[1]), torch.Tensor)


def test_text_features_of_several_templates():
    adapter = BalancedLinearAdapter(4)
    f = torch.randn(3, 5, 4)
    assert torch.allclose(adapter(f)[1], adapter(f[1]), atol=1e-6)


def test_as_a_neck_by_its_name():
    neck = MODELS.build(
        dict(type='mmlt.BalancedLinearAdapter', in_channels=4, residual_ratio=0.5, relu=False, bias=False)
    )
    assert isinstance(neck, BalancedLinearAdapter)
    neck.init_weights()
    f = torch.randn(2, 4)
    assert torch.allclose(neck((f,))[-1], 0.5 * f @ neck.linear.weight.t() + 0.5 * f, atol=1e-6)


@pytest.mark.parametrize('ratio', [-0.1, 1.01, float('nan')])
def test_bad_ratio(ratio):
    with pytest.raises(InputError, match=rf'residual_ratio is {ratio}; it must lie in \[0, 1\]'):
        BalancedLinearAdapter(4, residual_ratio=ratio)


def test_features_of_another_width():
    with pytest.raises(InputError, match='built for features of width 4, but they are 6 wide: set in_channels=6'):
        BalancedLinearAdapter(4)((torch.zeros(2, 6),))
