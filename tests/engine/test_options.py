"""--cfg-options: what a value on the command line becomes."""

import argparse
import re

import pytest
from mmengine.config import Config

from mmlt import InputError
from mmlt.engine.configs import change_config
from mmlt.options import CfgOptions


def parse(*values):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    return parser.parse_args(['--cfg-options', *values]).cfg_options


@pytest.mark.parametrize(
    'text, value',
    [
        ("[dict(type='EMAHook')]", [dict(type='EMAHook')]),
        (
            "[dict(type='EMAHook', momentum=1e-3, begin_epoch=-1)]",
            [dict(type='EMAHook', momentum=1e-3, begin_epoch=-1)],
        ),
        (
            '[dict(type=EMAHook), dict(type=mmlt.X, path=a/b.pth)]',
            [dict(type='EMAHook'), dict(type='mmlt.X', path='a/b.pth')],
        ),
        (
            "dict(a=[1, (2, 3)], b=None, c=true, d=dict(), e='x, y')",
            dict(a=[1, (2, 3)], b=None, c=True, d={}, e='x, y'),
        ),
        ("{'type': 'EMAHook', 'a': {1: 2.5}}", {'type': 'EMAHook', 'a': {1: 2.5}}),
        ('[a, dict(b=1)]', ['a', dict(b=1)]),
        ('"[dict(type=\'X\')]"', [dict(type='X')]),
        ("['a photo of the {}', 'a {}, drawn']", ['a photo of the {}', 'a {}, drawn']),
        # as MMEngine reads them
        ('[1, 2.5, x, (a, None)]', [1, 2.5, 'x', ('a', None)]),
        ('1,2', [1, 2]),
        ('(3.0, f)', (3.0, 'f')),
        ("('a')", ('a',)),
        ('', ''),
        # texts
        ('a photo of the {}', 'a photo of the {}'),
        ('{}', '{}'),
        ('{stage:phase_a}/x.pth', '{stage:phase_a}/x.pth'),
        ('{stage:phase_a}', '{stage:phase_a}'),
        ('[{stage:a}/x, y]', ['{stage:a}/x', 'y']),
        ("it's", "it's"),
        ('a=b', 'a=b'),
    ],
)
def test_values(text, value):
    found = parse(f'key={text}')
    assert found == {'key': value} and type(found['key']) is type(value)


@pytest.mark.parametrize(
    'value, sentence',
    [
        ("k=dict(type='A'", 'the value of k cannot be read .*give it as in a config'),
        ('k=[dict(f(3))]', 'the value of k cannot be read .*is no value'),
        ('k=dict(**x)', 'the value of k cannot be read'),
        ('k=[1, 2', 'the value of k cannot be read .*Imbalanced'),
        ('k=a,b(c', 'the value of k cannot be read'),
        ('foo', "'foo' is not like key=value"),
        ('=3', "'=3' is not like key=value"),
    ],
)
def test_what_cannot_be_read(capsys, value, sentence):
    with pytest.raises(SystemExit):
        parse('a=1', value)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(sentence, last)


def test_components_reach_the_config():
    cfg = Config(dict(param_scheduler=[dict(type='A', eta=1)], model=dict(head=dict(type='H', a=1))))
    options = ["custom_hooks=[dict(type='EMAHook')]", "param_scheduler=[dict(type='B'), dict(type='C')]"]
    change_config(cfg, parse(*options, "model.head=dict(_delete_=True, type='I')"))
    assert cfg.custom_hooks == [dict(type='EMAHook')]
    assert cfg.param_scheduler == [dict(type='B'), dict(type='C')]
    assert cfg.model.head == dict(type='I')
    change_config(cfg, parse('param_scheduler.1.x=3'))
    assert cfg.param_scheduler[1] == dict(type='C', x=3)
    with pytest.raises(InputError, match='do not fit the config'):  # the whole list and a part of it
        change_config(cfg, parse(*options, 'param_scheduler.0.x=3'))
