"""Subsets of limited imbalance: their counts against the definition, their draws, and who sees the counts."""

import numpy as np
import pytest
from mmpretrain.registry import DATASETS

from mmlt import InputError
from mmlt.datasets import LongTailedDataset
from mmlt.utils.class_info import class_info
from mmlt.utils.labels import dataset_labels
from mmlt.utils.long_tail import limit_imbalance

MNIST = (400, 239, 143, 86, 51, 30, 18, 11, 6, 4)


def counted(dataset):
    info = class_info(dataset)
    return list(info.counts), info.num_images


@pytest.mark.parametrize('i', range(8))
def test_counts_are_those_of_the_definition(i):
    counts = limit_imbalance(MNIST, 2**i)
    assert counts == [n if n <= 4 * 2**i else 4 * 2**i for n in MNIST]
    assert max(counts) / min(counts) <= 2**i and min(counts) == min(MNIST)
    assert i < 7 or counts == list(MNIST)


def test_ratios_between_whole_numbers():
    assert limit_imbalance([100, 10, 3], 1.5) == [4, 4, 3]
    assert limit_imbalance([100, 10, 10], 1.1) == [11, 10, 10]  # 1.1 * 10 is 11.000000000000002
    assert limit_imbalance([100, 30, 30], 1.7) == [51, 30, 30]
    assert limit_imbalance([200, 100], 1.15) == [115, 100]  # 1.15 * 100 is 114.99999999999999


@pytest.mark.parametrize('counts, ratio', [([3, 2], 0.5), ([3, 2], float('nan')), ([3, 0], 2), ([], 2)])
def test_what_has_no_limit(counts, ratio):
    with pytest.raises(InputError, match='imbalance ratio'):
        limit_imbalance(counts, ratio)


def lists(folder, split='train', **kwargs) -> LongTailedDataset:
    train = dict(train_ann_file='train.txt') if split == 'test' else {}
    return LongTailedDataset(
        f'{split}.txt', data_root=str(folder), data_prefix='images', classes='classes.txt', **train, **kwargs
    )


def names(dataset) -> list[str]:
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def test_pictures_of_a_list(picture_folder):
    whole, two = lists(picture_folder), lists(picture_folder, max_imbalance=2)
    assert np.bincount(dataset_labels(two)).tolist() == counted(two)[0] == [2, 2, 1]
    assert two.metainfo['class_counts'] == [2, 2, 1] and whole.metainfo['class_counts'] == [6, 3, 1]
    assert [n for n in names(whole) if n in names(two)] == names(two)
    # Nested for one seed, and drawn anew for another.
    four = lists(picture_folder, max_imbalance=4)
    assert set(names(two)) < set(names(four))
    draws = [tuple(names(lists(picture_folder, max_imbalance=2, subset_seed=s))) for s in range(8)]
    assert len(set(draws)) > 3
    assert names(lists(picture_folder, max_imbalance=2)) == names(two)
    assert names(lists(picture_folder, max_imbalance=6)) == names(whole)


@pytest.mark.parametrize('kind', ['MNISTLT', 'TwemojiLT'])
def test_data_sets_of_packages(kind):
    try:
        dataset = DATASETS.build(dict(type=f'mmlt.{kind}', max_imbalance=1, serialize_data=False))
    except InputError as e:
        pytest.skip(str(e))
    counts = counted(dataset)[0]
    assert len(set(counts)) == 1 and counts == dataset.metainfo['class_counts']


@pytest.mark.parametrize('ratio', [0, 0.5, float('nan'), float('inf')])
def test_ratios_that_cannot_be(picture_folder, ratio):
    with pytest.raises(InputError, match="LongTailedDataset's max_imbalance is"):
        lists(picture_folder, max_imbalance=ratio)


def test_a_test_split_is_never_cut(picture_folder):
    with pytest.raises(InputError, match='max_imbalance=2 on a split that is not the train split'):
        lists(picture_folder, 'test', max_imbalance=2)
