"""Rates and weight decay by parameter."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmlt.errors import InputError


class Model(nn.Module):
    """A matrix, a norm, an embedding vector, a scalar, and a frozen matrix."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.head = nn.Linear(2, 3)
        self.token = nn.Parameter(torch.zeros(2))
        self.scale = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def settings(**paramwise):
    model = Model()
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmlt.RatesOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
            paramwise_cfg=paramwise,
            clip_grad=dict(max_norm=1.0),
        ),
    )
    assert wrapper.clip_grad_kwargs == dict(max_norm=1.0)
    names = {id(p): n for n, p in model.named_parameters()}
    return {
        names[id(p)]: (g['lr'], g['weight_decay']) for g in wrapper.optimizer.param_groups for p in g['params']
    }, wrapper


def test_vectors_do_not_decay():
    """Norms, biases and vectors do not, matrices and scalars do; frozen ones are left out; two groups do."""
    found, wrapper = settings()
    free = ('tower.0.bias', 'tower.1.weight', 'tower.1.bias', 'head.bias', 'token')
    assert found == {
        **dict.fromkeys(('tower.0.weight', 'head.weight', 'scale'), (1e-3, 0.05)), **dict.fromkeys(free, (1e-3, 0.0))
    }  # fmt: skip
    assert len(wrapper.optimizer.param_groups) == 2


def test_a_rate_of_its_own_keeps_the_rule_of_decay():
    found, _ = settings(rates=[dict(names=['head'], lr=1e-6)])
    assert (found['head.weight'], found['head.bias']) == ((1e-6, 0.05), (1e-6, 0.0))
    assert found['tower.0.weight'] == (1e-3, 0.05)


def test_all_decay():
    found, _ = settings(decay_vectors=True)
    assert set(found.values()) == {(1e-3, 0.05)}


@pytest.mark.parametrize(
    ('wrong', 'word'),
    [
        (dict(custom_keys={}), 'custom_keys'),
        (dict(rates=[dict(names=['heads'], lr=1e-6)]), "'heads'"),
        (dict(rates=[dict(name='head', lr=1e-6)]), 'is not like'),
    ],
)
def test_bad_settings(wrong, word):
    with pytest.raises(InputError, match=word):
        settings(**wrong)
