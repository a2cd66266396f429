"""The checks of downloads on VOC-LT and COCO-LT in their published layout."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.datasets.categories import VOC2007_CATEGORIES
from PIL import Image

import mmlt.preparation.multi_label_checks  # noqa: F401  adds VOC-LT and COCO-LT
from mmlt.cli import check as tool
from mmlt.datasets import LongTailedMultiLabel
from mmlt.preparation.checks import DOWNLOADS, check_contents

REPO = Path(__file__).parent.parent.parent


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)


def statistics(folder, labels, num_classes):
    """class_freq.pkl and class_split.pkl of these labels."""
    folder.mkdir(exist_ok=True)
    counts = np.bincount(np.concatenate(labels), minlength=num_classes)
    freq = dict(class_freq=counts, neg_class_freq=len(labels) - counts)
    (folder / 'class_freq.pkl').write_bytes(pickle.dumps(freq, protocol=2))
    bounds = dict(head=counts >= 100, middle=(counts < 100) & (counts >= 20), tail=counts < 20)
    split = {key: set(np.flatnonzero(here).tolist()) for key, here in bounds.items()}
    (folder / 'class_split.pkl').write_bytes(pickle.dumps(split, protocol=2))


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """Every class of VOC once, the first one in all of the 20 + 2 images."""
    for year, images in ((2012, 20), (2007, 2)):
        for i in range(images):
            picture(tmp_path / f'VOC{year}' / 'JPEGImages' / f'{i:06}.jpg')
            objects = ''.join(f'<object><name>{VOC2007_CATEGORIES[c]}</name></object>' for c in {0, i})
            path = tmp_path / f'VOC{year}' / 'Annotations' / f'{i:06}.xml'
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'<annotation>{objects}</annotation>')
    statistics(tmp_path / 'longtail2012', [sorted({0, i}) for i in range(20)], 20)
    (tmp_path / 'longtail2012/img_id.txt').write_text(''.join(f'{i:06}\n' for i in range(20)))
    (tmp_path / 'VOC2007/ImageSets/Main').mkdir(parents=True)
    (tmp_path / 'VOC2007/ImageSets/Main/test.txt').write_text('000000\n000001\n')
    small = replace(DOWNLOADS['voc-lt'], images=dict(train=20, test=2), shots=(0, 1, 19))
    monkeypatch.setitem(DOWNLOADS, 'voc-lt', small)
    return tmp_path


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """Two categories, 3 of 4 training images chosen, one test image without label."""
    categories = [dict(id=i, name=n) for i, n in ((7, 'train'), (3, 'car'))]
    for part, labels in (('train2017', [[3], [3, 7], [3], [7]]), ('val2017', [[]])):
        images = [dict(id=i, file_name=f'{i:012}.jpg') for i in range(len(labels))]
        objects = [(i, c) for i, own in enumerate(labels) for c in own]
        annotations = [dict(image_id=i, category_id=c, area=9, bbox=[0, 0, 3, 3]) for i, c in objects]
        path = tmp_path / 'annotations' / f'instances_{part}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
        for image in images:
            picture(tmp_path / part / image['file_name'])
    statistics(tmp_path / 'longtail2017', [[0], [0, 1], [0]], 2)
    (tmp_path / 'longtail2017/img_id.pkl').write_text('0\n1\n2\n')
    small = replace(DOWNLOADS['coco-lt'], num_classes=2, images=dict(train=3, test=1), shots=(0, 0, 2))
    monkeypatch.setitem(DOWNLOADS, 'coco-lt', small)
    return tmp_path


def problems(name, root):
    return check_contents(DOWNLOADS[name], str(root)).problems


@pytest.mark.parametrize('name', ['voc', 'coco'])
def test_whole_download_passes_and_becomes_lists(name, request, capsys, monkeypatch):
    root = request.getfixturevalue(name)
    monkeypatch.chdir(root)
    assert tool.main([f'{name}-lt', '.', '--out', 'lists']) == 0
    assert 'is complete' in capsys.readouterr().out
    data = dict(data_root='.', classes='lists/classes.txt')
    dataset = LongTailedMultiLabel('lists/train.txt', **data)
    assert dataset.metainfo['class_counts'] == ([20] + [1] * 19 if name == 'voc' else [3, 1])
    assert dataset.metainfo['classes'][0] == ('aeroplane' if name == 'voc' else 'car')
    test = LongTailedMultiLabel('lists/test.txt', train_ann_file='lists/train.txt', **data)
    assert [test.get_data_info(i)['gt_label'] for i in range(len(test))] == ([[0], [0, 1]] if name == 'voc' else [[]])


def test_missing_and_cut_off_files_are_named(voc):
    (voc / 'VOC2012/JPEGImages/000003.jpg').unlink()
    (voc / 'longtail2012/class_split.pkl').unlink()
    statistic, missing = problems('voc-lt', voc)
    assert "'class_split.pkl' is missing in" in statistic
    assert '1 of the 20 listed pictures are not in' in missing and "'VOC2012/JPEGImages/000003.jpg'" in missing
    (voc / 'VOC2012/Annotations/000004.xml').write_text('<annotation><obj')
    assert "000004.xml' cannot be read as XML" in problems('voc-lt', voc)[0]
    (voc / 'VOC2012/Annotations/000004.xml').unlink()
    assert "000004.xml' does not exist" in problems('voc-lt', voc)[0]


def test_statistics_of_another_version(coco):
    statistics(coco / 'longtail2017', [[0], [1], [0]], 2)
    (found,) = problems('coco-lt', coco)
    assert "'class_freq.pkl' does not fit the annotations in 1 of 2 classes, the first is 'car' with 3 images" in found
    (coco / 'longtail2017/img_id.pkl').write_text('0\n1\n2\n3\n')
    assert '3 images are expected and 4 listed; this is another version of the list' in '\n'.join(
        problems('coco-lt', coco)
    )
