"""What a file may ask for is bounded, and what it names stays below its folder."""

import io
import json
import os
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmlt import InputError
from mmlt.datasets import LongTailedDataset
from mmlt.datasets.deferred_picture import DeferredPicture
from mmlt.datasets.multi_label_files import parse_voc
from mmlt.datasets.picture_sources import read_source
from mmlt.datasets.pictures import decode_picture, picture_error
from mmlt.datasets.text_files import read_json, read_table
from mmlt.models.converters import read_array


def png_header(width, height):
    def chunk(kind, content):
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def jpeg(width, height, claimed=None):
    file = io.BytesIO()
    Image.new('RGB', (width, height)).save(file, 'JPEG')
    data = file.getvalue()
    if claimed:
        at = data.index(b'\xff\xc0') + 5
        data = data[:at] + struct.pack('>HH', claimed[1], claimed[0]) + data[at + 4 :]
    return data


@pytest.mark.parametrize('data', [png_header(60_000, 60_000), jpeg(8, 8, (60_000, 60_000)), png_header(12_000, 15_000)])
def test_huge_pictures_are_refused_undecoded(data):
    for read in (decode_picture, lambda data: DeferredPicture(data, 'a.jpg')):
        with pytest.raises(InputError, match='MMLT_MAX_PICTURE_PIXELS'):
            read(data)
    assert 'MMLT_MAX_PICTURE_PIXELS' in picture_error(data)


def test_the_bounds_on_pictures_can_be_moved(monkeypatch):
    strip = jpeg(20_000, 10)
    for read in (decode_picture, lambda data: DeferredPicture(data, 'a.jpg')):
        with pytest.raises(InputError, match='20,000 x 10 pixels, so narrow .* MMLT_MAX_PICTURE_RATIO'):
            read(strip)
    monkeypatch.setenv('MMLT_MAX_PICTURE_RATIO', '2000')
    assert decode_picture(strip).shape == (10, 20_000, 3)
    monkeypatch.setenv('MMLT_MAX_PICTURE_PIXELS', '199999')
    with pytest.raises(InputError, match='at most 199,999 in all'):
        decode_picture(strip)
    monkeypatch.setenv('MMLT_MAX_PICTURE_PIXELS', '-1')
    with pytest.raises(InputError, match="MMLT_MAX_PICTURE_PIXELS is '-1'"):
        decode_picture(strip)


def test_a_program_is_no_picture():
    eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n'
    with Image.open(io.BytesIO(eps)) as image:  # Pillow alone would hand it to Ghostscript
        assert image.format == 'EPS'
    assert 'of a format that Pillow does not know' in picture_error(eps)


def test_an_array_that_claims_more_than_its_file_has(tmp_path):
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + '\n'
    (tmp_path / 'a.npy').write_bytes(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head.encode() + b'\0' * 64)
    with pytest.raises(InputError, match=r"a\.npy' could not be read"):
        read_array(str(tmp_path / 'a.npy'), 2)
    np.save(tmp_path / 'b.npy', np.ones((2, 3), '>f8'))
    assert read_array(str(tmp_path / 'b.npy'), 2).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_wide_tables(tmp_path, monkeypatch):
    path = tmp_path / 'a.csv'
    path.write_text('image' + ',a' * 100_000 + '\n')
    with pytest.raises(InputError, match='100,001 columns .* MMLT_MAX_COLUMNS'):
        read_table(str(path), ('image',))
    path.write_text('image,a\n0.png,1\n')
    monkeypatch.setenv('MMLT_MAX_COLUMNS', '1')
    with pytest.raises(InputError, match='2 columns'):
        read_table(str(path), ('image',))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[' * 200_000, 'nests lists or objects deeper'),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "has the key 'c' twice"),
        ('{"a": NaN}', 'has NaN, which is no number'),
        ('[-Infinity]', 'has -Infinity'),
        ('[' + '1' * 5000 + ']', 'is not valid JSON'),
    ],
)
def test_json_that_python_would_take_or_fail_on(tmp_path, text, message):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(InputError, match=re.escape(str(tmp_path / 'a.json')) + "' " + message):
        read_json(str(tmp_path / 'a.json'))


def test_json_of_our_own_may_have_nan(tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps([float('inf'), 1]))
    assert read_json(str(tmp_path / 'a.json'), constants=True) == [float('inf'), 1]


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])
def test_xml_with_entities(tmp_path, encoding):
    text = '<!DOCTYPE a [<!ENTITY e "x">]><a><object><name>&e;</name></object></a>'
    (tmp_path / '1.xml').write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=r"1\.xml' declares entities"):
        parse_voc(str(tmp_path), ['1'])


@pytest.mark.parametrize('name', ['../secret.png', r'a\..\..\secret.png', 'a/../../secret.png'])
def test_lists_stay_below_their_folder(tmp_path, name):
    (tmp_path / 'in' / 'a').mkdir(parents=True)
    for place in ('secret.png', 'in/a/0.png', 'in/a/b..c.png'):
        Image.new('RGB', (4, 4)).save(tmp_path / place)
    path = tmp_path / 'in' / 'l.txt'
    path.write_text(f'a/0.png 0\n{name} 1\n')
    for read in (lambda: LongTailedDataset('l.txt', data_root=str(path.parent)), lambda: read_source(str(path))):
        with pytest.raises(InputError, match=r"l\.txt'.* leads out of its folder by '\.\.': give the full path"):
            read()
    with pytest.raises(InputError, match='leads out of its folder'):
        parse_voc(str(path.parent), [name])
    # Two dots in a name, full paths and links inside of the folder are fine.
    os.symlink(tmp_path / 'secret.png', tmp_path / 'in' / 'link.png')
    path.write_text(f'a/b..c.png 0\n{tmp_path}/secret.png 1\nlink.png 1\n')
    assert len(LongTailedDataset('l.txt', data_root=str(path.parent))) == 3


def test_linked_folders_of_a_class(tmp_path):
    for place in ('more', 'data/cat', 'data/dog'):
        (tmp_path / place).mkdir(parents=True)
        Image.new('RGB', (4, 4)).save(tmp_path / place / '0.png')
    os.symlink(tmp_path / 'more', tmp_path / 'data' / 'cat' / 'more')
    os.symlink(tmp_path / 'data' / 'cat', tmp_path / 'data' / 'cat' / 'loop')
    os.symlink(tmp_path / 'data', tmp_path / 'data' / 'dog' / 'up')
    assert read_source(str(tmp_path / 'data')).files == ['cat/0.png', 'cat/more/0.png', 'dog/0.png']
