"""Stop before a broken model overwrites a good checkpoint."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook

from mmlt.errors import InputError
from mmlt.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop the training at the first loss that is NaN or infinite.

    The message names the iteration and the last checkpoint, which is kept.

    Raises:
        InputError: The loss is not finite.
    """

    priority = 'ABOVE_NORMAL'

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Look at the loss of this iteration."""
        loss = (outputs or {}).get('loss')
        if loss is None or torch.isfinite(loss).all():
            return
        last = runner.message_hub.get_info('last_ckpt') if 'last_ckpt' in runner.message_hub.runtime_info else None
        kept = f'the last checkpoint is {last}' if last else 'no checkpoint was written yet'
        raise InputError(
            f'The loss became {loss.item()} at iteration {runner.iter + 1} (epoch {runner.epoch + 1}); training '
            f'stops, {kept}. A smaller learning rate, gradient clipping (optim_wrapper.clip_grad) or full precision '
            'instead of --amp usually help.'
        )
