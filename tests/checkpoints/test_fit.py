import pytest
import torch
from torch import nn

from mmlt import InputError
from mmlt.checkpoints.weights import Fit, fit_state, load_state


def small():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def weights(**changes):
    return {name: value for name, value in {**small().state_dict(), **changes}.items() if value is not None}


def test_what_fits():
    state = weights(**{'0.bias': None, '1.weight': torch.ones(4), 'x': torch.ones(1), '1.running_var': None})
    assert fit_state(small(), state) == Fit(('0.bias',), ('x',), {'1.weight': ((4,), (3,))}, 2)
    assert fit_state(small(), {f'module.{k}': v for k, v in state.items()}) == fit_state(small(), state)
    assert fit_state(small().state_dict(), state) == Fit(
        ('0.bias', '1.running_var'), ('x',), {'1.weight': ((4,), (3,))}, 4
    )
    assert fit_state(small(), weights()) == Fit((), (), {}, 4)


PURPOSES = ('low rank', 'part', 'start', 'use', 'all')


@pytest.mark.parametrize(
    ('changes', 'first', 'sentence'),
    [
        (
            {'1.weight': torch.ones(4)},
            'start',
            r"'a' has 1.weight of shape \(4,\), but this config's model has \(3,\): it",
        ),
        ({'0.bias': None}, 'use', "'a' lacks 1 weights of this config's model, the first is '0.bias': give the config"),
        ({'x': torch.ones(1)}, 'all', "'a' has 1 weights more than this config's model, the first is 'x': give the"),
        (dict.fromkeys(small().state_dict()), 'part', "'a' holds no weight of this config's model .its first is 'noth"),
        ({'parametrizations.w.original': torch.ones(1)}, 'low rank', 'a checkpoint of MORE that is not merged'),
    ],
)
def test_each_purpose_asks_for_more(changes, first, sentence):
    found = fit_state(small(), weights(**changes))
    for i, purpose in enumerate(PURPOSES):
        if i < PURPOSES.index(first):
            found.require(purpose, 'a')
            continue
        with pytest.raises(InputError, match=sentence):
            found.require(purpose, 'a')


def test_names_and_remedy_are_the_callers():
    with pytest.raises(InputError, match="'a' lacks 1 weights of 'b', the first is '0.bias': merge others.$"):
        fit_state(small(), weights(**{'0.bias': None})).require('use', 'a', "'b'", 'merge others')


def test_loading():
    model, state = small(), weights(**{'0.bias': torch.full((3,), 5.0), 'x': torch.ones(1)})
    load_state(model, state, 'a', 'use')
    assert torch.equal(model[0].bias, state['0.bias'])
    with pytest.raises(InputError, match="has 1 weights more than b, the first is 'x'"):
        load_state(model, state, 'a', of='b')
    with pytest.raises(InputError, match="'a' does not fit this config's model .*running_mean"):
        load_state(model, weights(**{'1.running_mean': torch.ones(4)}), 'a')
