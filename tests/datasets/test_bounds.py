"""Files that would fill the memory, and paths that leave their folder, are refused by a sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmlt import InputError
from mmlt.datasets import LoadPicture, LongTailedDataset
from mmlt.datasets.picture_files import stay_below
from mmlt.datasets.pictures import MAX_RATIO, decode_picture, picture_error
from mmlt.datasets.text_files import read_json
from mmlt.models.converters import check_npy, read_array


def png(width, height):
    """A PNG that claims a size; its pixels are a few bytes."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b'')


def jpeg(width, height):
    buffer = io.BytesIO()
    Image.new('RGB', (8, 8)).save(buffer, 'JPEG')
    data = bytearray(buffer.getvalue())
    at = data.index(b'\xff\xc0') + 5
    data[at : at + 4] = struct.pack('>HH', height, width)
    return bytes(data)


@pytest.mark.parametrize('make', [png, jpeg])
@pytest.mark.parametrize(
    'size, why',
    [
        ((60000, 60000), 'far too many pixels|60000 x 60000 pixels, more than'),
        ((10000, 9500), '10000 x 9500 pixels, more than 89,478,485'),
        ((20000, 10), '20000 x 10 pixels, more than 200 times as many along as across: crop it'),
        ((3, 1000), '3 x 1000 pixels'),
    ],
)
def test_pictures_that_would_fill_the_memory(tmp_path, make, size, why, recwarn):
    path = tmp_path / 'bomb.jpg'
    path.write_bytes(make(*size))
    for defer in (False, True):
        with pytest.raises(InputError, match=rf"'.*bomb\.jpg' cannot be read \(.*({why})"):
            LoadPicture(defer=defer)(dict(img_path=str(path)))
    assert picture_error(make(*size)) is not None
    assert not [w for w in recwarn if 'bomb' in str(w.message).lower()]


def test_long_pictures_and_a_bound_of_ones_own(monkeypatch):
    buffer = io.BytesIO()
    Image.new('RGB', (MAX_RATIO * 2, 2)).save(buffer, 'PNG')
    assert decode_picture(buffer.getvalue()).shape == (2, MAX_RATIO * 2, 3)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 700)
    assert 'more than 700' in picture_error(buffer.getvalue())
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', None)
    assert picture_error(buffer.getvalue()) is None


def test_arrays_that_claim_what_they_have_not(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.ones((3, 2), np.float32))
    check_npy(str(path))
    assert read_array(str(path), 2).shape == (3, 2)
    content = path.read_bytes()
    claims = content.replace(b'(3, 2)', b'(1000000000000, 2)').replace(b' ' * 12, b'', 1)
    for data in (claims[: len(content)], content[:-4]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.npy' could not be read \(ValueError: its head claims [\d,]+ bytes"):
            read_array(str(path), 2)


def test_json_that_is_nested_without_end(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('[' * 200_000)
    with pytest.raises(InputError, match=r"a\.json' is (nested too deep|not valid JSON)"):
        read_json(str(path))


@pytest.mark.parametrize('file', ['../x.png', 'a/../../x.png', '..\\x.png', 'a/..'])
def test_paths_that_leave_their_folder(tmp_path, file):
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (8, 8)).save(tmp_path / 'x.png')
    (tmp_path / 'train.txt').write_text(f'{file} 0\n')
    with pytest.raises(InputError, match=r"train\.txt'.*leaves the folder of the images by '\.\.'"):
        LongTailedDataset(
            data_root=str(tmp_path), data_prefix='images', ann_file='train.txt', classes=['a'], pipeline=[]
        ).full_init()


def test_paths_that_say_openly_where_they_lead():
    stay_below(['/data/../x.png', 's3://bucket/../x.png', 'a/b..c.png', '...png', 'a..b/c.png'], 'list.txt')
    with pytest.raises(InputError, match=r"'list\.txt', line 7: 'a/\.\./b' leaves"):
        stay_below(['x', 'a/../b'], 'list.txt', [3, 7])
