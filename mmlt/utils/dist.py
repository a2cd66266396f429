"""What processes tell each other, and the end of a distributed run."""

from __future__ import annotations

import time
from weakref import WeakKeyDictionary

import torch
import torch.distributed as torch_dist
from mmengine.dist import all_gather as all_gather_plain
from mmengine.dist import barrier, get_world_size, is_distributed
from torch import Tensor

from mmlt.errors import InputError

# Of every default group whose own backend cannot send from the host's memory, one that can.
_HOST_GROUPS: WeakKeyDictionary = WeakKeyDictionary()


def gather(x: Tensor, check: bool = True) -> Tensor:
    """Concatenate a tensor over all processes, without gradients.

    Args:
        x (Tensor): Shape (N, ...), with the same N in every process.
        check (bool): Compare the sizes first; False after
            :func:`check_sizes`. Defaults to True.

    Returns:
        Tensor: Shape (world size * N, ...), in the order of ranks; ``x``
        itself without distributed training.

    Raises:
        InputError: The processes hold batches of different sizes.
    """
    if not is_distributed() or get_world_size() == 1:
        return x
    if check:
        check_sizes(x)
    return torch.cat(all_gather_plain(x.contiguous()))


def check_sizes(*tensors: Tensor) -> None:
    """Refuse tensors of other sizes than those of the other processes; without distributed training nothing.

    The sizes are told from host to host: no process waits for its GPU.

    Args:
        *tensors (Tensor): What is going to be gathered, each of shape (N, ...).

    Raises:
        InputError: The processes hold batches of different sizes.
    """
    if not is_distributed() or get_world_size() == 1:
        return
    sizes = [torch.zeros(len(tensors), dtype=torch.long) for _ in range(get_world_size())]
    torch_dist.all_gather(sizes, torch.tensor([len(x) for x in tensors]), group=_host_group())
    for of_tensor in torch.stack(sizes, 1).tolist():
        if len(set(of_tensor)) > 1:
            raise InputError(
                'A loss over the global batch needs equal batches in all processes, but they are '
                f'{of_tensor}: set drop_last=True in train_dataloader.'
            )


def _host_group():
    """A group that sends from the host's memory, made once; None is the default one."""
    if 'cpu:' in torch_dist.get_backend_config():
        return None
    world = torch_dist.group.WORLD
    if world not in _HOST_GROUPS:
        _HOST_GROUPS[world] = torch_dist.new_group(backend='gloo')
    return _HOST_GROUPS[world]


def local_part(x: Tensor) -> Tensor:
    """This process's part of a tensor that is split over the processes; any other tensor as it is."""
    return x.to_local() if hasattr(x, 'to_local') else x


def leave_together() -> None:
    """Wait for all processes, and end their group; without distributed training nothing.

    A process that simply exits while others still write may be aborted.
    """
    if is_distributed():
        barrier()
        # torch 2.6 ends gloo's threads while it holds the interpreter's lock, which they need to free a tensor.
        time.sleep(0.1)
        torch_dist.destroy_process_group()
