"""Tables of images and captions, good ones and bad ones."""

import pytest

from mmlt import InputError
from mmlt.datasets import ImageTextDataset
from mmlt.registry import DATASETS


def make(folder, rows, name='captions.csv', **kwargs) -> ImageTextDataset:
    (folder / name).write_text('\n'.join(rows) + '\n', encoding='utf-8')
    kwargs = {'data_root': str(folder), 'data_prefix': 'images', 'serialize_data': False, **kwargs}
    return ImageTextDataset(name, **kwargs)


def infos(dataset) -> list[dict]:
    keys = ('img_path', 'caption', 'gt_label')
    return [
        {k: dataset.get_data_info(i)[k] for k in keys if k in dataset.get_data_info(i)} for i in range(len(dataset))
    ]


def test_csv(picture_folder):
    rows = ['image,caption', 'apple/0.png,"a red, ripe ""apple"""', 'pear/0.png,grüne Birne 梨']
    assert infos(make(picture_folder, rows)) == [
        {'img_path': f'{picture_folder}/images/apple/0.png', 'caption': 'a red, ripe "apple"'},
        {'img_path': f'{picture_folder}/images/pear/0.png', 'caption': 'grüne Birne 梨'},
    ]


def test_tsv_with_labels_and_columns_in_any_order(picture_folder):
    rows = ['label\tcaption\tsource\timage', '4\ta red, ripe apple\tweb\tapple/0.png', '1\ta pear\tweb\tpear/0.png']
    dataset = make(picture_folder, rows, 'captions.tsv')
    assert infos(dataset) == [
        {'img_path': f'{picture_folder}/images/apple/0.png', 'caption': 'a red, ripe apple', 'gt_label': 4},
        {'img_path': f'{picture_folder}/images/pear/0.png', 'caption': 'a pear', 'gt_label': 1},
    ]
    assert dataset.get_gt_labels().tolist() == [4, 1]


def test_absolute_paths_without_prefix(picture_folder):
    path = f'{picture_folder}/images/apple/0.png'
    dataset = make(picture_folder, ['image,caption', f'{path},an apple'], data_prefix='')
    assert infos(dataset) == [{'img_path': path, 'caption': 'an apple'}]
    table = str(picture_folder / 'captions.csv')
    assert infos(ImageTextDataset(table)) == [{'img_path': path, 'caption': 'an apple'}]


def test_registered_with_pipeline(picture_folder):
    make(picture_folder, ['image,caption', 'apple/0.png,an apple'])
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs', algorithm_keys=['caption'])]
    dataset = DATASETS.build(
        dict(
            type='mmlt.ImageTextDataset',
            ann_file='captions.csv',
            data_root=str(picture_folder),
            data_prefix='images',
            pipeline=pipeline,
        )
    )
    assert dataset[0]['data_samples'].caption == 'an apple'
    assert dataset[0]['inputs'].shape == (3, 40, 36)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=f"caption file '{tmp_path}/nope.csv' does not exist"):
        ImageTextDataset('nope.csv', data_root=str(tmp_path))


@pytest.mark.parametrize(
    ('header', 'missing'), [('file,caption', 'image'), ('image,text', 'caption'), ('image\ttext', 'caption')]
)
def test_missing_column_is_named(picture_folder, header, missing):
    with pytest.raises(InputError, match=f"captions.csv' has no column '{missing}'"):
        make(picture_folder, [header, 'apple/0.png,an apple'])


def test_empty_file_has_no_columns(picture_folder):
    with pytest.raises(InputError, match="has no column 'image'"):
        make(picture_folder, [])


def test_missing_image_is_named_with_its_line(picture_folder):
    match = f"captions.csv', line 3: the image '{picture_folder}/images/kiwi/0.png' does not exist"
    with pytest.raises(InputError, match=match):
        make(picture_folder, ['image,caption', 'apple/0.png,an apple', 'kiwi/0.png,a kiwi'])


@pytest.mark.parametrize('row', ['pear/0.png,', 'pear/0.png'])
def test_missing_caption_is_named_with_its_line(picture_folder, row):
    with pytest.raises(InputError, match="captions.csv', line 3: 'pear/0.png' has no caption"):
        make(picture_folder, ['image,caption', 'apple/0.png,an apple', row])


def test_row_without_image_is_named_with_its_line(picture_folder):
    with pytest.raises(InputError, match="captions.csv', line 3: "):
        make(picture_folder, ['image,caption', 'apple/0.png,an apple', ',a caption of nothing'])


def test_label_that_is_no_integer_is_named_with_its_line(picture_folder):
    with pytest.raises(InputError, match="captions.csv', line 3: .*pear"):
        make(picture_folder, ['image,caption,label', 'apple/0.png,an apple,0', 'pear/0.png,a pear,pear'])


def test_line_numbers_are_those_of_the_file(picture_folder):
    rows = ['image,caption', 'apple/0.png,"an apple', 'on two lines"', '', 'kiwi/0.png,a kiwi']
    with pytest.raises(InputError, match="captions.csv', line 5: "):
        make(picture_folder, rows)


def test_table_without_rows_is_named(picture_folder):
    with pytest.raises(InputError, match=r'captions\.csv'):
        make(picture_folder, ['image,caption'], serialize_data=True)


def test_byte_order_mark_of_spreadsheets_is_no_part_of_the_header(picture_folder):
    dataset = make(picture_folder, ['\ufeffimage,caption', 'apple/0.png,an apple'])
    assert infos(dataset)[0]['caption'] == 'an apple'


def test_table_with_labels_in_some_rows_is_refused(tmp_path):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / 'a.png')
    (tmp_path / 'c.csv').write_text('image,caption,label\na.png,one,0\na.png,two,\n')
    with pytest.raises(InputError, match='labels in 1 of 2 rows'):
        ImageTextDataset(ann_file='c.csv', data_root=str(tmp_path), data_prefix='.')
