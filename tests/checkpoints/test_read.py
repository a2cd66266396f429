"""Checkpoints load safely: what MMEngine writes is read, anything else is refused and named."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mmlt import InputError
from mmlt.checkpoints import DamagedError, allowed, read_checkpoint, read_weights

TAKES_NAMES = allowed.TORCH_TAKES_NAMES


@pytest.fixture(params=[TAKES_NAMES, False] if TAKES_NAMES else [False], ids=lambda new: 'new' if new else 'old torch')
def load(request, monkeypatch):
    """The reader, as it is, and as it is with torch before 2.6."""
    monkeypatch.setattr(allowed, 'TORCH_TAKES_NAMES', request.param)
    if not request.param:  # torch 2.1 allowed little more than tensors
        now = torch._weights_only_unpickler._get_allowed_globals()
        first = {k: v for k, v in now.items() if k.startswith('torch.') or k == 'collections.OrderedDict'}
        del first['torch.device']
        monkeypatch.setattr(torch._weights_only_unpickler, '_get_allowed_globals', lambda: first)
    return lambda path: read_checkpoint(path, map_location='cpu')


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


def test_checkpoint_of_mmengine_loads(as_mmengine_writes_it, load):
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
    assert set(checkpoint['optimizer']['state'][0]) == {'step', 'exp_avg', 'exp_avg_sq'}


def test_loaded_hub_goes_on(as_mmengine_writes_it, load):
    hub = MessageHub('resumed')
    hub.load_state_dict(load(as_mmengine_writes_it)['message_hub'])
    hub.update_scalar('train/loss', 0.5)
    assert hub.get_scalar('train/loss').data[0].tolist() == [2.0, 1.75, 1.5, 1.25, 1.0, 0.5]
    assert hub.get_info('scalar_f8') == 0.1


@pytest.mark.parametrize('settings', [{}, {'_use_new_zipfile_serialization': False}], ids=['zip', 'legacy'])
def test_the_file_may_lie_in_many_ways(as_mmengine_writes_it, load, tmp_path, monkeypatch, settings):
    torch.save(load(as_mmengine_writes_it), tmp_path / 'a.pth', **settings)
    monkeypatch.setenv('HOME', str(tmp_path))
    for path in (tmp_path / 'a.pth', f'file://{tmp_path}/a.pth', '~/a.pth'):
        assert load(path)['meta']['epoch'] == 2
    weights = read_checkpoint(tmp_path / 'a.pth', mmap=True)['state_dict']
    assert all(torch.equal(weights[k], v) for k, v in load(as_mmengine_writes_it)['state_dict'].items())


@pytest.mark.skipif(not TAKES_NAMES, reason='the older torch has no list of allowed names that is used')
@pytest.mark.parametrize('ours_before', [False, True])
def test_torchs_list_of_allowed_names_is_as_before(as_mmengine_writes_it, tmp_path, ours_before):
    saved = torch.serialization.get_safe_globals()
    try:
        torch.serialization.clear_safe_globals()
        theirs = [HistoryBuffer, np.ndarray, *([(np.dtype, 'numpy.dtype')] if ours_before else [])]
        torch.serialization.add_safe_globals(theirs)
        torch.save({'x': Calls(os.system, 'true')}, tmp_path / 'evil.pth')
        assert read_checkpoint(as_mmengine_writes_it)['meta']['epoch'] == 2
        assert sorted(map(str, torch.serialization.get_safe_globals())) == sorted(map(str, theirs))
        with pytest.raises(InputError):
            read_checkpoint(tmp_path / 'evil.pth')
        assert sorted(map(str, torch.serialization.get_safe_globals())) == sorted(map(str, theirs))
        with pytest.raises(pickle.UnpicklingError):  # so it is the reader's list that made it load
            torch.load(as_mmengine_writes_it, weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(saved)


def test_importing_mmlt_allows_torch_nothing():
    if TAKES_NAMES:
        now = str(torch.serialization.get_safe_globals())
        assert not any(name in now for name in ('HistoryBuffer', 'getattr', 'numpy', 'Namespace'))


def test_old_numpy_names_are_allowed(tmp_path, load):
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
def test_getattr_of_anything_else_is_refused(tmp_path, args, load):
    torch.save({'x': Calls(getattr, *args)}, tmp_path / 'a.pth')
    with pytest.raises(InputError, match=r'asks for builtins\.getattr, which'):
        load(tmp_path / 'a.pth')


@pytest.mark.parametrize('name', ['min', 'max', 'mean', 'current'])
def test_getattr_of_the_statistics_is_served(tmp_path, name, load):
    torch.save({'x': Calls(getattr, HistoryBuffer, name)}, tmp_path / 'a.pth')
    assert load(tmp_path / 'a.pth')['x'] is getattr(HistoryBuffer, name)


def test_a_class_is_not_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(allowed, 'TORCH_TAKES_NAMES', False)  # the newer torch has a check of its own
    content = b'\x80\x02cmmengine.logging.history_buffer\nHistoryBuffer\nN}U\x04meanK\x01s\x86b.'
    (tmp_path / 'a.pth').write_bytes(content)
    before = HistoryBuffer.mean
    with pytest.raises(InputError, match='could not be read'):
        read_checkpoint(tmp_path / 'a.pth')
    from mmlt.checkpoints.allowed import STRICT_PICKLE
    from mmlt.checkpoints.restricted_pickle import Forbidden

    with open(tmp_path / 'a.pth', 'rb') as f, pytest.raises(Forbidden, match='a change of HistoryBuffer'):
        STRICT_PICKLE.load(f)
    assert HistoryBuffer.mean is before


@pytest.mark.filterwarnings('error:Detected pickle protocol')
@pytest.mark.parametrize('function', [os.system, eval, exec, __import__], ids=lambda f: f.__name__)
@pytest.mark.parametrize('form', ['zip', 'zip 4', 'legacy', 'pickle 0', 'pickle 2', 'pickle 4', 'safetensors'])
def test_calls_are_refused_and_not_made(tmp_path, function, form, load):
    marker = tmp_path / 'marker'
    code = f'touch {marker}' if function is os.system else f'open({str(marker)!r}, "w")'
    content = {'state_dict': {'a': torch.ones(2) if form in ('zip', 'legacy') else 1}, 'x': Calls(function, code)}
    path = tmp_path / f'a.{"safetensors" if form == "safetensors" else "pth"}'
    if 'zip' in form or form == 'legacy':
        more = {'_use_new_zipfile_serialization': False} if form == 'legacy' else {}
        torch.save(content, path, pickle_protocol=4 if '4' in form else 2, **more)
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(form[-1]) if 'pickle' in form else 2))
    before = path.read_bytes()
    name = {'system': r'posix\.system'}.get(function.__name__, rf'builtins\.{function.__name__}')
    with pytest.raises(InputError, match=rf"The checkpoint '{path}' could not be read: it asks for {name}, which") as e:
        load(path)
    said = str(e.value)
    assert e.value.__cause__ is None and e.value.__suppress_context__  # no traceback shows torch's advice
    assert 'weights_only' not in said and 'nothing of it was loaded' in said and 'state_dict=model.state_dict()' in said
    assert not isinstance(e.value, DamagedError)
    assert not marker.exists() and path.read_bytes() == before
    if form == 'zip' and function is os.system:  # it would have been made
        torch.load(path, weights_only=False)
        assert marker.exists()


@pytest.mark.parametrize('form', ['zip', 'legacy', 'safetensors'])
def test_damaged_files(tmp_path, form, load, as_mmengine_writes_it):
    path = tmp_path / f'a.{"safetensors" if form == "safetensors" else "pth"}'
    if form == 'safetensors':
        from safetensors.torch import save_file

        save_file({'a': torch.ones(300)}, str(path))
    else:
        torch.save(load(as_mmengine_writes_it), path, _use_new_zipfile_serialization=form == 'zip')
    whole = path.read_bytes()
    for size in (0, 1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedError, match='it is (empty|damaged|no file)') as e:
            load(path)
        assert 'weights_only' not in str(e.value)


def test_missing_files(tmp_path, load):
    with pytest.raises(InputError, match="The checkpoint '/nowhere/a.pth' does not exist"):
        load('/nowhere/a.pth')


def test_the_config_of_an_old_checkpoint_is_not_run(tmp_path, load):
    for text, kept in (('gpu_ids = [0]', True), (f'import os\nos.system("touch {tmp_path}/marker")', False)):
        torch.save(dict(meta=dict(config=text, iter=3), state_dict={}), tmp_path / 'a.pth')
        assert ('config' in load(tmp_path / 'a.pth')['meta']) is kept
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('form', ['zip', 'legacy', 'torchscript'])
def test_any_damage_is_told_by_a_sentence(tmp_path, form, as_mmengine_writes_it):
    path = tmp_path / 'a.pth'
    if form == 'torchscript':
        torch.jit.script(torch.nn.Linear(3, 2)).save(str(path))
    else:
        torch.save(read_checkpoint(as_mmengine_writes_it), path, _use_new_zipfile_serialization=form == 'zip')
    whole, rng, told = path.read_bytes(), np.random.default_rng(0), 0
    for i in range(150):
        content = bytearray(whole)
        if i % 2:
            content = content[: rng.integers(len(whole))]
        else:
            for place in rng.integers(len(whole), size=3):
                content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            read_weights(path)
        except InputError as e:
            told += 1
            assert '\n' not in str(e) and 'weights_only' not in str(e)
            assert i % 2 == 0 or isinstance(e, DamagedError)  # what was only cut off asks for nothing else
    assert told >= 75
