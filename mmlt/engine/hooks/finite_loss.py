"""Stop before a broken model overwrites a good checkpoint."""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper

from mmlt.checkpoints.weights import not_finite
from mmlt.engine.deferred import DeferredScalars, on_gpu, read_now
from mmlt.errors import InputError
from mmlt.models import MORE
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop the training at the first loss that is NaN or infinite, in all processes.

    The message names the iteration and the last checkpoint, which is kept.

    Raises:
        InputError: A loss is not finite.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self):
        self._watch = LossWatch()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Look at the losses of this iteration."""
        self._watch.look(runner, batch_idx, outputs)


class LossWatch:
    """Stops a training whose losses are not finite.

    On a CPU it looks at every iteration; from a GPU it reads the losses of
    several iterations together (:func:`read_now`), before a checkpoint is
    written, and names the first that is wrong.
    """

    def __init__(self):
        self._pending = DeferredScalars()

    def look(self, runner, batch_idx: int, outputs: dict | None) -> None:
        """Take the losses of an iteration.

        Args:
            runner (Runner): In ``after_train_iter``.
            batch_idx (int): As hooks get it.
            outputs (dict, optional): What the training step returned. All that
                has 'loss' in its name is looked at: where a head names its loss
                'loss', MMEngine's total of that name is lost.

        Raises:
            InputError: A loss, in any process, is not finite.
        """
        losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        if not on_gpu(losses):
            check_losses(runner, losses, runner.iter + 1)
            return
        self._pending.add(runner.iter + 1, losses)
        if not read_now(runner, batch_idx):
            return
        read = self._pending.read()
        wrong = next((r for r in read if not all(map(math.isfinite, r[1].values()))), read[-1])
        check_losses(runner, wrong[1], wrong[0])


def check_losses(runner, losses: dict, iteration: int) -> None:
    """Stop if a loss of an iteration, in any process, is not finite.

    Args:
        runner (Runner): The runner.
        losses (dict): By name.
        iteration (int): Its number, from 1.

    Raises:
        InputError: A loss is not finite.
    """
    losses = {k: torch.as_tensor(v).item() for k, v in losses.items()}
    wrong = {k: v for k, v in losses.items() if not math.isfinite(v)}
    if not in_any_process(bool(wrong)):
        return
    names = {'loss': 'the loss', 'loss_more': "MORE's penalty (loss_more)"}
    found = ' and '.join(f'{names.get(k, f"the loss {k}")} became {v}' for k, v in wrong.items())
    stop(runner, found or 'a loss of another process became NaN or infinite', iteration)


def check_weights(runner, iteration: int) -> None:
    """Stop if a weight or running statistic, in any process, is not finite.

    Args:
        runner (Runner): The runner.
        iteration (int): Iterations done.

    Raises:
        InputError: A weight is not finite.
    """
    name = not_finite(unwrap(runner.model).state_dict())
    if in_any_process(name is not None):
        stop(runner, f'the weights became NaN or infinite ({name or "those of another process"})', iteration)


def in_any_process(flag: bool) -> bool:
    """Whether the flag is set in any process, so that all of them stop together."""
    if get_world_size() == 1:
        return flag
    flags = torch.tensor(float(flag))
    all_reduce(flags, 'max')
    return bool(flags)


def stop(runner, found: str, iteration: int) -> NoReturn:
    """End a diverged training with a sentence.

    Args:
        runner (Runner): The runner.
        found (str): What is not finite.
        iteration (int): Iterations done.

    Raises:
        InputError: Always.
    """
    last = runner.message_hub.get_info('last_ckpt') if 'last_ckpt' in runner.message_hub.runtime_info else None
    kept = f'the last checkpoint is {last}' if last else 'no checkpoint was written yet'
    raise InputError(
        f'{found[0].upper()}{found[1:]} at iteration {iteration} (epoch {runner.epoch + 1}); training stops, {kept}. '
        f'{_remedies(runner)}'
    )


def _remedies(runner) -> str:
    model, wrapper = getattr(runner, 'model', None), getattr(runner, 'optim_wrapper', None)
    model = model if model is None else unwrap(model)
    if not isinstance(model, MORE):
        return (
            'A smaller learning rate, gradient clipping (optim_wrapper.clip_grad) or full precision instead of --amp '
            'usually help.'
        )
    # Only what is not set already; those that held for all seeds of tools/benchmarks/more_divergence.py.
    remedies = []
    norm = (getattr(wrapper, 'clip_grad_kwargs', None) or {}).get('max_norm', math.inf)
    if norm > 5:
        remedies.append('optim_wrapper.clip_grad=dict(max_norm=5)')
    rate = max((group['lr'] for group in getattr(wrapper, 'param_groups', ())), default=math.inf)
    remedies.append('a learning rate of at most 0.02' if rate > 0.02 else f'a learning rate below {rate:.1g}')
    if model.peak > 0.2:
        remedies.append('model.peak=0.2')
    if isinstance(wrapper, AmpOptimWrapper):
        remedies.append('full precision instead of --amp')
    return f'One of these helps: {", ".join(remedies)}.'
