"""One reader for tables, one for JSON, one for lists: whoever wrote them, every component reads them the same."""

import codecs
import json

import numpy as np
import pytest
from PIL import Image

from mmlt import InputError
from mmlt.datasets import ClassTexts, ImageTextDataset, LongTailedDataset, LongTailedMultiLabel
from mmlt.datasets.inaturalist import read_categories
from mmlt.datasets.long_tailed_dataset import parse_annotation
from mmlt.datasets.multi_label_files import parse_coco, read_image_ids
from mmlt.datasets.texts.class_names import read_class_names
from mmlt.datasets.texts.files import read_table
from mmlt.preparation.picture_sources import read_source
from mmlt.utils.text_files import read_numbers

NAMES = ('apple', 'grün; reif')


@pytest.fixture
def folder(tmp_path):
    for i in range(2):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f'{i}.png')
    return tmp_path


def save(path, delimiter, rows, encoding, end):
    def field(text):
        return f'"{text}"' if delimiter in text else text

    path.write_bytes(end.join(delimiter.join(map(field, row)) for row in rows).encode(encoding))
    return str(path)


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'gbk'])
@pytest.mark.parametrize('delimiter', [',', ';', '\t', '|'])
def test_every_reader_of_tables_reads_what_spreadsheets_write(folder, delimiter, encoding, end):
    names = NAMES if encoding != 'gbk' else ('apple', '苹果; 红')
    how = (encoding, end)
    # The suffix says nothing of the delimiter.
    labels = save(folder / 'l.csv', delimiter, [('Image', 'label'), ('0.png', names[0]), ('1.png', names[1])], *how)
    assert read_source(labels).classes == list(names)
    captions = save(folder / 'c.tsv', delimiter, [('image', 'caption'), ('0.png', 'a, b'), ('1.png', names[1])], *how)
    data = ImageTextDataset('c.tsv', data_root=str(folder), serialize_data=False)
    assert captions and [data.get_data_info(i)['caption'] for i in range(2)] == ['a, b', names[1]]
    texts = save(
        folder / 't.csv', delimiter, [('class', 'text'), (names[0], 'it is red'), (names[1], 'so it is')], *how
    )
    assert ClassTexts(texts, templates=None).read(names) == [['it is red'], ['so it is']]
    save(folder / 'm.csv', delimiter, [('image', *names), ('0.png', '1', '0'), ('1.png', '', '1')], *how)
    data = LongTailedMultiLabel('m.csv', data_root=str(folder))
    assert data.metainfo['classes'] == names and [data.get_cat_ids(i) for i in range(2)] == [[0], [1]]


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_every_reader_of_json_and_lists_takes_a_byte_order_mark(folder, encoding):
    def write(name, text):
        (folder / name).write_bytes(text.encode(encoding))
        return str(folder / name)

    coco = dict(
        images=[dict(id=5, file_name='0.png')],
        categories=[dict(id=1, name='Bär')],
        annotations=[dict(image_id=5, category_id=1, area=9.0, bbox=[0, 0, 3, 3])],
    )
    assert parse_coco(write('coco.json', json.dumps(coco, ensure_ascii=False)))[2] == ('Bär',)
    assert read_categories(write('inat.json', json.dumps(coco, ensure_ascii=False))) == {1: 'Bär'}
    mm = dict(metainfo=dict(classes=['a', 'b']), data_list=[dict(img_path=f'{i}.png', gt_label=i) for i in range(2)])
    assert read_source(write('mm.json', json.dumps(mm))).classes == ['a', 'b']
    texts = write('texts.json', json.dumps({'Bär': 'it is brown'}, ensure_ascii=False))
    assert ClassTexts(texts, templates=None).read(['Bär']) == [['it is brown']]
    assert read_class_names(write('names.txt', 'Bär\r\nHund\r\n')) == ('Bär', 'Hund')
    assert parse_annotation(write('list.txt', '0.png 0\r1.png 1'))[0] == ['0.png', '1.png']
    assert read_image_ids(write('ids.txt', '2008_1\r\n2008_2')) == ['2008_1', '2008_2']
    assert read_numbers(write('counts.txt', '3\r\n\r\n4\r\n')) == [3, 4]
    (folder / 'wiki').mkdir()
    write('wiki/desc_0.txt', 'It is brown.')
    assert ClassTexts(str(folder / 'wiki'), templates=None).read(['Bär']) == [['It is brown.']]


def test_table(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_bytes(codecs.BOM_UTF8 + b'\n"sep=;"\nA;b, c;;\n"1;\n2"; 3\n;;\n4;\n')
    table = read_table(str(path), ('a',))
    assert table.header == ['A', 'b, c'] and table.rows == [['1;\n2', '3'], ['4', '']] and table.lines == [5, 7]
    assert list(table.select('a', 'none')) == [(f"'{path}', line 5", {'a': '1;\n2'}), (f"'{path}', line 7", {'a': '4'})]
    # The needed column decides, where other delimiters divide the header as often.
    path.write_text('image;sea, blue;sand, dry;wood, green\nx;1;0;0\n')
    assert read_table(str(path), ('image',)).header == ['image', 'sea, blue', 'sand, dry', 'wood, green']


@pytest.mark.parametrize('text', ['3\nx\n', '3\n1.5\n'])
def test_numbers_name_the_line(tmp_path, text):
    (tmp_path / 'a.txt').write_text(text)
    with pytest.raises(InputError, match=r"a\.txt', line 2: '.*' is none: there must be one whole number a line"):
        read_numbers(str(tmp_path / 'a.txt'))


def test_list_of_windows(folder):
    (folder / 'in').mkdir()
    for i in range(2):
        (folder / f'{i}.png').rename(folder / 'in' / f'{i}.png')
    (folder / 'l.txt').write_bytes(codecs.BOM_UTF8 + b'in\\0.png 0\r\nin\\1.png 1\r\n')
    data = LongTailedDataset('l.txt', data_root=str(folder))
    assert [data.get_data_info(i)['img_path'] for i in range(2)] == [f'{folder}/in/{i}.png' for i in range(2)]
    assert read_source(str(folder / 'l.txt')).files == ['in/0.png', 'in/1.png']
    (folder / 'l.csv').write_text('image,caption\nin\\0.png,a\n')
    data = ImageTextDataset('l.csv', data_root=str(folder))
    assert data.get_data_info(0)['img_path'] == f'{folder}/in/0.png'
