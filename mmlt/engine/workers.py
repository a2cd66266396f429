"""How many processes read pictures: as the machine has cores."""

from __future__ import annotations

import functools
import os

import torch
from mmengine.dist import get_world_size, is_distributed
from mmengine.logging import MMLogger
from mmengine.runner import Runner as MMEngineRunner

from mmlt.errors import InputError

_MOST = 16  # per process of a training; more than a GPU can use of them only takes memory


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def share_of_cores() -> int:
    """Cores that this process may use when the other processes of the training on this machine get as many."""
    if (of_task := os.environ.get('SLURM_CPUS_PER_TASK', '')).isdigit():
        return max(1, min(cores(), int(of_task)))  # Slurm has shared them out
    if not is_distributed():
        return cores()
    here = os.environ.get('LOCAL_WORLD_SIZE') or min(get_world_size(), torch.cuda.device_count() or get_world_size())
    return max(1, cores() // int(here))


def num_workers(value: int | str) -> int:
    """Read the setting ``num_workers`` of a dataloader.

    With ``'auto'`` a GPU's process leaves one of its cores to itself and reads
    pictures with all others, 16 at most. On a CPU, where the model needs the
    cores, a quarter reads, one at least.

    Args:
        value (int | str): A number, or 'auto'.

    Returns:
        int: Not negative.

    Raises:
        InputError: Something else.
    """
    if value == 'auto':
        share = share_of_cores()
        return min(_MOST, max(1, share - 1 if torch.cuda.is_available() else share // 4))
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(
            f"num_workers is {value!r}; give a number of processes, 0 for none beside the training, or 'auto'."
        )
    return value


def with_workers(dataloader: dict) -> dict:
    """A dataloader's config whose ``num_workers`` is a number; what goes with workers only is left out where none are.

    Args:
        dataloader (dict): As of ``train_dataloader``.

    Returns:
        dict: A copy.
    """
    if 'num_workers' not in dataloader:
        return dataloader
    workers = num_workers(dataloader['num_workers'])
    if dataloader['num_workers'] == 'auto':
        _tell(MMLogger.get_current_instance(), workers, share_of_cores())
    # torch refuses these without workers.
    without = () if workers else ('persistent_workers', 'prefetch_factor')
    return {**{k: v for k, v in dataloader.items() if k not in without}, 'num_workers': workers}


@functools.lru_cache(maxsize=1)  # of training, validation and test it is one line
def _tell(logger: MMLogger, workers: int, share: int) -> None:
    logger.info(f"num_workers='auto': {workers} to read pictures, of the {share} cores that this process may use.")


def end_workers(runner: MMEngineRunner) -> None:
    """End the persistent workers of a runner's dataloaders, which live on in later stages or after a call from Python.

    The garbage collector ends them at any time, and then waits five seconds for each: it has closed the queue by which
    they would be told before.

    Args:
        runner (Runner): Which has no more to read for now; it starts others
            where it has.
    """
    loops = (getattr(runner, f'_{name}_loop', None) for name in ('train', 'val', 'test'))
    for loader in (getattr(loop, 'dataloader', None) for loop in loops):
        if (iterator := getattr(loader, '_iterator', None)) is not None and hasattr(iterator, '_shutdown_workers'):
            iterator._shutdown_workers()
            loader._iterator = None  # type: ignore[union-attr]


def accept_auto_workers() -> None:
    """Let every runner of MMEngine take ``num_workers='auto'``: that of the stock tools, too."""
    build = MMEngineRunner.build_dataloader
    if getattr(build, 'accepts_auto_workers', False):
        return

    @functools.wraps(build)
    def build_dataloader(dataloader, *args, **kwargs):
        return build(with_workers(dataloader) if isinstance(dataloader, dict) else dataloader, *args, **kwargs)

    build_dataloader.accepts_auto_workers = True  # type: ignore[attr-defined]
    MMEngineRunner.build_dataloader = staticmethod(build_dataloader)
