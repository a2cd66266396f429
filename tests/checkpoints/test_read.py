"""Checkpoints load safely: what MMEngine writes is read, anything else is refused."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import mmengine.runner.checkpoint
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

from mmlt import InputError
from mmlt.checkpoints import is_whole, latest_checkpoint, newest_whole, read_checkpoint, weights_only
from mmlt.checkpoints.read import check_is_file


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


@pytest.fixture(params=[read_checkpoint, CheckpointLoader.load_checkpoint], autouse=True)
def reader(request, monkeypatch):
    """Our reader, and MMEngine's."""
    monkeypatch.setitem(READER, 'now', request.param)


READER = {}


def load(path):
    return READER['now'](str(path))


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
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer|getattr|numpy'):
        torch.load(as_mmengine_writes_it, weights_only=True)
    assert load(as_mmengine_writes_it)['meta']['epoch'] == 2
    assert set(torch.serialization.get_safe_globals()) == before


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
    with pytest.raises(InputError, match='a.pth.* cannot be read'):
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
    with pytest.raises(InputError, match=r"a.pth' cannot be read: it asks for \w+.\w+, which could run code") as error:
        load(tmp_path / 'a.pth')
    assert 'weights_only' not in str(error.value) and error.value.__suppress_context__
    assert not marker.exists()
    if function is os.system:  # it would have been made
        torch.load(tmp_path / 'a.pth', weights_only=False)
        assert marker.exists()


class Nosy:
    """Asks for an object as a fork of MMEngine does: it allows getattr, and falls back to unsafe loading."""

    def __init__(self, path):
        self.path = path

    def __call__(self, filename, map_location=None):
        with torch.serialization.safe_globals([getattr, slice]):
            try:
                return torch.load(self.path, map_location=map_location, weights_only=True)
            except pickle.UnpicklingError:
                return torch.load(self.path, map_location=map_location, weights_only=False)


def test_whoever_reads_inside_reads_weights_only(tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    torch.save({'x': Calls(os.system, f'touch {marker}')}, tmp_path / 'a.pth')
    torch.save({'x': Calls(getattr, np.ndarray, 'tofile')}, tmp_path / 'b.pth')
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    before = torch.load
    for name in ('a.pth', 'b.pth'):
        with pytest.raises((pickle.UnpicklingError, RuntimeError)), weights_only():
            Nosy(tmp_path / name)('')
    assert not marker.exists()
    assert torch.load is before and os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


@pytest.mark.parametrize('prefix', sorted(CheckpointLoader._schemes))
def test_every_kind_of_address_is_guarded(prefix):
    assert CheckpointLoader._schemes[prefix].reads_weights_only


def test_addresses_of_the_network_are_read_by_the_same_rule(tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    torch.save({'x': Calls(os.system, f'touch {marker}')}, tmp_path / 'a.pth')
    address = (tmp_path / 'a.pth').as_uri()
    monkeypatch.setattr(mmengine.runner.checkpoint, 'load_url', lambda url, **k: torch.load(tmp_path / 'a.pth'))
    monkeypatch.setattr(mmengine.runner.checkpoint, 'get_torchvision_models', lambda: {'net': address})
    for name in ('https://example.org/a.pth', 'torchvision://net'):
        with pytest.raises(InputError, match='which could run code'):
            CheckpointLoader.load_checkpoint(name)
    assert not marker.exists()


def test_what_a_user_allowed_is_allowed(tmp_path):
    torch.save({'x': Nosy('p')}, tmp_path / 'a.pth')
    with pytest.raises(InputError, match='Nosy'):
        load(tmp_path / 'a.pth')
    with torch.serialization.safe_globals([Nosy]):
        assert load(tmp_path / 'a.pth')['x'].path == 'p'


@pytest.mark.parametrize('old', [False, True], ids=['zip', 'legacy'])
def test_damaged_files_are_named(tmp_path, old):
    path = tmp_path / 'epoch_1.pth'
    torch.save({'x': torch.arange(1000.0)}, path, _use_new_zipfile_serialization=not old)
    content = path.read_bytes()
    assert is_whole(str(path))
    for size in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="epoch_1.pth' cannot be read: it is (empty|damaged|no file of weights)"):
            load(path)
        assert not is_whole(str(path))
    if not old:
        place = content.index(np.float32(500).tobytes())  # in the tensor
        path.write_bytes(content[:place] + b'x' + content[place + 1 :])
        assert not is_whole(str(path))


@pytest.mark.parametrize('content', [b'hi', b'\x89PNG of some length'])
def test_another_file_is_named(tmp_path, content):
    (tmp_path / 'x.png').write_bytes(content)
    for read in (load, lambda path: read_checkpoint(str(path))):
        with pytest.raises(InputError, match=r"x.png' cannot be read: it is no file of weights: give a .pth, .pt or"):
            read(tmp_path / 'x.png')


def test_what_is_no_file_is_told_with_what_there_is(tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    with pytest.raises(InputError, match='is a folder: give a file, for example the last of a work directory'):
        check_is_file(str(run))
    for name in ('epoch_9.pth', 'epoch_10.pth', 'best_a_epoch_11.pth'):
        (run / name).touch()
    both = f'{run}/epoch_10.pth or {run}/epoch_9.pth'
    for path, work_dir, why in (
        (run, '', 'is a folder'),
        (run / 'no.pth', '', 'does not exist'),
        (tmp_path / 'no.pth', run, 'does not exist'),
    ):
        with pytest.raises(InputError, match=f"^It '{path}' {why}: give {both}.$"):
            check_is_file(str(path), 'It', str(work_dir))
    check_is_file(str(run / 'epoch_9.pth'))


def test_code_in_a_configs_text_is_not_run(tmp_path, caplog):
    marker = tmp_path / 'marker'
    code = f'import os\nos.system("touch {marker}")\nmodel = dict()\n'
    content = dict(
        meta=dict(cfg=code, config=code, epoch=1),
        message_hub=dict(runtime_info=dict(cfg=code)),
        state_dict=dict(),
    )
    torch.save(content, tmp_path / 'a.pth')
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert found['meta'] == dict(epoch=1) and found['message_hub']['runtime_info'] == {}
    assert not marker.exists()
    content['meta'] = dict(cfg='model = dict(a=1)')
    torch.save(content, tmp_path / 'a.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))['meta'] == content['meta']


# Which checkpoint a training goes on from


def save(path, **content):
    torch.save(content or {'x': torch.ones(3)}, path)
    return str(path)


def test_the_newest_whole_checkpoint(tmp_path):
    folder = str(tmp_path)
    assert latest_checkpoint(folder) is None and newest_whole(folder) == (None, [])
    names = [save(tmp_path / f'epoch_{i}.pth') for i in (1, 2, 9, 10)]
    save(tmp_path / 'best_shot_all_epoch_11.pth')
    assert latest_checkpoint(folder) == names[3] and newest_whole(folder) == (names[3], [])
    (tmp_path / 'last_checkpoint').write_text(names[2])  # 10 is of an earlier, longer training
    assert newest_whole(folder) == (names[2], [])
    Path(names[2]).write_bytes(b'PK')
    assert newest_whole(folder) == (names[1], [names[2]])
    (tmp_path / 'last_checkpoint').write_text(names[2][:-6])  # cut off
    assert latest_checkpoint(folder) == names[3]
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')  # moved
    assert latest_checkpoint(folder) == names[1]
    for name in names:
        Path(name).write_bytes(b'')
    assert newest_whole(folder) == (None, [names[1], names[0]])
