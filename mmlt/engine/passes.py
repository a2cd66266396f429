"""Epochs in a training by iterations: passes over the training images."""

from __future__ import annotations

import math

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.runner import EpochBasedTrainLoop


def by_epoch(runner) -> bool:
    """Whether the training counts epochs, and not iterations."""
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def pass_length(loader) -> int | None:
    """Iterations in which every process has had its part of all images once.

    Args:
        loader (DataLoader): Of the training.

    Returns:
        int | None: None where it is not known.
    """
    sampler = getattr(loader, 'sampler', None)
    if isinstance(sampler, InfiniteSampler):  # its length is that of the dataset, whatever the number of processes
        return math.ceil(len(loader.dataset) / (loader.batch_size * get_world_size()))
    try:
        return len(loader) or None
    except TypeError:
        return None


def count_epochs(runner) -> int | None:
    """Epochs of the whole training; of one by iterations, its passes over the images, the last perhaps not whole.

    Args:
        runner (Runner): With its train loop built.

    Returns:
        int | None: None where it is not known.
    """
    if by_epoch(runner):
        return runner.max_epochs
    length = pass_length(runner.train_dataloader)
    return None if length is None else math.ceil(runner.max_iters / length)


def current_epoch(runner, iteration: int | None = None) -> int | None:
    """The epoch, from 0, that a training is in; of one by iterations, the pass.

    Args:
        runner (Runner): With its train loop built.
        iteration (int, optional): From 0; for a training by iterations.
            Defaults to None, the next one.

    Returns:
        int | None: None where it is not known.
    """
    if by_epoch(runner):
        return runner.epoch
    length = pass_length(runner.train_dataloader)
    return None if length is None else (runner.iter if iteration is None else iteration) // length
