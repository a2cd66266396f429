"""Samplers: frequencies against theory, order against a plain loop, processes, epochs, wrappers."""

import random
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from torch.utils.data import DataLoader, Dataset, Subset

from mmlt import InputError
from mmlt.datasets import (
    ClassAwareSampler,
    ClassBalancedSampler,
    LongTailedDataset,
    MixBalancedSampler,
    SquareRootSampler,
)
from mmlt.registry import DATA_SAMPLERS

stats = pytest.importorskip('scipy.stats')

COUNTS = (90, 40, 16, 9, 4, 1)
MILLION = 1_000_000


class Labelled(Dataset):
    """As little as a sampler needs: labels, and perhaps class names."""

    def __init__(self, labels, classes=None):
        self.labels = np.asarray(labels)
        self.metainfo = {} if classes is None else {'classes': classes}

    def get_gt_labels(self):
        return self.labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return int(self.labels[i])


@pytest.fixture(scope='module')
def dataset() -> Labelled:
    """Six classes of ``COUNTS`` images, in no order."""
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    return Labelled(np.random.default_rng(7).permutation(labels), [f'class {c}' for c in range(len(COUNTS))])


def build(kind, dataset, **kwargs):
    if kind is MixBalancedSampler:
        kwargs.setdefault('max_epochs', 4)
    return kind(dataset, **{'seed': 0, **kwargs})


EVERY = [ClassAwareSampler, ClassBalancedSampler, MixBalancedSampler, SquareRootSampler]


def order(sampler, epoch=0) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


def processes(kind, dataset, world_size, epoch=0, **kwargs) -> list[list[int]]:
    """What every one of ``world_size`` processes draws."""
    parts = []
    for rank in range(world_size):
        sampler = build(kind, dataset, **kwargs)
        sampler.rank, sampler.world_size = rank, world_size
        parts.append(order(sampler, epoch))
        assert len(sampler) == len(parts[-1])
    return parts


# (a) Frequencies


def theory(kind, epoch):
    counts = np.array(COUNTS, float)
    if kind is ClassBalancedSampler:
        return np.ones(len(COUNTS)) / len(COUNTS)
    if kind is SquareRootSampler:
        return counts**0.5 / sum(counts**0.5)
    t = epoch / 4
    return (1 - t) * counts / sum(counts) + t * np.ones(len(COUNTS)) / len(COUNTS)


@pytest.mark.parametrize(
    ('kind', 'epoch'),
    [
        (ClassBalancedSampler, 0),
        (ClassBalancedSampler, 3),
        (SquareRootSampler, 0),
        (SquareRootSampler, 3),
        *((MixBalancedSampler, epoch) for epoch in range(5)),
    ],
)
def test_a_million_draws_follow_the_theory(dataset, kind, epoch):
    drawn = np.array(order(build(kind, dataset, num_samples=MILLION), epoch))
    assert len(drawn) == MILLION
    per_class = np.bincount(dataset.labels[drawn], minlength=len(COUNTS))
    expected = MILLION * theory(kind, epoch)
    assert stats.chisquare(per_class, expected).pvalue > 1e-4
    # A million draws tell the schemes apart: no other theory fits.
    for other, at in ((ClassBalancedSampler, 0), (SquareRootSampler, 0), *((MixBalancedSampler, t) for t in range(5))):
        if not np.allclose(theory(other, at), theory(kind, epoch)):
            assert stats.chisquare(per_class, MILLION * theory(other, at)).pvalue < 1e-12

    per_image = np.bincount(drawn, minlength=len(dataset))
    for c, n in enumerate(COUNTS):
        if n > 1:
            assert stats.chisquare(per_image[dataset.labels == c]).pvalue > 1e-4, f'class {c} is not drawn uniformly'


@pytest.mark.parametrize('kind', [ClassBalancedSampler, SquareRootSampler, MixBalancedSampler])
def test_draws_are_independent_of_the_one_before(dataset, kind):
    classes = dataset.labels[order(build(kind, dataset, num_samples=200_000), 1)]
    table = np.zeros((len(COUNTS), len(COUNTS)))
    np.add.at(table, (classes[:-1:2], classes[1::2]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_mixture_goes_from_instance_to_class_balanced(dataset):
    sampler = build(MixBalancedSampler, dataset)
    np.testing.assert_allclose(sampler.class_probabilities(0), np.array(COUNTS) / 160, rtol=1e-12)
    np.testing.assert_allclose(sampler.class_probabilities(4), 1 / 6, rtol=1e-12)
    np.testing.assert_allclose(sampler.class_probabilities(9), 1 / 6, rtol=1e-12)  # longer than planned
    np.testing.assert_allclose(sampler.class_probabilities(1)[-1], 0.75 / 160 + 0.25 / 6, rtol=1e-12)


# (b) Class-aware


@pytest.mark.parametrize('k', [1, 2, 3, 4, 7])
def test_class_aware_turns_and_rounds(dataset, k):
    num_classes, rounds = len(COUNTS), 11
    drawn = np.array(
        order(build(ClassAwareSampler, dataset, samples_per_class=k, num_samples=rounds * num_classes * k))
    )
    turns = dataset.labels[drawn].reshape(-1, k)
    assert (turns == turns[:, :1]).all()
    per_round = turns[:, 0].reshape(rounds, num_classes)
    assert (np.sort(per_round, 1) == np.arange(num_classes)).all()
    assert len({tuple(r) for r in per_round}) > rounds // 2  # the permutations differ
    assert (np.bincount(dataset.labels[drawn]) == rounds * k).all()

    # Every whole copy of a class's list holds every image once.
    for c, n in enumerate(COUNTS):
        mine = drawn[dataset.labels[drawn] == c]
        for start in range(0, len(mine) - n + 1, n):
            assert sorted(mine[start : start + n]) == np.flatnonzero(dataset.labels == c).tolist()
        assert len(set(mine[len(mine) // n * n :])) == len(mine) % n
        hits = np.bincount(mine, minlength=len(dataset))[dataset.labels == c]
        assert hits.max() - hits.min() <= 1


@pytest.mark.parametrize(('k', 'num_samples'), [(4, None), (4, 101), (3, 2), (5, 31)])
def test_class_aware_stops_in_the_middle_of_a_round(dataset, k, num_samples):
    drawn = np.array(order(build(ClassAwareSampler, dataset, samples_per_class=k, num_samples=num_samples), 2))
    assert len(drawn) == (num_samples or max(COUNTS) * len(COUNTS))
    per_class = np.bincount(dataset.labels[drawn], minlength=len(COUNTS))
    assert per_class.max() - per_class.min() <= k
    for c in range(len(COUNTS)):
        hits = np.bincount(drawn, minlength=len(dataset))[dataset.labels == c]
        assert hits.max() - hits.min() <= 1


def plain_class_aware(labels, k: int, num_samples: int, rng: random.Random) -> list[int]:
    """The class-aware sampler as anybody would write it."""
    members = {c: [i for i, y in enumerate(labels) if y == c] for c in set(labels)}
    waiting = {c: [] for c in members}
    drawn = []
    while True:
        turn = list(members)
        rng.shuffle(turn)
        for c in turn:
            for _ in range(k):
                if not waiting[c]:
                    waiting[c] = members[c][:]
                    rng.shuffle(waiting[c])
                drawn.append(waiting[c].pop())
                if len(drawn) == num_samples:
                    return drawn


@pytest.mark.parametrize(
    ('labels', 'k', 'num_samples'),
    [
        ([0, 1, 0], 1, 5),
        ([1, 0, 0, 0], 2, 5),
        ([0, 1, 2, 1], 1, 6),
        ([0, 0, 0, 1, 1], 3, 6),
    ],
)
def test_class_aware_equals_a_plain_loop_in_distribution(labels, k, num_samples):
    runs, rng = 6000, random.Random(0)
    sampler = ClassAwareSampler(Labelled(labels), samples_per_class=k, num_samples=num_samples, seed=1)
    mine = Counter(tuple(order(sampler, epoch)) for epoch in range(runs))
    plain = Counter(tuple(plain_class_aware(labels, k, num_samples, rng)) for _ in range(runs))
    assert 4 < len(plain) <= 200  # few enough for every sequence to be seen often
    assert set(mine) == set(plain)
    assert stats.chi2_contingency([[mine[s] for s in plain], [plain[s] for s in plain]]).pvalue > 1e-4


def test_class_aware_images_of_a_class_come_in_every_order():
    sampler = ClassAwareSampler(Labelled([0, 0, 0, 0]), seed=3)
    seen = Counter(tuple(order(sampler, epoch)) for epoch in range(4800))
    assert len(seen) == 24
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


def test_class_aware_with_one_image_a_class():
    drawn = order(ClassAwareSampler(Labelled([2, 0, 1]), samples_per_class=2, num_samples=12, seed=0))
    assert Counter(drawn) == {0: 4, 1: 4, 2: 4}
    assert drawn[::2] == drawn[1::2]


def test_class_aware_of_a_large_dataset():
    counts = np.linspace(1280, 5, 1000).astype(int)  # as ImageNet-LT
    labels = np.repeat(np.arange(1000), counts)
    drawn = np.array(order(ClassAwareSampler(Labelled(labels), seed=0)))
    assert len(drawn) == 1280 * 1000
    assert (np.bincount(labels[drawn]) == 1280).all()
    hits = np.bincount(drawn, minlength=len(labels))
    assert (hits >= 1280 // counts[labels]).all()
    assert (hits <= -(-1280 // counts[labels])).all()


# (c) Processes, lengths


@pytest.mark.parametrize('kind', EVERY)
@pytest.mark.parametrize('num_samples', [None, 37])
@pytest.mark.parametrize('world_size', [1, 2, 4])
def test_union_over_processes_is_the_order_of_one(dataset, kind, num_samples, world_size):
    whole = order(build(kind, dataset, num_samples=num_samples), 1)
    parts = processes(kind, dataset, world_size, epoch=1, num_samples=num_samples)
    assert len({len(p) for p in parts}) == 1
    interleaved = list(chain(*zip(*parts)))
    padding = -len(whole) % world_size
    assert len(interleaved) == len(whole) + padding
    assert interleaved[: len(whole)] == whole
    assert interleaved[len(whole) :] == whole[:padding]


@pytest.mark.parametrize('kind', EVERY)
@pytest.mark.parametrize('num_samples', [36, 37, 39])
def test_without_rounding_up_nothing_comes_twice(dataset, kind, num_samples):
    whole = order(build(kind, dataset, num_samples=num_samples))
    parts = processes(kind, dataset, 4, num_samples=num_samples, round_up=False)
    assert sum(len(p) for p in parts) == num_samples
    merged = [None] * num_samples
    for rank, part in enumerate(parts):
        merged[rank::4] = part
    assert merged == whole


def test_more_processes_than_samples(dataset):
    parts = processes(ClassBalancedSampler, dataset, 8, num_samples=3)
    whole = order(build(ClassBalancedSampler, dataset, num_samples=3))
    assert list(chain(*parts)) == (whole * 3)[:8]


def test_as_many_draws_as_images(dataset):
    """BALLAD's published phase B: the stream of the class-aware sampler, cut off there."""
    whole, cut = (order(build(ClassAwareSampler, dataset, seed=3, num_samples=n)) for n in (None, 'images'))
    assert len(cut) == len(dataset) < len(whole)
    assert len(build(ClassBalancedSampler, dataset, num_samples='images')) == len(dataset)
    with pytest.raises(InputError, match="'image'"):
        build(ClassAwareSampler, dataset, num_samples='image')


def test_default_lengths(dataset):
    assert len(build(ClassBalancedSampler, dataset)) == 160
    assert len(build(SquareRootSampler, dataset)) == 160
    assert len(build(MixBalancedSampler, dataset)) == 160
    assert len(build(ClassAwareSampler, dataset)) == 90 * 6


# (d) Seeds and epochs


@pytest.mark.parametrize('kind', EVERY)
def test_order_depends_on_seed_and_epoch_only(dataset, kind):
    sampler = build(kind, dataset, num_samples=200)
    first = order(sampler, 0)
    assert list(sampler) == first  # reading it again changes nothing
    np.random.seed(123)
    random.seed(123)
    assert order(build(kind, dataset, num_samples=200), 0) == first
    assert order(sampler, 1) != first
    assert order(build(kind, dataset, num_samples=200, seed=1), 0) != first
    assert order(build(kind, dataset, num_samples=200, seed=1), 0) != order(sampler, 1)
    assert order(sampler, 0) == first


@pytest.mark.parametrize('kind', EVERY)
def test_resumed_run_goes_on_as_if_never_stopped(dataset, kind):
    through = build(kind, dataset, num_samples=100)
    epochs = [order(through, epoch) for epoch in range(4)]
    resumed = build(kind, dataset, num_samples=100)
    assert [order(resumed, epoch) for epoch in (2, 3)] == epochs[2:]


def test_seed_of_the_run_is_taken_by_default(dataset, monkeypatch):
    monkeypatch.setattr('mmlt.datasets.samplers.class_samplers.sync_random_seed', lambda: 42)
    assert order(ClassBalancedSampler(dataset)) == order(ClassBalancedSampler(dataset, seed=42))


# (e) Refusals


@pytest.mark.parametrize('kind', EVERY)
@pytest.mark.parametrize('num_samples', [0, -5])
def test_refuses_num_samples(dataset, kind, num_samples):
    with pytest.raises(InputError, match=f'{kind.__name__}: num_samples is {num_samples}'):
        build(kind, dataset, num_samples=num_samples)


def test_refuses_samples_per_class_and_max_epochs(dataset):
    with pytest.raises(InputError, match='ClassAwareSampler: samples_per_class is 0'):
        ClassAwareSampler(dataset, samples_per_class=0)
    with pytest.raises(InputError, match='MixBalancedSampler: max_epochs is 0'):
        MixBalancedSampler(dataset, max_epochs=0)


@pytest.mark.parametrize('kind', EVERY)
def test_refuses_a_class_without_images(kind):
    with pytest.raises(InputError, match=r"Labelled has no training image of class 2 \('c'\)"):
        build(kind, Labelled([0, 1, 1], ['a', 'b', 'c']))
    with pytest.raises(InputError, match='Labelled has no training image of class 1'):
        build(kind, Labelled([0, 2, 2]))


@pytest.mark.parametrize('kind', EVERY)
def test_refuses_datasets_without_labels_or_samples(kind):
    with pytest.raises(InputError, match='list tells no labels'):
        build(kind, [1, 2, 3])
    with pytest.raises(InputError, match='Labelled lists no images'):
        build(kind, Labelled([]))


# (f) Wrappers


@pytest.fixture
def listed(picture_folder) -> LongTailedDataset:
    """Labels 0 x 6, 1 x 3, 2 x 1."""
    return LongTailedDataset('train.txt', data_root=str(picture_folder), data_prefix='images', serialize_data=False)


@pytest.mark.parametrize('kind', EVERY)
def test_over_wrapped_datasets(listed, kind):
    labels = [0] * 6 + [1] * 3 + [2]
    subset = [9, 1, 0, 7]
    for wrapped, expected in (
        (ConcatDataset([listed, listed]), labels * 2),
        (RepeatDataset(listed, 3), labels * 3),
        (Subset(listed, subset), [labels[i] for i in subset]),
        (Subset(ConcatDataset([listed, listed]), [19, 5, 17, 6]), [2, 0, 1, 1]),
    ):
        # The order is that of a plain dataset with these labels.
        plain = build(kind, Labelled(expected), num_samples=64)
        assert order(build(kind, wrapped, num_samples=64), 1) == order(plain, 1)


def test_loader_gives_balanced_labels_from_wrapped_datasets(listed):
    for wrapped in (ConcatDataset([listed, listed]), RepeatDataset(listed, 3), Subset(listed, [9, 1, 0, 7])):
        sampler = ClassAwareSampler(wrapped, samples_per_class=2, num_samples=24, seed=0)
        loader = DataLoader(wrapped, sampler=sampler, batch_size=2, collate_fn=lambda batch: batch)
        labels = [[sample['gt_label'] for sample in batch] for batch in loader]
        assert Counter(chain(*labels)) == {0: 8, 1: 8, 2: 8}
        assert all(a == b for a, b in labels)


@pytest.mark.parametrize('kind', EVERY)
def test_registered(dataset, kind):
    cfg = dict(type=f'mmlt.{kind.__name__}', num_samples=20)
    if kind is MixBalancedSampler:
        cfg['max_epochs'] = 4
    sampler = DATA_SAMPLERS.build(cfg, default_args=dict(dataset=dataset, seed=0))
    assert order(sampler, 1) == order(build(kind, dataset, num_samples=20), 1)
