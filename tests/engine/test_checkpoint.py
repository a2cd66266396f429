"""Checkpoints load safely: what MMEngine writes is read, anything else is refused."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub

from mmlt.engine.checkpoint import allow_mmengine_checkpoints, first_difference, plain

REFUSALS = (pickle.UnpicklingError, RuntimeError)


@pytest.fixture
def as_mmengine_writes_it(tmp_path) -> str:
    """A file with everything that ``Runner.save_checkpoint`` puts beside the weights."""
    name = 'test of checkpoints'
    hub = MessageHub.get_instance(name)
    for i in range(5):
        hub.update_scalar('train/loss', 2.0 - i / 4)
        hub.update_scalar('train/count', i, count=3)
    hub.update_info_dict({'epoch': 2, 'iter': 30, 'cfg': 'model = dict()', 'seed': 7})
    for key, value in (('f8', 0.1), ('f4', 0.1), ('i8', 2**40), ('i4', -3), ('?', True)):
        hub.update_info(f'scalar_{key}', np.dtype(key).type(value))
    hub.update_info('best_score', np.float64(61.5))
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    meta = {
        'epoch': 2,
        'iter': 30,
        'cfg': 'model = dict()',
        'seed': 7,
        'dataset_meta': {'classes': ('apple', 'pear'), 'class_counts': [6, 3]},
    }
    checkpoint = {
        'meta': meta,
        'state_dict': OrderedDict(model.state_dict()),
        'message_hub': hub.state_dict(),
        'optimizer': optimizer.state_dict(),
        'param_schedulers': [{'last_step': 30, '_last_value': [0.1]}],
    }
    path = str(tmp_path / 'epoch_2.pth')
    torch.save(checkpoint, path)
    del MessageHub._instance_dict[name]
    return path


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def test_checkpoint_of_mmengine_loads(as_mmengine_writes_it):
    checkpoint = load(as_mmengine_writes_it)
    loss = checkpoint['message_hub']['log_scalars']['train/loss']
    assert type(loss) is HistoryBuffer
    assert loss.data[0].tolist() == [2.0, 1.75, 1.5, 1.25, 1.0]
    assert (loss.min(), loss.max(), loss.current(), loss.mean()) == (1.0, 2.0, 1.0, 1.5)
    assert loss.statistics('mean', window_size=2) == pytest.approx(1.125)
    count = checkpoint['message_hub']['log_scalars']['train/count']
    assert count.data[1].tolist() == [3] * 5
    info = checkpoint['message_hub']['runtime_info']
    assert info['best_score'] == 61.5 and info['iter'] == 30
    for key, value in (('f8', 0.1), ('f4', np.float32(0.1)), ('i8', 2**40), ('i4', -3), ('?', True)):
        assert info[f'scalar_{key}'] == value
    assert checkpoint['meta']['dataset_meta'] == {'classes': ('apple', 'pear'), 'class_counts': [6, 3]}
    assert set(checkpoint['state_dict']) == {'weight', 'bias'}


def test_loaded_hub_goes_on(as_mmengine_writes_it):
    hub = MessageHub('resumed')
    hub.load_state_dict(load(as_mmengine_writes_it)['message_hub'])
    hub.update_scalar('train/loss', 0.5)
    assert hub.get_scalar('train/loss').data[0].tolist() == [2.0, 1.75, 1.5, 1.25, 1.0, 0.5]
    assert hub.get_info('scalar_f8') == 0.1


def test_it_is_the_allowance_that_makes_it_load(as_mmengine_writes_it):
    saved = torch.serialization.get_safe_globals()
    try:
        torch.serialization.clear_safe_globals()
        with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer|getattr|numpy'):
            load(as_mmengine_writes_it)
        allow_mmengine_checkpoints()
        allow_mmengine_checkpoints()  # twice does no harm
        assert load(as_mmengine_writes_it)['meta']['epoch'] == 2
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(saved)


def test_old_numpy_names_are_allowed(tmp_path):
    # numpy 1 writes numpy.core, numpy 2 numpy._core; a checkpoint of either loads under either.
    path = tmp_path / 'a.pth'
    torch.save({'x': np.float64(0.25), 'y': np.arange(3)}, path, pickle_protocol=2)
    assert load(path)['y'].tolist() == [0, 1, 2]
    for new, old in ((b'numpy._core.multiarray', b'numpy.core.multiarray'),):
        other = tmp_path / 'b.pkl'
        torch.save({'x': np.float64(0.25)}, other, _use_new_zipfile_serialization=False)
        content = other.read_bytes()
        assert new in content or old in content
        other.write_bytes(content.replace(new, old))
        assert load(other)['x'] == 0.25
        other.write_bytes(content.replace(new, old).replace(old, new))
        assert load(other)['x'] == 0.25


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'args',
    [
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, 'update'),
        (HistoryBuffer, '__class__'),
        (HistoryBuffer, '__subclasses__'),
        (np.ndarray, 'tofile'),
        (np.ndarray, 'min'),
        (torch.Tensor, '__class__'),
        (OrderedDict, 'mean'),
        (HistoryBuffer(), 'min'),
        ('text', 'format'),
    ],
    ids=lambda a: f'{getattr(a[0], "__name__", type(a[0]).__name__)}.{a[1]}',
)
def test_getattr_of_anything_else_is_refused(tmp_path, args):
    torch.save({'x': Calls(getattr, *args)}, tmp_path / 'a.pth')
    with pytest.raises(REFUSALS, match='getattr|Unsupported'):
        load(tmp_path / 'a.pth')


@pytest.mark.parametrize('name', ['min', 'max', 'mean', 'current'])
def test_getattr_of_the_statistics_is_served(tmp_path, name):
    torch.save({'x': Calls(getattr, HistoryBuffer, name)}, tmp_path / 'a.pth')
    assert load(tmp_path / 'a.pth')['x'] is getattr(HistoryBuffer, name)


@pytest.mark.parametrize('function', [os.system, eval, exec, __import__], ids=lambda f: f.__name__)
def test_calls_are_refused_and_not_made(tmp_path, function):
    marker = tmp_path / 'marker'
    code = f'touch {marker}' if function is os.system else f'open({str(marker)!r}, "w")'
    torch.save({'x': Calls(function, code)}, tmp_path / 'a.pth')
    with pytest.raises(
        pickle.UnpicklingError, match='Unsupported global|not an allowed global|weights_only|Weights only'
    ):
        load(tmp_path / 'a.pth')
    assert not marker.exists()
    if function is os.system:  # it would have been made
        torch.load(tmp_path / 'a.pth', weights_only=False)
        assert marker.exists()


# Configs


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
