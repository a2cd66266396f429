"""Profiles, seeded selection, counting and the labels of wrapped datasets."""

import json

import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmpretrain.datasets import CustomDataset, KFoldDataset, MultiLabelDataset
from torch.utils.data import Subset, TensorDataset

from mmlt import InputError
from mmlt.datasets import (
    ImageTextDataset,
    LongTailedDataset,
    count_classes,
    dataset_labels,
    exponential_profile,
    select_long_tail,
)
from mmlt.evaluation import SHOT_PROTOCOLS, shot_groups


@pytest.mark.parametrize(
    ('max_count', 'ratio', 'num_classes', 'total'),
    [
        (500, 100, 100, 10847),
        (500, 50, 100, 12608),
        (500, 10, 100, 19573),
        (500, 1, 100, 50000),
        (5000, 100, 10, 12406),
        (5000, 50, 10, 13996),
        (5000, 10, 10, 20431),
    ],
)
def test_profile_has_the_published_totals(max_count, ratio, num_classes, total):
    counts = exponential_profile(max_count, ratio, num_classes)
    assert sum(counts) == total
    assert len(counts) == num_classes
    assert counts[0] == max_count
    assert counts[-1] == max_count // ratio
    assert counts == sorted(counts, reverse=True)


def test_profile_of_cifar100_splits_35_35_30():
    groups = shot_groups(exponential_profile(500, 100, 100), SHOT_PROTOCOLS['standard'])
    assert np.bincount(groups).tolist() == [35, 35, 30]


def test_profile_of_mnist():
    assert exponential_profile(400, 100, 10) == [400, 239, 143, 86, 51, 30, 18, 11, 6, 4]


def test_profile_is_the_floor_of_the_formula():
    counts = exponential_profile(1280, 256, 50)
    for c, n in enumerate(counts):
        exact = 1280 * 256.0 ** (-c / 49)
        assert n <= exact + 1e-6 < n + 1 + 2e-6


@pytest.mark.parametrize('ratio', [2, 3, 4, 5, 8, 10, 16, 20, 25, 40, 50, 80, 100, 200, 400])
def test_smallest_class_is_exact_where_the_ratio_divides(ratio):
    assert exponential_profile(400, ratio, 10)[-1] == 400 // ratio


def test_profile_does_not_lose_an_image_to_rounding():
    # 64 * 32 ** (-c / 10) = 2 ** (6 - c / 2): whole numbers at every even c, which floats just miss.
    assert exponential_profile(64, 32, 11)[::2] == [64, 32, 16, 8, 4, 2]


def test_profile_of_one_class():
    assert exponential_profile(7, 5, 1) == [7]


def test_profile_refuses_bad_ratios():
    with pytest.raises(InputError, match=r'ratio is 0\.5; .*at least 1'):
        exponential_profile(100, 0.5, 10)
    with pytest.raises(InputError, match='ratio of 401 leaves class 9 without images.*choose at most 400'):
        exponential_profile(400, 401, 10)


def test_selection_is_seeded_and_without_replacement():
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(4), 50))
    counts = [50, 20, 7, 1]
    chosen = select_long_tail(labels, counts, seed=5)
    assert labels[chosen].tolist() == sum(([c] * n for c, n in enumerate(counts)), [])
    assert len(set(chosen.tolist())) == sum(counts)
    assert (chosen == select_long_tail(labels, counts, seed=5)).all()
    other = select_long_tail(labels, counts, seed=6)
    assert set(other[50:].tolist()) != set(chosen[50:].tolist())
    # Shuffled within a class: not simply the first ones of the file.
    assert chosen[:50].tolist() != sorted(chosen[:50].tolist())
    assert set(chosen[50:70].tolist()) != set(np.flatnonzero(labels == 1)[:20].tolist())


def test_selection_takes_every_member_equally_often():
    labels = np.repeat([0, 1], [10, 5])
    hits = np.zeros(15)
    for seed in range(2000):
        hits[select_long_tail(labels, [4, 1], seed)] += 1
    expected = np.repeat([2000 * 4 / 10, 2000 / 5], [10, 5])
    sigma = np.sqrt(2000 * np.repeat([0.4 * 0.6, 0.2 * 0.8], [10, 5]))
    assert (np.abs(hits - expected) < 5 * sigma).all()


def test_selection_names_a_class_that_is_too_small():
    with pytest.raises(InputError, match='Class 1 has 2 samples, but 3 were asked'):
        select_long_tail(np.array([0, 0, 0, 1, 1]), [1, 3], 0)


def test_count_classes():
    assert count_classes([2, 0, 1, 2, 2], ['a', 'b', 'c'], 'x') == [1, 1, 3]
    assert count_classes([1, 0, 1], None, 'x') == [1, 2]


def test_count_classes_names_empty_classes():
    with pytest.raises(InputError, match=r"LIST has no training image of class 1 \('b'\), 3 \('d'\): "):
        count_classes([0, 2], ['a', 'b', 'c', 'd'], 'LIST')
    with pytest.raises(InputError, match='LIST has no training image of class 1: '):
        count_classes([0, 2], None, 'LIST')
    with pytest.raises(InputError, match=r"1 \('1'\), .*5 \('5'\) and 4 more: "):
        count_classes([0], [str(i) for i in range(10)], 'LIST')
    with pytest.raises(InputError, match='LIST lists no images'):
        count_classes([], ['a'], 'LIST')


def test_count_classes_names_labels_out_of_range():
    with pytest.raises(InputError, match=r'LIST, entry 3: label -1 is outside \[0, 2\)'):
        count_classes([0, 1, -1], ['a', 'b'], 'LIST')
    with pytest.raises(InputError, match=r'LIST, entry 2: label -4 is outside \[0, \.\.\.\)'):
        count_classes([0, -4], None, 'LIST')
    with pytest.raises(InputError, match=r'entry 2: label 2 is outside \[0, 2\).*start at 1; they must start at 0'):
        count_classes([1, 2], ['a', 'b'], 'LIST')
    with pytest.raises(InputError, match=r'entry 2: label 5 .*class list has 2 names, the labels go up to 5'):
        count_classes([0, 5], ['a', 'b'], 'LIST')


@pytest.fixture
def dataset(picture_folder) -> LongTailedDataset:
    return LongTailedDataset(
        'train.txt',
        data_root=str(picture_folder),
        data_prefix='images',
        classes='classes.txt',
        serialize_data=False,
    )


LABELS = [0] * 6 + [1] * 3 + [2]


def test_labels_of_plain_and_wrapped_datasets(dataset):
    assert dataset_labels(dataset).tolist() == LABELS
    assert dataset_labels(dataset).dtype == np.int64
    assert dataset_labels(RepeatDataset(dataset, 3)).tolist() == LABELS * 3
    assert dataset_labels(Subset(dataset, [9, 0, 7])).tolist() == [2, 0, 1]
    assert dataset_labels(ConcatDataset([dataset, dataset])).tolist() == LABELS * 2
    assert dataset_labels(Subset(ConcatDataset([dataset, dataset]), [19, 6, 3])).tolist() == [2, 1, 0]
    assert dataset_labels(Subset(Subset(dataset, [9, 8, 7]), [2, 0])).tolist() == [1, 2]


def test_labels_of_an_oversampling_wrapper(dataset):
    wrapped = ClassBalancedDataset(dataset, oversample_thr=0.5)
    expected = [dataset.get_data_info(i)['gt_label'] for i in wrapped.repeat_indices]
    assert len(expected) == len(wrapped) > len(dataset)
    assert dataset_labels(wrapped).tolist() == expected


def test_labels_agree_with_what_a_wrapper_gives_out(dataset):
    for wrapped in (RepeatDataset(dataset, 2), ConcatDataset([dataset, dataset]), Subset(dataset, [8, 9, 1])):
        assert dataset_labels(wrapped).tolist() == [wrapped[i]['gt_label'] for i in range(len(wrapped))]


def test_labels_of_folds(picture_folder):
    folds = KFoldDataset(
        dict(
            type='mmlt.LongTailedDataset',
            ann_file='train.txt',
            data_root=str(picture_folder),
            data_prefix='images',
        ),
        fold=1,
        num_splits=5,
    )
    assert dataset_labels(folds).tolist() == LABELS[:2] + LABELS[4:]


def test_labels_of_a_lazy_foreign_dataset(picture_folder):
    lazy = CustomDataset(ann_file='train.txt', data_root=str(picture_folder), data_prefix='images', lazy_init=True)
    assert dataset_labels(lazy).tolist() == LABELS


def test_dataset_without_labels_is_named():
    with pytest.raises(InputError, match='TensorDataset tells no labels'):
        dataset_labels(TensorDataset(torch.zeros(3)))


@pytest.mark.parametrize('labels', [([0], [0, 1]), ([0, 1], [1, 2])], ids=['ragged', 'equal lengths'])
def test_multi_label_dataset_is_refused(tmp_path, labels):
    data = [{'img_path': f'{i}.png', 'gt_label': y} for i, y in enumerate(labels)]
    (tmp_path / 'a.json').write_text(json.dumps({'metainfo': {'classes': ['a', 'b', 'c']}, 'data_list': data}))
    with pytest.raises(InputError, match='MultiLabelDataset'):
        dataset_labels(MultiLabelDataset(str(tmp_path / 'a.json')))


def test_captions_without_labels_are_refused(picture_folder):
    table = picture_folder / 'captions.csv'
    table.write_text('image,caption\napple/0.png,an apple\n')
    dataset = ImageTextDataset(str(table), data_prefix=str(picture_folder / 'images'))
    with pytest.raises(InputError, match='ImageTextDataset'):
        dataset_labels(dataset)
