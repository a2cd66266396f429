"""iNaturalist's JSON files: labels, names, counts, and a sentence for everything that can be wrong with them."""

import json

import numpy as np
import pytest
from PIL import Image

from mmlt import InputError
from mmlt.datasets import INaturalist2018
from mmlt.registry import DATASETS

SPECIES = {4: 'Abies alba', 7: 'Larus canus', 9: 'Lutra lutra'}


@pytest.fixture
def folder(tmp_path):
    """Three species (ids 4, 7, 9) with 4, 2, 1 training and 1 validation images each, as the competition has them."""
    rng = np.random.default_rng(0)
    number = 0
    categories = [{'id': c, 'name': str(c), 'supercategory': 'Life'} for c in (9, 4, 7)]  # in no order
    for split, counts in (('train', (4, 2, 1)), ('val', (1, 1, 1))):
        images, annotations = [], []
        for category, count in zip(SPECIES, counts):
            for _ in range(count):
                number += 1
                name = f'train_val2018/Life/{category}/{number}.jpg'
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(tmp_path / name)
                images.append({'id': number, 'file_name': name, 'width': 9, 'height': 8})
                annotations.append({'id': 100 + number, 'image_id': number, 'category_id': category})
        table = dict(info={}, images=images[::-1], annotations=annotations, categories=categories)
        (tmp_path / f'{split}2018.json').write_text(json.dumps(table))
    named = [{'id': c, 'name': SPECIES[c], 'kingdom': 'Plantae'} for c in (7, 4, 9)]
    (tmp_path / 'categories.json').write_text(json.dumps(named))
    return tmp_path


def make(folder, split='train', **kwargs):
    if split != 'train':
        kwargs.setdefault('train_ann_file', 'train2018.json')
    return INaturalist2018(f'{split}2018.json', data_root=str(folder), **kwargs)


def change(folder, edit, split='train'):
    path = folder / f'{split}2018.json'
    table = json.loads(path.read_text())
    edit(table)
    path.write_text(json.dumps(table))
    return str(path)


def test_labels_are_ranks_of_category_ids(folder):
    dataset = make(folder)
    assert dataset.get_gt_labels().tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert dataset.metainfo['class_counts'] == [4, 2, 1]
    assert dataset.metainfo['classes'] == ('4', '7', '9')
    # The images are listed in another order than the annotations.
    paths = [dataset.get_data_info(i)['img_path'] for i in (0, 6)]
    assert paths == [str(folder / f'train_val2018/Life/{c}') for c in ('4/1.jpg', '9/7.jpg')]


def test_names_of_the_species(folder):
    assert make(folder, classes='categories.json').metainfo['classes'] == tuple(SPECIES.values())
    assert make(folder, classes=str(folder / 'categories.json')).metainfo['classes'] == tuple(SPECIES.values())
    assert make(folder, classes=['fir', 'gull', 'otter']).metainfo['classes'] == ('fir', 'gull', 'otter')


def test_validation_split_has_the_train_counts(folder):
    dataset = make(folder, 'val', classes='categories.json')
    assert dataset.get_gt_labels().tolist() == [0, 1, 2]
    assert dataset.metainfo['class_counts'] == [4, 2, 1]
    assert dataset.metainfo['classes'][1] == 'Larus canus'


def test_registered_and_loads_pictures(folder):
    dataset = DATASETS.build(
        dict(
            type='mmlt.INaturalist2018',
            ann_file='train2018.json',
            data_root=str(folder),
            pipeline=[dict(type='LoadImageFromFile')],
        )
    )
    assert dataset[6]['img'].shape == (8, 9, 3) and dataset[6]['gt_label'] == 2


def test_class_texts(folder):
    (folder / 'wiki').mkdir()
    assert make(folder, class_texts='wiki').metainfo['class_texts'] == str(folder / 'wiki')


@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
def test_missing_list(folder, key):
    path = change(folder, lambda table: table.pop(key))
    with pytest.raises(InputError, match=f"'{path}' has no list '{key}'.*test split has no labels"):
        make(folder)


@pytest.mark.parametrize(
    ('key', 'field'),
    [
        ('images', 'id'),
        ('images', 'file_name'),
        ('annotations', 'image_id'),
        ('annotations', 'category_id'),
        ('categories', 'id'),
        ('categories', 'name'),
    ],
)
def test_missing_field(folder, key, field):
    change(folder, lambda table: table[key][1].pop(field))
    with pytest.raises(InputError, match=f"train2018.json', {key}, entry 2 has no '{field}'"):
        make(folder)


@pytest.mark.parametrize(('field', 'where'), [('image_id', 'images'), ('category_id', 'categories')])
def test_annotation_of_something_unknown(folder, field, where):
    change(folder, lambda table: table['annotations'][2].update({field: 77}))
    with pytest.raises(InputError, match=f"annotations, entry 3: {field} 77 is not in the file's {where}"):
        make(folder)


def test_missing_files(folder):
    with pytest.raises(InputError, match=f"annotation file '{folder}/test2018.json' does not exist"):
        make(folder, 'test')
    with pytest.raises(InputError, match=f"file '{folder}/names.json' does not exist"):
        make(folder, classes='names.json')
    (folder / 'train_val2018/Life/4/2.jpg').unlink()
    with pytest.raises(InputError, match="1 of the 7 images of '.*train2018.json' do not exist.*/4/2.jpg"):
        make(folder)


def test_damaged_json(folder):
    path = folder / 'train2018.json'
    path.write_text(path.read_text()[:300])
    with pytest.raises(InputError, match=f"'{path}' is not valid JSON .*download may be incomplete"):
        make(folder)


def test_no_images(folder):
    change(folder, lambda table: table.update(images=[], annotations=[]), 'val')
    with pytest.raises(InputError, match="val2018.json' lists no images"):
        make(folder, 'val')


def test_class_without_train_image(folder):
    change(folder, lambda table: table['annotations'].pop())
    with pytest.raises(InputError, match=r"train2018.json' has no training image of class 2 \('Lutra lutra'\)"):
        make(folder, classes='categories.json')


@pytest.mark.parametrize('split', ['train', 'val'])
def test_categories_of_another_release(folder, split):
    change(folder, lambda table: table['categories'].append({'id': 11, 'name': '11'}), split)
    with pytest.raises(InputError, match='has other categories than .*one release'):
        make(folder, 'val')
