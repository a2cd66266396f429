"""MMEngine's RuntimeInfoHook without a wait at every step."""

from __future__ import annotations

from mmengine.hooks import RuntimeInfoHook as MMEngineRuntimeInfoHook

from mmlt.engine.deferred import DeferredScalars, on_gpu, read_now
from mmlt.registry import HOOKS


@HOOKS.register_module()
class RuntimeInfoHook(MMEngineRuntimeInfoHook):
    """MMEngine's; losses on a GPU are read when the log is written, all at once.

    :class:`Runner` has it in place of MMEngine's. The log and the checkpoints
    hold the same numbers.
    """

    def __init__(self):
        self._pending = DeferredScalars()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Keep the losses of this iteration."""
        outputs = {**(outputs or {}), **_gradient_norm(runner.optim_wrapper)}
        if not on_gpu(outputs):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
            return
        self._pending.add(runner.iter, outputs)
        if read_now(runner, batch_idx):
            for _, values in self._pending.read():
                super().after_train_iter(runner, batch_idx, data_batch, values)


def _gradient_norm(wrapper) -> dict:
    """The norm that an optimizer wrapper of this project clipped gradients by, not read yet."""
    norm = getattr(wrapper, 'gradient_norm', None)
    return {} if norm is None else {wrapper.grad_name: norm}
