"""Numbers of a training that are read from a GPU together, so that no step waits for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.hooks import CheckpointHook, LoggerHook
from torch import Tensor


class DeferredScalars:
    """Keeps scalars where they are until somebody needs them.

    A step that asks a GPU for a number waits for all work that was launched
    before, and the GPU then waits for the next launches.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[int, tuple[str, ...], Tensor]] = []

    def add(self, iteration: int, values: Mapping[str, Tensor | float]) -> None:
        """Keep the scalars of an iteration; nothing is read.

        Args:
            iteration (int): Its number, for :meth:`read`.
            values (Mapping[str, Tensor | float]): Scalars by name.
        """
        if not values:
            return
        tensors = [torch.as_tensor(value).detach().double().reshape(()) for value in values.values()]
        device = next((t.device for t in tensors if t.device.type != 'cpu'), tensors[0].device)
        kept = torch.stack([t.to(device, non_blocking=True) for t in tensors])
        self._kept.append((iteration, tuple(values), kept))

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """All that was kept, in order, which is then forgotten; waits once."""
        kept, self._kept = self._kept, []
        if not kept:
            return []
        numbers = iter(torch.cat([values for *_, values in kept]).tolist())
        return [(iteration, {name: next(numbers) for name in names}) for iteration, names, _ in kept]


def on_gpu(values: Mapping[str, Tensor | float]) -> bool:
    """Whether reading one of the scalars would wait for a GPU."""
    return any(isinstance(value, Tensor) and value.device.type != 'cpu' for value in values.values())


def read_now(runner, batch_idx: int) -> bool:
    """Whether this iteration's numbers are looked at: by the log, a checkpoint, or at the end of an epoch.

    Args:
        runner (Runner): In ``after_train_iter``.
        batch_idx (int): As hooks get it.

    Returns:
        bool: The same in all processes.
    """
    done = runner.iter + 1
    intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)] or [10]
    length = getattr(runner, 'max_iters', None)
    ends = done == length or batch_idx + 1 == _length(runner.train_dataloader)
    return ends or saves(runner) or any((batch_idx + 1) % n == 0 or done % n == 0 for n in intervals)


def _length(loader) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None


def saves(runner) -> bool:
    """Whether a checkpoint is written after this iteration."""
    return any(
        isinstance(hook, CheckpointHook)
        and not hook.by_epoch
        and hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        for hook in runner.hooks
    )
