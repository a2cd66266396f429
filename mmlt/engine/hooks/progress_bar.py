"""A progress bar for training."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mmlt.engine.deferred import on_gpu
from mmlt.registry import HOOKS


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Show a bar with iterations, loss and remaining time while training in a terminal.

    Where the output is no terminal, MMEngine's log lines tell the progress.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._stack: ExitStack | None = None
        self._bar: tqdm | None = None

    def check_run(self, runner) -> None:
        """There is nothing to look at before a training."""

    def before_train(self, runner) -> None:
        """Open the bar at the iteration where training starts."""
        if not is_main_process() or not sys.stderr.isatty():
            return
        self._stack = ExitStack()
        self._stack.enter_context(logging_redirect_tqdm(loggers=[runner.logger]))
        name = runner.cfg.get('stage_name') or 'training'
        self._bar = tqdm(total=runner.max_iters, initial=runner.iter, desc=name, unit='it', leave=False)
        self._stack.callback(self._bar.close)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Move the bar."""
        if self._bar is not None:
            loss = (outputs or {}).get('loss')
            if loss is not None and on_gpu(dict(loss=loss)):  # not waited for: the last one in the log
                loss = runner.message_hub.log_scalars.get('train/loss', loss)
                loss = None if isinstance(loss, Tensor) else loss.current()
            if loss is not None:
                self._bar.set_postfix(loss=f'{float(loss):.3f}', refresh=False)
            self._bar.update()

    def after_train(self, runner) -> None:
        """Close the bar."""
        if self._stack is not None:
            self._stack.close()
            self._stack = self._bar = None
