"""Comparison of the configs that checkpoints were made with."""

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmlt.checkpoints.comparison import first_difference, plain


def test_plain():
    cfg = Config(dict(model=dict(type='A', size=(3, 4), ratio=0.5, parts=[dict(x=1), None]), flag=True))
    expected = {
        'model': {'type': 'A', 'size': [3, 4], 'ratio': 0.5, 'parts': [{'x': 1}, None]},
        'flag': True,
    }
    result = plain(cfg)
    assert result == expected
    assert type(result) is dict and type(result['model']) is dict and type(result['model']['parts'][0]) is dict
    assert type(result['model']['size']) is list
    assert plain(cfg.model) == expected['model']
    assert type(plain(ConfigDict(a=1))) is dict


def test_plain_of_what_is_no_config_value():
    assert plain({1: np.float32}) == {'1': repr(np.float32)}
    assert plain(torch.nn.ReLU) == repr(torch.nn.ReLU)


def test_plain_copies():
    inner = [1, 2]
    result = plain({'a': inner})
    inner.append(3)
    assert result == {'a': [1, 2]}


OLD = {'type': 'A', 'neck': {'ratio': 0.2, 'sizes': [1, 2, {'k': 3}]}, 'head': None}


def changed(change) -> dict:
    new = plain(OLD)
    change(new)
    return new


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (lambda c: None, None),
        (lambda c: c['neck'].update(ratio=0.5), 'model.neck.ratio was 0.2 and is now 0.5'),
        (lambda c: c['neck']['sizes'][2].update(k=4), 'model.neck.sizes.2.k was 3 and is now 4'),
        (
            lambda c: c['neck']['sizes'].append(9),
            "model.neck.sizes was [1, 2, {'k': 3}] and is now [1, 2, {'k': 3}, 9]",
        ),
        (lambda c: c['neck'].pop('ratio'), 'model.neck.ratio was 0.2 and is now not set'),
        (lambda c: c['neck'].update(bias=True), 'model.neck.bias was not set and is now True'),
        (lambda c: c.update(head={'type': 'B'}), "model.head was None and is now {'type': 'B'}"),
        (lambda c: c.update(type='B', head=1), "model.type was 'A' and is now 'B'"),  # the first one
        (lambda c: c.update(neck=[1]), None),
    ],
)
def test_first_difference(change, expected):
    new = changed(change)
    found = first_difference(OLD, new, 'model')
    if new.get('neck') == [1]:
        expected = f'model.neck was {OLD["neck"]!r} and is now [1]'
    assert found == expected
    # It is found from the other side as well, and never for a copy.
    assert (first_difference(new, OLD) is None) == (expected is None)
    assert first_difference(new, plain(new)) is None


def test_first_difference_of_configs_survives_the_text_in_a_checkpoint():
    cfg = Config(dict(model=dict(type='A', mean=(0.48145466, 1e-07), names=['a "b"', "c'd"], nothing=None, on=False)))
    again = Config.fromstring(cfg.pretty_text, '.py')
    assert first_difference(plain(again), plain(cfg)) is None


def test_first_difference_without_a_path():
    assert first_difference({'a': 1}, {'a': 2}) == 'a was 1 and is now 2'
    assert first_difference({'a': {'b': [1]}}, {'a': {'b': [2]}}) == 'a.b.0 was 1 and is now 2'
