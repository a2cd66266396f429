"""Samplers that decide how often a class is seen.

An epoch's order is a pure function of (seed, epoch): every process computes
the same one and takes every world-size-th index of it, so the union over the
processes is the order of a single one, and a resumed run goes on with it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmlt.errors import InputError
from mmlt.registry import DATA_SAMPLERS
from mmlt.utils.labels import dataset_positives
from mmlt.utils.long_tail import count_classes


class _ClassSampler(Sampler):
    """Labels of the dataset, and the part of an epoch's order that belongs to this process."""

    def __init__(
        self, dataset: Sized, seed: int | None = None, num_samples: int | str | None = None, round_up: bool = True
    ):
        images, labels = dataset_positives(dataset)
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        self.counts = np.array(count_classes(labels, classes, type(dataset).__name__))
        self.by_class = images[np.argsort(labels, kind='stable')]  # class after class; with several labels, repeatedly
        self.num_images = len(dataset)
        self.first = np.cumsum(self.counts) - self.counts
        if num_samples == 'images':
            num_samples = self.num_images
        if num_samples is not None and (isinstance(num_samples, str) or num_samples < 1):
            raise InputError(
                f"{type(self).__name__}: num_samples is {num_samples!r}; give a positive number, or 'images' for as "
                'many draws as the dataset has images.'
            )
        self.total = num_samples or self._default_total()
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.round_up = round_up
        self.epoch = 0

    def _default_total(self) -> int:
        return self.num_images

    @abstractmethod
    def epoch_indices(self, epoch: int) -> np.ndarray:
        """Indices of one epoch over all processes.

        Args:
            epoch (int): From 0.

        Returns:
            np.ndarray: Shape (num_samples, ).
        """

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; MMEngine calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.round_up:
            return math.ceil(self.total / self.world_size)
        return math.ceil((self.total - self.rank) / self.world_size)

    def __iter__(self) -> Iterator[int]:
        order = self.epoch_indices(self.epoch)
        if self.round_up and (rest := -len(order) % self.world_size):
            order = np.concatenate([order, np.resize(order, rest)])
        return iter(order[self.rank :: self.world_size].tolist())


class _IndependentSampler(_ClassSampler):
    """Draws independently: a class, then one of its images uniformly."""

    @abstractmethod
    def class_probabilities(self, epoch: int) -> np.ndarray:
        """Probability of every class in an epoch, shape (C, )."""

    def epoch_indices(self, epoch: int) -> np.ndarray:
        """See :meth:`_ClassSampler.epoch_indices`."""
        rng = np.random.default_rng([self.seed, epoch])
        classes = rng.choice(len(self.counts), size=self.total, p=self.class_probabilities(epoch))
        member = (rng.random(self.total) * self.counts[classes]).astype(np.int64)
        return self.by_class[self.first[classes] + member]


@DATA_SAMPLERS.register_module()
class ClassBalancedSampler(_IndependentSampler):
    """A class uniformly, then one of its images uniformly (BALLAD, section 3.2).

    Args:
        dataset (Sized): A single- or multi-label mm dataset.
        seed (int, optional): Defaults to None, one seed shared by all
            processes; MMEngine gives the run's.
        num_samples (int | str, optional): Draws an epoch over all processes,
            or 'images', as many as the dataset has images.
            Defaults to None, the same.
        round_up (bool): Give all processes equally many. Defaults to True.
    """

    def class_probabilities(self, epoch: int) -> np.ndarray:
        """1 / C each."""
        return np.full(len(self.counts), 1 / len(self.counts))


@DATA_SAMPLERS.register_module()
class SquareRootSampler(_IndependentSampler):
    """Classes in proportion to the square root of their counts.

    The sampling of VL-LTR, and BALLAD's Table 8. Arguments as in
    :class:`ClassBalancedSampler`.
    """

    def class_probabilities(self, epoch: int) -> np.ndarray:
        """sqrt(n_c), normalised."""
        roots = np.sqrt(self.counts)
        return roots / roots.sum()


@DATA_SAMPLERS.register_module()
class MixBalancedSampler(_IndependentSampler):
    """From instance-balanced to class-balanced in the course of the training.

    In epoch t of T class c has probability
    ``(1 - t / T) * n_c / N + (t / T) / C`` (progressively balanced, Kang et
    al. 2020; BALLAD's Table 8).

    Args:
        dataset (Sized): A single- or multi-label mm dataset.
        max_epochs (int): T, the epochs of the training.
        **kwargs: As in :class:`ClassBalancedSampler`.
    """

    def __init__(self, dataset: Sized, max_epochs: int, **kwargs):
        super().__init__(dataset, **kwargs)
        if max_epochs < 1:
            raise InputError(f'MixBalancedSampler: max_epochs is {max_epochs}; give the epochs of the training.')
        self.max_epochs = max_epochs

    def class_probabilities(self, epoch: int) -> np.ndarray:
        """The mixture at this epoch."""
        t = min(epoch / self.max_epochs, 1.0)
        return (1 - t) * self.counts / self.counts.sum() + t / len(self.counts)


@DATA_SAMPLERS.register_module()
class ClassAwareSampler(_ClassSampler):
    """Class-balanced without chance in the counts, as in BALLAD's published code.

    Classes come in random permutations, one after the other. At its turn a
    class gives ``samples_per_class`` images from a shuffled list of its own,
    which is shuffled anew when it is used up. So every class is seen equally
    often, and every image of a class as equally as possible.

    Args:
        dataset (Sized): A single- or multi-label mm dataset.
        samples_per_class (int): Images drawn together at a class's turn.
            Defaults to 4.
        num_samples (int | str, optional): Draws an epoch over all processes.
            Defaults to None, largest count times number of classes (1.28
            million for ImageNet-LT), the published stream; 'images' cuts it
            after as many as the dataset has images, where BALLAD's published
            training leaves it (N // 512 batches).
        **kwargs: As in :class:`ClassBalancedSampler`.
    """

    def __init__(self, dataset: Sized, samples_per_class: int = 4, **kwargs):
        if samples_per_class < 1:
            raise InputError(f'ClassAwareSampler: samples_per_class is {samples_per_class}; it must be positive.')
        self.samples_per_class = samples_per_class
        super().__init__(dataset, **kwargs)

    def _default_total(self) -> int:
        return int(self.counts.max()) * len(self.counts)

    def epoch_indices(self, epoch: int) -> np.ndarray:
        """See :meth:`_ClassSampler.epoch_indices`."""
        rng = np.random.default_rng([self.seed, epoch])
        num_classes, k = len(self.counts), self.samples_per_class
        turns = -(-self.total // k)
        rounds = -(-turns // num_classes)
        order = rng.permuted(np.tile(np.arange(num_classes), (rounds, 1)), axis=1).ravel()[:turns]

        # Every class needs rounds * k images: shuffled copies of its list, one after the other.
        copies = -(-(rounds * k) // self.counts)
        start = np.cumsum(copies * self.counts) - copies * self.counts
        shuffled = np.empty(int((copies * self.counts).sum()), dtype=np.int64)
        for size in np.unique(self.counts):  # classes of one size are shuffled together
            members = np.flatnonzero(self.counts == size)
            length = int(copies[members[0]]) * size
            rows = np.tile(np.arange(size), (len(members) * length // size, 1))
            places = start[members][:, None] + np.arange(length)
            shuffled[places] = rng.permuted(rows, axis=1).reshape(places.shape)
        visit = np.arange(turns) // num_classes  # a class is visited once a round
        place = (start[order] + visit * k)[:, None] + np.arange(k)
        return self.by_class[(self.first[order][:, None] + shuffled[place]).ravel()[: self.total]]
