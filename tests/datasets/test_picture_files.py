"""Pictures that lie in a store are looked for there, not on the disk."""

import io
import zipfile

import numpy as np
import pytest
from mmengine.fileio import BaseStorageBackend, FileClient, register_backend
from PIL import Image

from mmlt import InputError
from mmlt.datasets import ImageTextDataset, LongTailedDataset, LongTailedMultiLabel, picture_files


class Keys(BaseStorageBackend):
    """As MMEngine's LmdbBackend: bytes of a key, or None, and no other question."""

    def __init__(self, path):
        self.path = path

    def get(self, filepath):
        with zipfile.ZipFile(self.path) as file:
            return file.read(filepath) if filepath in file.namelist() else None

    def get_text(self, filepath):
        raise NotImplementedError


class Zip(Keys):
    """A store that can be asked."""

    asked = 0

    def exists(self, filepath):
        Zip.asked += 1
        with zipfile.ZipFile(self.path) as file:
            return filepath in file.namelist()


class Addresses(Zip):
    """testzip://k/a.png"""

    def __init__(self):
        pass

    def get(self, filepath):
        return super().get(filepath.removeprefix('testzip://'))

    def exists(self, filepath):
        return super().exists(filepath.removeprefix('testzip://'))


@pytest.fixture
def store(tmp_path):
    register_backend('test-keys', Keys, force=True)
    register_backend('test-zip', Zip, force=True)
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(buffer, 'PNG')
    with zipfile.ZipFile(tmp_path / 'p.zip', 'w') as file:
        for name in ('k/a.png', 'k/b.png', 'k/c.png'):
            file.writestr(name, buffer.getvalue())
        file.writestr('k/broken.png', b'no picture')
    return tmp_path


def arguments(store, backend, lines, suffix='txt', **more):
    (store / f'list.{suffix}').write_text('\n'.join(lines))
    load = dict(type='LoadImageFromFile', backend_args=dict(backend=backend, path=str(store / 'p.zip')))
    pipeline = [load, dict(type='PackInputs')]
    return dict(ann_file=str(store / f'list.{suffix}'), data_prefix='k', pipeline=pipeline, **more)


LISTS = {
    LongTailedDataset: ('txt', ['a.png 0', 'b.png 1']),
    LongTailedMultiLabel: ('csv', ['image;x;y', 'a.png;1;0', 'b.png;0;1']),
    ImageTextDataset: ('tsv', ['image\tcaption', 'a.png\tone', 'b.png\ttwo']),
}


@pytest.mark.parametrize('backend', ['test-keys', 'test-zip'])
@pytest.mark.parametrize('dataset', LISTS, ids=lambda d: d.__name__)
def test_pictures_in_a_store(store, dataset, backend):
    suffix, lines = LISTS[dataset]
    data = dataset(**arguments(store, backend, lines, suffix))
    assert [data[i]['inputs'].shape for i in range(2)] == [(3, 6, 8)] * 2
    # The last is missing: one store says so, the other can only be tried with the first.
    lines = [*lines[:-1], lines[-1].replace('b.png', 'none.png')]
    if backend == 'test-zip':
        with pytest.raises(InputError, match=r"none\.png' does not exist in the store of Zip|of Zip.*none\.png"):
            dataset(**arguments(store, backend, lines, suffix))
    else:
        data = dataset(**arguments(store, backend, lines, suffix))
        with pytest.raises(InputError, match=r"'k/none\.png' cannot be read \(there is nothing of this name\)"):
            data[1]
    lines = [line.replace('a.png', 'none.png') for line in LISTS[dataset][1]]
    with pytest.raises(InputError, match=r'k/none\.png'):
        dataset(**arguments(store, backend, lines, suffix))


def test_backslashes_in_a_store(store):
    args = arguments(store, 'test-zip', ['k\\a.png 0', 'k\\b.png 1'])
    data = LongTailedDataset(**{**args, 'data_prefix': ''})
    assert data.get_data_info(1)['img_path'] == 'k/b.png'


def test_stores_by_address_and_by_the_old_argument(store):
    register_backend('test-prefix', Addresses, prefixes='testzip', force=True)
    args = arguments(store, 'test-zip', ['a.png 0', 'b.png 1'])
    args['pipeline'][0]['backend_args'] = None
    Addresses.path = store / 'p.zip'
    assert LongTailedDataset(**{**args, 'data_prefix': 'testzip://k'})[1]['inputs'].shape == (3, 6, 8)
    with pytest.raises(InputError, match=r'testzip://x/b\.png|testzip://x/a\.png'):
        LongTailedDataset(**{**args, 'data_prefix': 'testzip://x'})
    FileClient.register_backend('test-client', Zip, force=True)
    old = dict(backend='test-client', path=str(store / 'p.zip'))
    args['pipeline'] = [dict(type='LoadImageFromFile', file_client_args=old), dict(type='PackInputs')]
    assert LongTailedDataset(**args)[1]['inputs'].shape == (3, 6, 8)
    (store / 'list.txt').write_text('a.png 0\nnone.png 1\n')
    with pytest.raises(InputError, match=r'none\.png'):
        LongTailedDataset(**args)


def test_unreadable_pictures_in_a_store(store):
    lines = ['a.png 0', 'b.png 1', 'broken.png 1']
    with pytest.raises(InputError, match=r"'k/broken\.png' cannot be read .*a format that Pillow does not know"):
        LongTailedDataset(**arguments(store, 'test-keys', lines))[2]
    assert len(LongTailedDataset(**arguments(store, 'test-keys', lines, skip_unreadable=True))) == 2


def test_long_lists_are_asked_for_in_part(store, monkeypatch):
    monkeypatch.setattr(picture_files, 'MOST_ASKED', 2)
    Zip.asked = 0
    LongTailedDataset(**arguments(store, 'test-zip', ['a.png 0', 'b.png 1', 'c.png 1']))
    assert Zip.asked == 2
    with pytest.raises(InputError, match=r'none\.png'):
        LongTailedDataset(**arguments(store, 'test-zip', ['a.png 0', 'b.png 1', 'none.png 1']))


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        (dict(backend='nonsense'), 'cannot be read with backend_args=.*nonsense'),
        (dict(backend='test-zip', path='none.zip'), r"image 'k/a\.png' .* cannot be read by Zip \(FileNotFoundError"),
        (dict(backend='test-keys', path='none.zip'), r"image 'k/a\.png' .* cannot be read by Keys \(FileNotFoundError"),
    ],
)
def test_stores_that_fail(store, args, sentence):
    given = arguments(store, 'test-zip', ['a.png 0', 'b.png 1'])
    given['pipeline'][0]['backend_args'] = args
    with pytest.raises(InputError, match=sentence):
        LongTailedDataset(**given)
