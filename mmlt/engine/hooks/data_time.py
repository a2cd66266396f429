"""A line where a training waits for its pictures."""

from __future__ import annotations

import time

import torch
from mmengine.hooks import Hook

from mmlt.engine.workers import share_of_cores
from mmlt.registry import HOOKS


@HOOKS.register_module()
class DataTimeHook(Hook):
    """Tell, once, that more than a share of the steps' time is waiting for data.

    The time is the host's, as IterTimerHook's, but evaluations and checkpoints
    between two steps are not waiting, and no wait counts during which a GPU
    still had something to do; it is asked, not waited for. The first steps, in
    which workers and the compiler start, do not count.

    Args:
        share (float): Of the time of a step. Defaults to 0.2.
        interval (int): Steps that are looked at together; the first of them
            are those that do not count. Defaults to 50.
    """

    priority = 'LOWEST'  # after the checkpoint's

    def __init__(self, share: float = 0.2, interval: int = 50):
        self.share, self.interval = share, interval
        self.before_train(None)

    def before_train(self, runner) -> None:
        """A training begins, or goes on."""
        self._steps, self._told = 0, False
        self._waited = self._whole = 0.0
        self._launched: torch.cuda.Event | None = None  # a GPU's mark behind the last step
        self._since = time.perf_counter()

    def before_train_epoch(self, runner) -> None:
        """Wait for the first batch from here on."""
        self._since = time.perf_counter()

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Wait for the next batch from here on."""
        self._since = time.perf_counter()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Data are there."""
        if self._launched is None or self._launched.query():
            self._waited += time.perf_counter() - self._since

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Look at the last steps, every ``interval`` of them."""
        now = time.perf_counter()
        self._whole += now - self._since
        self._since = now
        if self._told:
            return
        if torch.cuda.is_available():
            self._launched = torch.cuda.Event()
            self._launched.record()
        self._steps += 1
        if self._steps % self.interval == 0:
            if self._steps > self.interval:
                self._tell(runner)
            self._waited = self._whole = 0.0

    def _tell(self, runner) -> None:
        if self._waited > self.share * self._whole:
            self._told = True
            workers = getattr(runner.train_dataloader, 'num_workers', 0)
            runner.logger.warning(
                f'Of the {self._whole / self.interval:.3f} s of a step, {self._waited / self.interval:.3f} s '
                f'({self._waited / self._whole:.0%}) are waiting for pictures: {remedy(workers, share_of_cores())}.'
            )


def remedy(workers: int, cores: int) -> str:
    """What makes pictures faster.

    Args:
        workers (int): Processes that read them.
        cores (int): That the training may use.

    Returns:
        str: The end of a sentence.
    """
    if workers < max(1, cores - 1):
        return (
            f'raise train_dataloader.num_workers, which is {workers}, to {max(1, cores - 1)} '
            f'(cores that this process may use: {cores})'
        )
    return (
        f'num_workers is {workers}, and the cores that this process may use are {cores}, so what helps is smaller '
        'pictures on the disk, a faster disk, or more cores'
    )
