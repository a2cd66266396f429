"""A line where a training waits for its pictures."""

from __future__ import annotations

from mmengine.hooks import Hook

from mmlt.engine.workers import share_of_cores
from mmlt.registry import HOOKS


@HOOKS.register_module()
class DataTimeHook(Hook):
    """Tell, once, that more than a share of the steps' time is waiting for data.

    It reads the times that MMEngine's IterTimerHook measures. The first steps,
    in which workers and the compiler start, do not count.

    Args:
        share (float): Of the time of a step. Defaults to 0.2.
        interval (int): Steps that are looked at together. Defaults to 50.
    """

    priority = 'LOW'

    def __init__(self, share: float = 0.2, interval: int = 50):
        self.share, self.interval = share, interval
        self._steps, self._told = 0, False

    def before_train(self, runner) -> None:
        """A training begins, or goes on."""
        self._steps, self._told = 0, False

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Look at the last steps, every ``interval`` of them."""
        self._steps += 1
        if self._told or self._steps % self.interval or self._steps < 2 * self.interval:
            return
        scalars = runner.message_hub.log_scalars
        if 'train/data_time' not in scalars or 'train/time' not in scalars:
            return  # nobody measures
        waiting, whole = (scalars[f'train/{name}'].mean(self.interval) for name in ('data_time', 'time'))
        if waiting > self.share * whole:
            self._told = True
            runner.logger.warning(
                f'Of the {whole:.3f} s of a step, {waiting:.3f} s ({waiting / whole:.0%}) are waiting for pictures: '
                f'{remedy(getattr(runner.train_dataloader, "num_workers", 0), share_of_cores())}.'
            )


def remedy(workers: int, cores: int) -> str:
    """What makes pictures faster.

    Args:
        workers (int): Processes that read them.
        cores (int): That the training may use.

    Returns:
        str: The end of a sentence.
    """
    if workers < cores - 1 or not workers:
        return (
            f'raise train_dataloader.num_workers, which is {workers}, to {max(1, cores - 1)} '
            f'(this process may use {cores} cores)'
        )
    return (
        f'{workers} processes read them on {cores} cores, so smaller files help (for 224 px pictures of 320 px on the '
        'shorter side lose little), or a faster disk'
    )
