"""Fetched weights that are not what the hub has are refused."""

import hashlib

import pytest

from mmlt import InputError
from mmlt.checkpoints import check_download
from mmlt.models import open_clip_towers


@pytest.fixture
def cached(tmp_path):
    """A file as the hub's client stores it: a link in a snapshot to what is named by its SHA-256."""
    data = bytes(range(256)) * 9000  # more than is read at once
    blob = tmp_path / 'models--a--b/blobs' / hashlib.sha256(data).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(data)
    link = tmp_path / 'models--a--b/snapshots/main/open_clip_model.safetensors'
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    return link, blob


def test_whole_downloads_and_other_files(cached, tmp_path):
    link, _ = cached
    assert check_download(str(link)) == str(link)
    for name in ('weights.pt', 'a' * 64):  # small files have another hash, and files of one's own any name
        (tmp_path / name).write_bytes(b'x')
        assert check_download(str(tmp_path / name)) == str(tmp_path / name)


@pytest.mark.parametrize('change', [lambda data: data[:-1], lambda data: b'\x01' + data[1:], lambda data: b''])
def test_damaged_downloads(cached, change, monkeypatch):
    link, blob = cached
    blob.write_bytes(change(blob.read_bytes()))
    with pytest.raises(InputError, match=f"damaged: its SHA-256 is .*Remove '{blob}' and start again"):
        check_download(str(link))
    monkeypatch.setattr(open_clip_towers.open_clip, 'download_pretrained', lambda cfg: str(link))
    with pytest.raises(InputError, match='is damaged'):
        open_clip_towers._resolve_file('ViT-B-32', 'openai')
