"""Random transforms whose numbers depend on the place in the training, and on nothing else.

MMEngine seeds a worker when it starts. So a resumed training would draw what
the first epochs drew; without persistent workers every epoch draws the same.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, get_worker_info

from mmlt.engine.random_state import random_state, restore_random_state


class Draw(int):
    """An index into a data set that knows its number among all that this process draws in the training.

    Args:
        index (int): Of the data set.
        number (int): From 0; ``epoch * 2**32 + place in the epoch`` for
            samplers that know epochs.
    """

    number: int

    def __new__(cls, index: int, number: int):
        draw = super().__new__(cls, index)
        draw.number = number
        return draw

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.number


class _Numbered:
    """A sampler whose indices know their numbers."""

    def __init__(self, sampler):
        self.sampler, self.passes, self.skipped = sampler, -1, 0
        if hasattr(sampler, 'skip'):  # OneDL's resumed trainings by iterations begin in the middle
            sampler.skip = functools.partial(self._skip, sampler.skip)

    def _skip(self, skip: Callable, number: int):
        self.skipped += number
        return skip(number)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Draw]:
        self.passes += 1
        first = (getattr(self.sampler, 'epoch', self.passes) << 32) + self.skipped
        self.skipped = 0
        for place, index in enumerate(self.sampler):
            yield Draw(index, first + place)


class _Seeded:
    """A dataset whose batches are fetched with the random numbers that belong to their place."""

    def __init__(self, dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        return self.dataset[index]

    def __getitems__(self, indices: Sequence[Draw]) -> list:
        before = random_state() if get_worker_info() is None else None  # a worker's numbers are nobody else's
        try:
            seeds = np.random.SeedSequence([self.seed, get_rank(), indices[0].number]).generate_state(3)
            random.seed(int(seeds[0]))
            np.random.seed(seeds[1])
            torch.default_generator.manual_seed(int(seeds[2]))
            plain = [int(i) for i in indices]
            if hasattr(self.dataset, '__getitems__'):
                return self.dataset.__getitems__(plain)
            return [self.dataset[i] for i in plain]
        finally:
            if before is not None:
                restore_random_state(before)


class RepeatableLoader(DataLoader):
    """A loader whose random transforms depend on seed, process, epoch and place; see :func:`number_draws`."""

    seed: int

    def _get_iterator(self):
        dataset, attributes = self.dataset, self.__dict__
        attributes['dataset'] = _Seeded(dataset, self.seed)  # for the iterator alone; others see the dataset
        try:
            return super()._get_iterator()
        finally:
            attributes['dataset'] = dataset


def number_draws(loader: DataLoader, seed: int) -> DataLoader:
    """Let the random transforms of a training's batches depend on seed, process, epoch and place, in place.

    So an interrupted training that goes on sees what it would have seen, with
    any number of workers, and what the loader draws changes nothing elsewhere.

    Args:
        loader (DataLoader): With a batch sampler that has a ``sampler``;
            others stay as they are.
        seed (int): Of the training.

    Returns:
        DataLoader: The same.
    """
    own_generator(loader, seed)
    batches = loader.batch_sampler
    if type(loader) is DataLoader and hasattr(batches, 'sampler'):
        batches.sampler = _Numbered(batches.sampler)
        loader.__class__ = RepeatableLoader
        loader.__dict__['seed'] = seed
    return loader


def own_generator(loader: DataLoader, seed: int) -> None:
    """Let a loader draw the seeds of its workers from numbers of its own, and not from the training's."""
    if loader.generator is None:
        loader.generator = torch.Generator().manual_seed(seed)
