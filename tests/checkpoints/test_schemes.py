"""Every kind of address that MMEngine reads checkpoints from ends in our reader."""

import functools
import http.server
import threading

import pytest
import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmlt import InputError
from mmlt.checkpoints import register_loaders, schemes


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, and its address in a network of this machine; torch.hub keeps files in another folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / 'served'
    folder.mkdir()
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_all_of_mmengines_loaders_are_replaced():
    assert len(CheckpointLoader._schemes) >= 11
    assert {loader.__module__ for loader in CheckpointLoader._schemes.values()} == {'mmlt.checkpoints.schemes'}
    assert '' in CheckpointLoader._schemes and list(CheckpointLoader._schemes)[-1] == ''


def test_loaders_of_others_stay_and_unknown_ones_of_mmengine_do_not(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))

    def load_from_theirs(filename, map_location=None):
        return 'theirs'

    def load_from_new(filename, map_location=None):
        return torch.load(filename)

    load_from_new.__module__ = 'mmengine.runner.checkpoint'
    CheckpointLoader.register_scheme('theirs://', load_from_theirs)
    CheckpointLoader.register_scheme('new://', load_from_new)
    register_loaders()
    assert CheckpointLoader.load_checkpoint('theirs://a') == 'theirs'
    with pytest.raises(InputError, match="'new://a' is of a kind of address that mmlt does not read"):
        CheckpointLoader.load_checkpoint('new://a')


def test_http(served, evil, tmp_path):
    folder, address = served
    torch.save(dict(state_dict=dict(a=torch.arange(3))), folder / 'good.pth')
    for _ in range(2):
        found = CheckpointLoader.load_checkpoint(f'{address}/good.pth?version=2', 'cpu')
        assert found['state_dict']['a'].tolist() == [0, 1, 2]
        (folder / 'good.pth').unlink(missing_ok=True)  # the second time it is here already
    evil(folder / 'evil.pth')
    with pytest.raises(InputError, match=r"hub/checkpoints/evil.pth' could not be read: it asks for posix\.system"):
        CheckpointLoader.load_checkpoint(f'{address}/evil.pth')
    with pytest.raises(InputError, match=rf"'{address}/none.pth' could not be fetched .*give its path"):
        CheckpointLoader.load_checkpoint(f'{address}/none.pth')


@pytest.mark.parametrize(
    ('scheme', 'list_of'),
    [
        ('torchvision', 'get_torchvision_models'),
        ('modelzoo', 'get_torchvision_models'),
        ('openmmlab', 'get_external_models'),
        ('open-mmlab', 'get_external_models'),
        ('mmcls', 'get_mmcls_models'),
    ],
)
def test_names(served, evil, monkeypatch, scheme, list_of):
    folder, address = served
    evil(folder / 'evil.pth')
    torch.save(dict(state_dict={'backbone.a': torch.ones(1)}), folder / 'good.pth')
    addresses = {name: f'{address}/{name}.pth' for name in ('good', 'evil')}
    monkeypatch.setattr(mmengine_checkpoint, list_of, lambda: addresses)
    monkeypatch.setattr(mmengine_checkpoint, 'get_deprecated_model_names', lambda: dict(old='good'))
    names = ('good', 'old') if 'mmlab' in scheme else ('good',)
    for name in names:
        state = CheckpointLoader.load_checkpoint(f'{scheme}://{name}')['state_dict']
        assert list(state) == ['a' if scheme == 'mmcls' else 'backbone.a']
    with pytest.raises(InputError, match=r'asks for posix\.system'):
        CheckpointLoader.load_checkpoint(f'{scheme}://evil')
    with pytest.raises(InputError, match=f"no checkpoint '{scheme}://none'"):
        CheckpointLoader.load_checkpoint(f'{scheme}://none')


@pytest.mark.parametrize('prefix', ['s3://', 'petrel://', 'cluster:s3://'])
def test_object_stores(tmp_path, evil, monkeypatch, prefix):
    class Store:
        def get(self, name):
            return (tmp_path / name.rpartition('/')[2]).read_bytes()

    monkeypatch.setattr(schemes, 'get_file_backend', lambda name, backend_args: Store())
    torch.save(dict(a=torch.ones(1)), tmp_path / 'good.pth')
    assert CheckpointLoader.load_checkpoint(f'{prefix}x/good.pth')['a'].tolist() == [1]
    evil(tmp_path / 'evil.pth')
    with pytest.raises(InputError, match=rf"'{prefix}x/evil.pth' could not be read: it asks for posix\.system"):
        CheckpointLoader.load_checkpoint(f'{prefix}x/evil.pth')
