"""Random transforms whose numbers depend on the place in the training, and on nothing else.

MMEngine seeds a worker when it starts. So a resumed training would draw what
the first epochs drew; without persistent workers every epoch draws the same.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Sequence

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

    def __new__(cls, index: int, number: int):
        draw = super().__new__(cls, index)
        draw.number = number
        return draw

    def __getnewargs__(self) -> tuple[int, int]:
        return int(self), self.number


class _Numbered:
    """A sampler whose indices know their numbers."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Draw]:
        self.passes = getattr(self, 'passes', -1) + 1
        first = getattr(self.sampler, 'epoch', self.passes) << 32
        for place, index in enumerate(self.sampler):
            yield Draw(index, first + place)


def _fetch(dataset, original, seed: int, indices: Sequence[int]) -> list:
    """The items of a batch, with the random numbers that belong to it."""
    number = getattr(indices[0], 'number', None) if len(indices) else None
    plain = [int(i) for i in indices]
    get = original or (lambda numbers: [dataset[i] for i in numbers])
    if number is None:
        return get(plain)
    before = random_state() if get_worker_info() is None else None  # a worker's numbers are nobody else's
    try:
        seeds = np.random.SeedSequence([seed, get_rank(), number]).generate_state(3)
        random.seed(int(seeds[0]))
        np.random.seed(seeds[1])
        torch.default_generator.manual_seed(int(seeds[2]))
        return get(plain)
    finally:
        if before is not None:
            restore_random_state(before)


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
    batches, dataset = loader.batch_sampler, loader.dataset
    if not hasattr(batches, 'sampler') or isinstance(batches.sampler, _Numbered):
        return loader
    original = getattr(dataset, '__getitems__', None)
    try:
        dataset.__getitems__ = functools.partial(_fetch, dataset, original, seed)
    except AttributeError:  # a class with slots
        return loader
    batches.sampler = _Numbered(batches.sampler)
    return loader


def own_generator(loader: DataLoader, seed: int) -> None:
    """Let a loader draw the seeds of its workers from numbers of its own, and not from the training's."""
    if loader.generator is None:
        loader.generator = torch.Generator().manual_seed(seed)
