"""Files that would fill the memory, and paths that leave their folder, are refused by a sentence."""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from mmlt import InputError
from mmlt.apis.inference import find_pictures
from mmlt.checkpoints.arrays import check_npy, read_array
from mmlt.datasets import LoadPicture, LongTailedDataset
from mmlt.datasets.multi_label_files import parse_coco
from mmlt.datasets.picture_files import files_below, stay_below
from mmlt.datasets.pictures import MAX_RATIO, decode_picture, picture_error
from mmlt.preparation.picture_sources import read_folder
from mmlt.utils.text_files import read_json


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


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('{"a": [1, NaN]}', 'has NaN, which is no number of JSON'),
        ('-Infinity', 'has -Infinity'),
        ('[{"id": 1, "name": "x", "id": 2}]', "has the key 'id' twice in one object"),
        ('{"a": {}, "a": {}}', "has the key 'a' twice"),
        ('{"a": 1', 'is not valid JSON'),
    ],
)
def test_json_of_which_python_would_take_a_part(tmp_path, text, why):
    file = tmp_path / 'x.json'
    file.write_text(text)
    with pytest.raises(InputError, match=why) as told:
        read_json(str(file))
    assert str(told.value).startswith(f"'{file}'")


def _coco() -> dict:
    return dict(
        images=[dict(id=1, file_name='a.jpg'), dict(id='b', file_name='b.jpg')],
        categories=[dict(id=3, name='cat'), dict(id=7, name='dog')],
        annotations=[
            dict(image_id=1, category_id=7, area=9.5, bbox=[0, 0, 3, 3]),
            dict(image_id='b', category_id=3, area=4, bbox=[0, 0, 2, 2]),
        ],
    )


def test_entries_of_annotations_that_are_right(tmp_path):
    file = tmp_path / 'x.json'
    file.write_text(json.dumps(_coco()))
    files, labels, names = parse_coco(str(file))
    assert files == ['a.jpg', 'b.jpg'] and names == ('cat', 'dog') and [a.tolist() for a in labels] == [[1], [0]]


@pytest.mark.parametrize(
    ('key', 'change', 'why'),
    [
        ('images', dict(id=1), 'the entries 1 and 2 have the same id 1'),
        ('images', dict(id=[1]), r"images, entry 2: 'id' is \[1\], but must be an id"),
        ('images', dict(id=1.5), "images, entry 2: 'id' is 1.5, but must be an id"),
        ('images', dict(file_name=None), "images, entry 2: 'file_name' is None, but must be a text"),
        ('images', None, "images, entry 2 has no 'id'"),
        ('categories', dict(id=3), 'the entries 1 and 2 have the same id 3'),
        ('categories', dict(id='3'), 'is not an annotation file of COCO'),
        ('categories', dict(name='cat'), 'several categories of one name'),
        ('annotations', 'cat', "annotations, entry 2 has no 'image_id'"),
        ('annotations', dict(area='4'), "'area' is '4', but must be a number"),
        ('annotations', dict(bbox=5), "'bbox' is 5, but must be a list"),
        ('annotations', dict(bbox=[1]), 'is not an annotation file of COCO'),
    ],
)
def test_entries_of_annotations_that_are_wrong(tmp_path, key, change, why):
    content = _coco()
    content[key][1] = {**content[key][1], **change} if isinstance(change, dict) else change
    file = tmp_path / 'x.json'
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=why):
        parse_coco(str(file))


def test_a_program_is_no_picture(monkeypatch):
    data = io.BytesIO()
    Image.new('RGB', (8, 8)).save(data, 'EPS')
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *a, **k: pytest.fail('it was run'))
    with Image.open(data) as image, pytest.raises(pytest.fail.Exception, match='it was run'):
        image.load()
    assert 'an EPS file, a program that is not run: save it as PNG' in picture_error(data.getvalue())


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


def test_folders_with_links_and_pipes(tmp_path):
    root, elsewhere = tmp_path / 'root', tmp_path / 'elsewhere'
    for folder in (root / 'a/.hidden', root / 'b', elsewhere / 'x.png'):
        folder.mkdir(parents=True)
    for file in (root / 'a/1.png', root / 'a/.hidden/2.png', root / 'a/._1.png', root / 'b/1.png', elsewhere / '3.png'):
        Image.new('RGB', (8, 8)).save(file, 'PNG')
    (root / 'a/linked').symlink_to(elsewhere)
    (root / 'a/back').symlink_to(root)
    (root / 'b/nowhere.png').symlink_to('nothing')
    os.mkfifo(root / 'b/pipe.png')
    assert files_below(str(root)) == (
        ['a/._1.png', 'a/.hidden/2.png', 'a/1.png', 'a/linked/3.png', 'b/1.png', 'b/nowhere.png'],
        ['b/pipe.png'],
    )
    pictures = read_folder(str(root))
    assert pictures.files == ['a/1.png', 'a/linked/3.png', 'b/1.png', 'b/nowhere.png']
    assert any("1 file is no picture and is left out: 'b/pipe.png'" in note for note in pictures.notes)
    assert any("pictures in hidden folders are left out: 'a/.hidden/2.png'" in note for note in pictures.notes)
    (root / 'b/nowhere.png').unlink()
    found = find_pictures([str(root / 'b'), str(root / 'a/linked')])
    assert found == [str(root / 'b/1.png'), str(root / 'a/linked/3.png')]


@pytest.mark.parametrize('number', [1, 40])  # each is asked for, or their folder listed
def test_a_listed_folder_is_no_picture(tmp_path, number):
    for i in range(number):
        Image.new('RGB', (8, 8)).save(tmp_path / f'{i}.png')
    lines = ''.join(f'{i}.png {i % 2}\n' for i in range(number))
    (tmp_path / 'x.png').mkdir()
    (tmp_path / 'list.txt').write_text(lines + 'x.png 1\n')
    with pytest.raises(InputError, match=rf"1 of the {number + 1} images .* do not exist, the first is '.*x\.png'"):
        LongTailedDataset('list.txt', data_root=str(tmp_path), classes=['a', 'b'], pipeline=[])
