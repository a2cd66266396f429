"""Batches that fit the data, on any number of processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather, get_world_size
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from mmlt.errors import InputError


def draws(loader: DataLoader) -> int | None:
    """Pictures that this process gets an epoch; None where batches are made otherwise, or without end."""
    if loader.batch_size is None or isinstance(loader.sampler, InfiniteSampler):
        return None
    try:
        return len(loader.sampler)  # type: ignore[arg-type]
    except TypeError:
        return None


def fit_batches(build: Callable[[dict | DataLoader], DataLoader], config: dict | DataLoader) -> DataLoader:
    """Build the dataloader of a training; where it drops incomplete batches, none is larger than a process's share.

    Without this, a batch of 64 in each of two processes leaves no batch at all
    of 90 pictures, and a training of no steps.

    Args:
        build (Callable): From a config to a dataloader, the same in all
            processes.
        config (dict | DataLoader): Of a ``train_dataloader``.

    Returns:
        DataLoader: With the config's batch size, or a smaller one, which is
        told.

    Raises:
        InputError: A process gets no pictures, or another number of batches
            than the others, which would wait for it for ever; a given
            dataloader, or batch sampler, has no batch.
    """
    loader = build(config)
    own = draws(loader)
    if own is None:
        if not isinstance(loader.sampler, InfiniteSampler) and hasattr(loader, '__len__') and len(loader) == 0:
            raise InputError('train_dataloader has no batch: its batches are larger than the data, or there are none.')
        return loader
    shares = [int(n) for n in all_gather(torch.tensor([own]))]
    fewest, size = min(shares), loader.batch_size
    if fewest == 0:
        raise InputError(
            f'train_dataloader: of {len(loader.dataset)} pictures, one of the {get_world_size()} processes gets none: '  # type: ignore[arg-type]
            'train on fewer processes, or set round_up=True in its sampler.'
        )
    if loader.drop_last and fewest < size:
        if isinstance(config, DataLoader):
            raise InputError(
                f'train_dataloader drops incomplete batches, and a process gets {fewest} pictures, fewer than '
                f'batch_size={size}: make it at most {fewest}.'
            )
        print_log(
            f'train_dataloader: each of {get_world_size()} processes gets {fewest} pictures an epoch, fewer than '
            f'batch_size={size}: the batch is {fewest}, so that none is dropped.',
            logger='current',
            level=30,
        )
        size = fewest
        rest = {k: v for k, v in config.items() if k != 'num_batch_per_epoch'}  # the dataset is cut to it already
        loader = build({**rest, 'dataset': loader.dataset, 'batch_size': size})
    batches = {n // size if loader.drop_last else n for n in shares}
    if len(batches) > 1:
        raise InputError(
            f'train_dataloader: the processes get {max(shares)} and {fewest} pictures an epoch, and would wait for '
            'each other: set round_up=True in its sampler.'
        )
    return loader


def check_evaluated(loader: DataLoader, name: str) -> None:
    """Raise an InputError where a validation or test would leave out pictures.

    Args:
        loader (DataLoader): That of the loop.
        name (str): Its name in a config.
    """
    own = draws(loader) if isinstance(loader, DataLoader) else None
    if own is not None and loader.drop_last and own % loader.batch_size:
        raise InputError(
            f'{name}.drop_last=True would leave out {own % loader.batch_size} of the {own} pictures of a process, and '
            'the figures would not be of the whole split: set it to False.'
        )
