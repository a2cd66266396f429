"""The dataset configs read what is published, where docs/datasets.md puts it."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.datasets.categories import VOC2007_CATEGORIES
from PIL import Image

from mmlt.registry import DATASETS

REPO = Path(__file__).parents[2]
SPLITS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def statistics(folder, num_classes):
    """Of a train split with one image a class."""
    folder.mkdir(parents=True, exist_ok=True)
    ones = np.ones(num_classes, np.int64)
    freq = {'class_freq': ones, 'neg_class_freq': (num_classes - 1) * ones}
    split = {'head': set(), 'middle': set(), 'tail': set(np.where(ones < 20)[0])}
    for name, content in (('class_freq', freq), ('class_split', split)):
        (folder / f'{name}.pkl').write_bytes(pickle.dumps(content, protocol=2))


def make_voc(root):
    for c, name in enumerate(VOC2007_CATEGORIES):
        for year in ('VOC2012', 'VOC2007'):
            picture(root / year / 'JPEGImages' / f'{c}.jpg')
            xml = f'<annotation><object><name>{name}</name></object></annotation>'
            text(root / year / 'Annotations' / f'{c}.xml', xml)
    text(root / 'longtail2012/img_id.txt', '\n'.join(str(c) for c in range(20)))
    text(root / 'VOC2007/ImageSets/Main/test.txt', '3\n4\n')
    statistics(root / 'longtail2012', 20)


def make_coco(root):
    numbers = range(1, 81)
    for split in ('train2017', 'val2017'):
        for n in numbers:
            picture(root / split / f'{n}.jpg')
        content = {
            'images': [{'id': n, 'file_name': f'{n}.jpg'} for n in numbers],
            'categories': [{'id': n, 'name': f'thing {n}'} for n in numbers],
            'annotations': [
                {'image_id': n, 'category_id': n, 'area': 9.0, 'bbox': [0, 0, 3, 3], 'iscrowd': 0} for n in numbers
            ],
        }
        text(root / f'annotations/instances_{split}.json', json.dumps(content))
    text(root / 'longtail2017/img_id.pkl', '\n'.join(str(n) for n in numbers))
    statistics(root / 'longtail2017', 80)


def make_miml(root):
    names = ['desert', 'mountains', 'sea', 'sunset', 'trees']
    for c in range(5):
        picture(root / f'images/{c}.jpg')
    text(root / 'classes.txt', '\n'.join(names))
    text(root / 'train.txt', ''.join(f'{c}.jpg {c}\n' for c in range(5)))
    text(root / 'test.txt', '1.jpg 0 4\n')


def make_nus(root):
    names = [f'scene {c}' for c in range(33)]
    for c in range(33):
        picture(root / f'images/{c}.jpg')
    text(root / 'classes.txt', '\n'.join(names))
    header = ','.join(['image', 'no scene', *names])
    rows = [','.join([f'{c}.jpg', '1', *('1' if c == i else '0' for i in range(33))]) for c in range(33)]
    text(root / 'train.csv', '\n'.join([header, *rows]))
    text(root / 'test.csv', '\n'.join([header, rows[2]]))


@pytest.mark.parametrize(
    ('name', 'make', 'num_classes', 'sizes'),
    [
        ('voc-lt', make_voc, 20, (20, 2, 2)),
        ('coco-lt', make_coco, 80, (80, 80, 80)),
        ('miml', make_miml, 5, (5, 1, 1)),
        ('nus-wide-scene', make_nus, 33, (33, 1, 1)),
    ],
)
def test_config(tmp_path, name, make, num_classes, sizes):
    cfg = Config.fromfile(REPO / f'configs/_base_/datasets/{name}.py')
    make(tmp_path / cfg.data_root)
    for split, size in zip(SPLITS, sizes):
        dataset = cfg[split].dataset
        data = DATASETS.build({**dataset, 'data_root': str(tmp_path / dataset.data_root)})
        assert len(data) == size
        assert data.metainfo['class_counts'] == [1] * num_classes == [1] * len(data.metainfo['classes'])
        assert data.metainfo['num_train_images'] == num_classes
        sample = data[0]
        assert sample['inputs'].shape == (3, 224, 224) and len(sample['data_samples'].gt_label) >= 1
    assert cfg.val_evaluator == [dict(type='mmlt.ShotMAP')]
