"""Configs in checkpoints are data."""

import pytest
from mmengine.config import Config

from mmlt import InputError
from mmlt.checkpoints import read_config_text


@pytest.mark.parametrize('file', ['vlltr/vlltr_rn50_imagenet-lt.py', 'lift/lift_tiny-vit_mnist-lt.py'])
def test_texts_of_configs_are_read_as_mmengine_reads_them(file, repo):
    text = Config.fromfile(repo / 'configs' / file).pretty_text
    assert read_config_text(text)._cfg_dict == Config.fromstring(text, '.py')._cfg_dict


def test_keys_that_are_no_names():
    text = Config(dict(a=dict(b={'sweet pepper': ['fox'], 'x-y': {'sea': 1}}), c={'4-': 'd'})).pretty_text
    assert 'dict({' in ''.join(text.split())
    found = read_config_text(text)
    assert found.a.b == {'sweet pepper': ['fox'], 'x-y': {'sea': 1}} and found.c == {'4-': 'd'}


def test_values_of_every_kind():
    text = "a = [1, -2.5e-3, +3, None, True]\nb = {'x-y': ('c', b'd'), 4: {5}}\nc = dict(inf=-inf)\nd = 'e' 'f'\n"
    found = read_config_text(text)
    assert found.a == [1, -0.0025, 3, None, True] and found.b == {'x-y': ('c', b'd'), 4: {5}}
    assert found.c.inf == float('-inf') and found.d == 'ef'


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        "a = __import__('os').system('true')",
        'a = [x for x in range(3)]',
        'a = (lambda: 1)()',
        'a = dict(**{})',
        'a = dict([1])',
        'a = dict({}, b=1)',
        'a = dict({}, {})',
        'a = dict({1: open})',
        "a = f'{1}'",
        'a = b',
        'a = 1 + 1',
        'a.b = 1',
        'a = b = 1',
        'a += 1',
        'def f(): pass',
        "a = open('x')",
        "a = -'x'",
        'print(1)',
    ],
)
def test_what_is_more_than_values_is_refused_by_its_line(text):
    with pytest.raises(InputError, match="'x.pth' carries a config that is more than values, in line 2: "):
        read_config_text(f'z = 1\n{text}\n', "'x.pth'")


@pytest.mark.parametrize('text', ['a = (', '\0', 'a = ' + '[' * 5000 + ']' * 5000, 'a = {[]: 1}', 'a = {{}}'])
def test_what_is_no_python_is_refused(text):
    with pytest.raises(InputError, match='carries a config that'):
        read_config_text(text)
