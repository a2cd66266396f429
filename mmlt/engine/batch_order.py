"""Batches that know their place in a training, so that an interrupted one goes on with the batch that comes next.

What a worker process draws at random, such as crops, follows from the seed and
the batch's place alone, not from what the worker did before. A training that
goes on then sees what it would have seen, without making anew the batches that
it has had.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, get_worker_info


class _Batch(list):
    """Indices of a batch, and its place: the pass over the data, and its number in it."""

    place = (0, 0)


class PlacedBatches:
    """A batch sampler whose batches know their places.

    Args:
        batches (Sampler): The batch sampler that gives the indices; all its
            other attributes are this one's, too.
    """

    def __init__(self, batches):
        self.batches = batches
        self.passes = 0  # begun so far; the next one's number
        self.skip = 0  # batches to leave out at the beginning of the next pass

    def __getattr__(self, name: str):
        if name.startswith('__') or name == 'batches':
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[_Batch]:
        number, first = self.passes, self.skip
        self.passes, self.skip = number + 1, 0
        return self._placed(number, first)

    def _placed(self, number: int, first: int) -> Iterator[_Batch]:
        for i, indices in islice(enumerate(self.batches), first, None):
            batch = _Batch(indices)
            batch.place = (number, i)
            yield batch


class _SeededFetches:
    """In a worker: all that a batch draws follows from its place."""

    def __init__(self, dataset, fetch: Callable | None, seed: list[int]):
        self.dataset, self.fetch, self.seed = dataset, fetch, seed

    def __call__(self, indices: list[int]) -> list:
        words = np.random.SeedSequence([*self.seed, *indices.place]).generate_state(3)
        first, second, third = (int(word) for word in words)
        random.seed(first)
        np.random.seed(second)
        torch.default_generator.manual_seed(third)
        return [self.dataset[i] for i in indices] if self.fetch is None else self.fetch(indices)


def _start_worker(worker_id: int, before: Callable | None, seed: list[int]) -> None:
    if before is not None:
        before(worker_id)
    dataset = get_worker_info().dataset  # this process's own copy
    dataset.__getitems__ = _SeededFetches(dataset, getattr(dataset, '__getitems__', None), seed)


def place_batches(loader, seed: int) -> bool:
    """Have a dataloader's batches know their places, and its workers draw by them.

    Args:
        loader (DataLoader): Iterators that it gave before are not changed.
        seed (int): Of the training.

    Returns:
        bool: Whether anything was changed; not where it was done before, or
        where the loader gives no batches.
    """
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return False
    if isinstance(loader.batch_sampler, PlacedBatches):
        return False
    # The loader refuses another batch sampler by an ordinary assignment, since an iterator may know the old one.
    object.__setattr__(loader, 'batch_sampler', PlacedBatches(loader.batch_sampler))
    rank = get_rank()
    loader.worker_init_fn = partial(_start_worker, before=loader.worker_init_fn, seed=[seed, rank])
    # Otherwise every start of workers would take a number of those that the model draws.
    loader.generator = torch.Generator()
    loader.generator.manual_seed(seed + rank)
    return True


class ResumedIterator:
    """What a training by iterations takes its batches from when it goes on.

    MMEngine's loop asks for all batches that it has had, which would load them
    again; here these cost nothing, and the first one that is needed is the
    next in the order.

    Args:
        kind (type): MMEngine's endless iterator over a dataloader.
        loader (DataLoader): See :func:`place_batches`.
        done (int): Batches that were had.
    """

    def __init__(self, kind: type, loader: DataLoader, done: int):
        batches = loader.batch_sampler
        try:
            length = len(loader) if hasattr(loader.sampler, 'epoch') else 0  # 0: the sampler never ends
        except TypeError:
            length = 0
        batches.passes, batches.skip = divmod(done, length) if length else (0, done)
        if length and hasattr(loader.sampler, 'set_epoch'):
            loader.sampler.set_epoch(batches.passes)
        number = batches.passes
        self.endless = kind(loader)
        self.endless._epoch = number
        self.left = done

    def __iter__(self):
        return self

    def __next__(self):
        if self.left:
            self.left -= 1
            return None
        return next(self.endless)
