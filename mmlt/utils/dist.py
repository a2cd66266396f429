"""Collectives with gradients, and the end of a distributed run."""

from __future__ import annotations

import torch
import torch.distributed.nn.functional as dist_nn
from mmengine.dist import all_gather as all_gather_plain
from mmengine.dist import barrier, get_world_size, is_distributed
from torch import Tensor

from mmlt.errors import InputError


def gather(x: Tensor) -> Tensor:
    """Concatenate a tensor over all processes, without gradients.

    Args:
        x (Tensor): Shape (N, ...), with the same N in every process.

    Returns:
        Tensor: Shape (world size * N, ...), in the order of ranks; ``x``
        itself without distributed training.

    Raises:
        InputError: The processes hold batches of different sizes.
    """
    if not is_distributed() or get_world_size() == 1:
        return x
    _check_sizes(x)
    return torch.cat(all_gather_plain(x.contiguous()))


def gather_with_grad(x: Tensor) -> Tensor:
    """Concatenate a tensor over all processes; gradients flow back, summed.

    Every process computes its own part of a loss over the global batch. With
    the local mean as loss, DDP's averaging then gives exactly the gradient of
    one process on the global batch.

    Args:
        x (Tensor): See :func:`gather`.

    Returns:
        Tensor: See :func:`gather`.

    Raises:
        InputError: The processes hold batches of different sizes.
    """
    if not is_distributed() or get_world_size() == 1:
        return x
    _check_sizes(x)
    return torch.cat(dist_nn.all_gather(x.contiguous()))


def _check_sizes(x: Tensor) -> None:
    sizes = all_gather_plain(torch.tensor([len(x)], device=x.device))
    if len({int(s) for s in sizes}) > 1:
        raise InputError(
            'A loss over the global batch needs equal batches in all processes, but they are '
            f'{[int(s) for s in sizes]}: set drop_last=True in train_dataloader.'
        )


def local_part(x: Tensor) -> Tensor:
    """This process's part of a tensor that is split over the processes; any other tensor as it is."""
    return x.to_local() if hasattr(x, 'to_local') else x


def leave_together() -> None:
    """Wait for all processes, and end their group; without distributed training nothing.

    A process that simply exits while others still write may be aborted.
    """
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()
