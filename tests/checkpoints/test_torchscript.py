"""Weights come out of TorchScript archives, as torch reads them; what the archives would run is not run."""

from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from mmlt import InputError
from mmlt.checkpoints import is_torchscript, read_checkpoint, read_weights
from mmlt.models import OpenCLIPVision


class Parts(nn.Module):
    """Shared, half, integer and plain tensors, lists, and two modules of one class."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)
        self.rows = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm1d(2)])
        self.weight = nn.Parameter(torch.randn(4, 3).half())
        self.register_buffer('part', torch.arange(12).reshape(3, 4).t()[1:3])
        self.register_buffer('empty', torch.zeros(0, 3))
        self.plain, self.sizes, self.name, self.flags = torch.ones(5), [1, 2], 'x', [1.5, 2.5]

    def forward(self, x):
        return self.rows[0](self.a(x)) + self.rows[1](self.b(x)) + float(self.sizes[0])


def assert_same(path):
    expected, found = torch.jit.load(path).state_dict(), read_weights(path)
    assert is_torchscript(path) and list(found) and set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
        assert not found[name].requires_grad


def test_scripted(tmp_path):
    path = str(tmp_path / 'a.pt')
    torch.jit.script(Parts().eval()).save(path)
    assert_same(path)


def test_traced(tmp_path):
    path = str(tmp_path / 'a.pt')
    torch.jit.trace(Parts().eval(), torch.ones(2, 3)).save(path)
    assert_same(path)


def test_a_traced_clip(tmp_path):
    path = str(tmp_path / 'clip.pt')
    clip = open_clip.create_model('mmlt-tiny-vit').eval()
    inputs = torch.zeros(1, 3, 32, 32), torch.zeros(1, clip.context_length, dtype=torch.long)
    torch.jit.trace(clip, inputs, check_trace=False).save(path)
    assert_same(path)


class WritesWhenLoaded(nn.Module):
    """TorchScript runs ``__setstate__`` when it loads an archive, and can write files."""

    def __init__(self, marker: str):
        super().__init__()
        self.weight, self.marker = nn.Parameter(torch.ones(3)), marker

    def forward(self, x):
        return x + self.weight

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.marker

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str]):
        self.weight, self.marker = state[0], state[1]
        self.training = True
        torch.save(state[0], self.marker)


def test_an_archive_that_writes_a_file_when_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.script(WritesWhenLoaded('ran')).save('evil.pt')
    before = Path('evil.pt').read_bytes()
    with pytest.raises(InputError, match=r"'evil.pt' of open_clip .*could not be read: it asks for __setstate__ of"):
        OpenCLIPVision('mmlt-tiny-vit', 'evil.pt').init_weights()
    with pytest.raises(InputError, match=r"'evil.pt' could not be read: it is a TorchScript archive, a program"):
        read_checkpoint('evil.pt')
    assert not Path('ran').exists() and Path('evil.pt').read_bytes() == before
    torch.jit.load('evil.pt')
    assert Path('ran').exists()  # it would have been written


def test_a_damaged_archive(tmp_path):
    path = tmp_path / 'a.pt'
    torch.jit.script(Parts().eval()).save(str(path))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match='it is damaged, perhaps cut off'):
        read_weights(path)
