"""Fetched weights that are not what the hub has are refused; a hub that does not answer is asked once."""

import hashlib

import open_clip
import pytest
from huggingface_hub.errors import HfHubHTTPError

from mmlt import InputError
from mmlt.checkpoints import check_download, check_hub, downloads, in_hub_cache
from mmlt.engine.requirements import is_cached
from mmlt.models import open_clip_towers, timm_weights


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
    monkeypatch.setattr(downloads, 'get_hf_file_metadata', lambda url: None)
    with pytest.raises(InputError, match='is damaged'):
        open_clip_towers._resolve_file('ViT-B-32', 'openai')


# A hub that does not answer


class NoHub:
    """Instead of a hub's client: keeps what is asked, and raises."""

    def __init__(self, error):
        self.error, self.asked = error, []

    def __call__(self, url):
        self.asked.append(url)
        raise self.error


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A cache of the hub with nothing in it."""
    cache = downloads.try_to_load_from_cache
    monkeypatch.setattr(downloads, 'try_to_load_from_cache', lambda *of: cache(*of, cache_dir=tmp_path))


def test_without_a_network_weights_are_asked_for_once(empty, monkeypatch):
    """The downloads, which try again and again, are not begun."""
    hub = NoHub(ConnectionError('[Errno 111] Connection refused'))
    monkeypatch.setattr(downloads, 'get_hf_file_metadata', hub)
    for owner, name in (
        (open_clip_towers.open_clip, 'download_pretrained'),
        (open_clip.factory, 'download_pretrained_from_hf'),
        (timm_weights, 'hf_hub_download'),
    ):
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: pytest.fail('a download was begun'))
    refused = r'could not be .* \(ConnectionError: \[Errno 111\] Connection refused\).*[Ww]ithout a network'
    with pytest.raises(InputError, match=refused):
        open_clip_towers._resolve_file('ViT-B-32', 'openai')
    with pytest.raises(InputError, match=refused):
        open_clip_towers._model_config('hf-hub:timm/vit')
    with pytest.raises(InputError, match=refused):
        timm_weights._downloaded('vit_small_patch14_dinov2', 'lvd142m')
    assert [url.partition('/timm/')[2] for url in hub.asked] == [
        'vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors',
        'vit/resolve/main/open_clip_config.json',
        'vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors',
    ]


def test_what_is_here_needs_no_hub(empty, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, 'get_hf_file_metadata', hub := NoHub(ConnectionError()))
    assert not in_hub_cache('a/b', ['x.safetensors', 'x.bin'])
    (tmp_path / 'models--a--b/snapshots/0/').mkdir(parents=True)
    (tmp_path / 'models--a--b/refs').mkdir()
    (tmp_path / 'models--a--b/refs/main').write_text('0')
    (tmp_path / 'models--a--b/snapshots/0/x.bin').touch()
    assert in_hub_cache('a/b', ['x.safetensors', 'x.bin'])
    check_hub('a/b', ['x.safetensors', 'x.bin'])
    assert not hub.asked
    with pytest.raises(ConnectionError):
        check_hub('a/b', ['y.bin'])


def test_a_hub_that_says_no_answers(empty, monkeypatch):
    """Of a file that is not there, open_clip tries the other names and says what is wrong."""
    refusal = HfHubHTTPError.__new__(HfHubHTTPError)
    monkeypatch.setattr(downloads, 'get_hf_file_metadata', hub := NoHub(refusal))
    check_hub('a/b', ['x.safetensors'])
    assert len(hub.asked) == 1


@pytest.mark.parametrize(
    'place, repository, names',
    [
        ('a/b/', 'a/b', ['open_clip_model.safetensors', 'open_clip_pytorch_model.bin']),
        ('a/b/x.bin', 'a/b', ['x.safetensors', 'x.bin']),
        ('a/b/x.safetensors', 'a/b', ['x.safetensors']),
        (None, '', ['open_clip_model.safetensors', 'open_clip_pytorch_model.bin']),
    ],
)
def test_places_on_the_hub_are_open_clips(place, repository, names, monkeypatch):
    assert open_clip_towers.hub_files(dict(hf_hub=place)) == (repository, names)
    asked = []

    def download(repo_id, filename, **_):
        asked.append((repo_id, filename))
        raise FileNotFoundError

    monkeypatch.setattr(open_clip.pretrained, 'hf_hub_download', download)
    if place:
        with pytest.raises(FileNotFoundError):
            open_clip.download_pretrained(dict(hf_hub=place))
        assert asked == [(repository, name) for name in names]


def test_cached_under_the_other_name(empty, tmp_path, monkeypatch):
    cfg = dict(hf_hub='a/b/x.bin')
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, 'ViT-B-32', dict(mine=cfg))
    assert not is_cached('ViT-B-32', 'mine')
    monkeypatch.setattr(
        downloads, 'try_to_load_from_cache', lambda _, name: str(tmp_path) if name == 'x.safetensors' else None
    )
    assert is_cached('ViT-B-32', 'mine')
