"""CIFAR-LT from files in the published format, with pixels that tell which image of the file they are."""

import pickle
import shutil

import numpy as np
import pytest

from mmlt import InputError
from mmlt.datasets import CIFAR10LT, CIFAR100LT
from mmlt.registry import DATASETS


def write_batch(path, start: int, labels: np.ndarray, label_key: str, rng: np.random.Generator) -> None:
    """A batch as published: rows of 3072 bytes, channels first. The first two red bytes hold the image's number."""
    data = np.zeros((len(labels), 3072), np.uint8)
    data[:, 2:] = rng.integers(0, 256, (len(labels) // 1000, 3070), np.uint8).repeat(1000, 0)
    number = np.arange(start, start + len(labels))
    data[:, 0], data[:, 1] = number // 256, number % 256
    batch = {'data': data, label_key: labels.tolist(), 'filenames': [f'{i}.png' for i in number]}
    path.write_bytes(pickle.dumps(batch, protocol=4))


def random_labels(per_class: int, num_classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(num_classes), per_class))


@pytest.fixture(scope='module')
def cifar(tmp_path_factory):
    """Both data sets; yields their folder and the labels of both train splits by class."""
    root = tmp_path_factory.mktemp('cifar')
    rng = np.random.default_rng(0)
    labels = {CIFAR10LT: random_labels(5000, 10, 1), CIFAR100LT: random_labels(500, 100, 2)}

    folder = root / 'cifar-10-batches-py'
    folder.mkdir()
    for i in range(5):
        part = labels[CIFAR10LT][i * 10000 : (i + 1) * 10000]
        write_batch(folder / f'data_batch_{i + 1}', i * 10000, part, 'labels', rng)
    write_batch(folder / 'test_batch', 0, random_labels(1000, 10, 3), 'labels', rng)

    folder = root / 'cifar-100-python'
    folder.mkdir()
    write_batch(folder / 'train', 0, labels[CIFAR100LT], 'fine_labels', rng)
    write_batch(folder / 'test', 0, random_labels(100, 100, 4), 'fine_labels', rng)

    with pytest.MonkeyPatch.context() as patch:
        for dataset in (CIFAR10LT, CIFAR100LT):
            for split in ('train_list', 'test_list'):
                patch.setattr(dataset, split, [[name, None] for name, _ in getattr(dataset, split)])
        yield root, labels
    shutil.rmtree(root)


def build(dataset, root, **kwargs):
    return dataset(data_root=str(root), download=False, serialize_data=False, **kwargs)


def number(image: np.ndarray) -> int:
    return int(image[0, 0, 0]) * 256 + int(image[0, 1, 0])


@pytest.mark.parametrize(
    ('dataset', 'total', 'largest', 'smallest'), [(CIFAR10LT, 12406, 5000, 50), (CIFAR100LT, 10847, 500, 5)]
)
def test_train_split_has_the_profile(cifar, dataset, total, largest, smallest):
    root, labels = cifar
    train = build(dataset, root)
    counts = train.metainfo['class_counts']
    assert len(train) == sum(counts) == total
    assert (counts[0], counts[-1]) == (largest, smallest)
    assert train.metainfo['classes'] == tuple(c.replace('_', ' ') for c in dataset.METAINFO['classes'])
    mine = train.get_gt_labels()
    assert np.bincount(mine).tolist() == counts

    # Every picture is that of the file with its own label, and none comes twice.
    numbers = [number(train.get_data_info(i)['img']) for i in range(len(train))]
    assert len(set(numbers)) == total
    assert (labels[dataset][numbers] == mine).all()
    # Not the first ones of the file.
    first = np.flatnonzero(labels[dataset] == 1)[: counts[1]]
    assert {n for n, y in zip(numbers, mine) if y == 1} != set(first.tolist())


@pytest.mark.parametrize('dataset', [CIFAR10LT, CIFAR100LT])
def test_test_split_is_full_and_has_the_train_counts(cifar, dataset):
    root, _ = cifar
    test = build(dataset, root, split='test')
    num_classes = len(test.metainfo['classes'])
    assert len(test) == 10000
    assert (np.bincount(test.get_gt_labels()) == 10000 // num_classes).all()
    counts = test.metainfo['class_counts']
    assert (sum(counts), len(counts)) == ((12406, 10) if num_classes == 10 else (10847, 100))


def test_names_read_as_words(cifar):
    root, _ = cifar
    classes = build(CIFAR100LT, root, split='test').metainfo['classes']
    assert 'aquarium fish' in classes and 'pickup truck' in classes
    assert not any('_' in c for c in classes)
    assert 'aquarium_fish' in CIFAR100LT.METAINFO['classes']  # the class attribute is left alone


def test_selection_is_seeded(cifar):
    root, _ = cifar

    def numbers(**kwargs):
        train = build(CIFAR100LT, root, **kwargs)
        return [number(train.get_data_info(i)['img']) for i in range(len(train))]

    first = numbers()
    assert first == numbers(selection_seed=0)
    assert set(first) != set(numbers(selection_seed=1))


@pytest.mark.parametrize(('ratio', 'total'), [(1, 50000), (10, 19573), (50, 12608)])
def test_other_ratios(cifar, ratio, total):
    root, _ = cifar
    train = build(CIFAR100LT, root, imbalance_ratio=ratio)
    assert len(train) == sum(train.metainfo['class_counts']) == total
    assert np.bincount(train.get_gt_labels())[-1] == 500 // ratio


def test_bad_ratio(cifar):
    root, _ = cifar
    with pytest.raises(InputError, match='ratio of 1000 leaves class'):
        build(CIFAR100LT, root, imbalance_ratio=1000)
    with pytest.raises(InputError, match=r'ratio is 0\.01'):
        build(CIFAR10LT, root, imbalance_ratio=0.01)


def test_registered_with_pipeline(cifar):
    root, _ = cifar
    cfg = dict(type='mmlt.CIFAR10LT', data_root=str(root), split='test', download=False, imbalance_ratio=20)
    test = DATASETS.build({**cfg, 'indices': 5, 'pipeline': [dict(type='PackInputs')]})
    sample = test[3]
    assert sample['inputs'].shape == (3, 32, 32)
    assert int(sample['data_samples'].gt_label) == test.get_data_info(3)['gt_label']
