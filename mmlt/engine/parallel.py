"""Trainings in parts: FSDP2 (``torch.distributed.fsdp.fully_shard``) as a config's ``parallel``.

Between two training steps every process holds its part of each parameter, of
its gradient and of its optimizer state; a block's whole parameters are gathered
where it runs, and freed again. The model is taken apart after everything that
stands before the first step (class texts, pretrained weights, checkpoints,
feature caches), and put together before what stands after the last one (merging,
anchor selection, exports, tests): those see a plain model. Checkpoints are
written whole, under the plain names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, broadcast, get_world_size, is_main_process
from mmengine.hooks import EMAHook
from mmengine.model import BaseAveragedModel, convert_sync_batchnorm
from mmengine.optim import OptimWrapperDict
from torch import nn

from mmlt.engine.sharding import ShardedModule, find_fully_shard, gathered, reshard, whole_tensor
from mmlt.errors import InputError
from mmlt.models import ImageTower
from mmlt.utils import local_part, unwrap

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def parallel_settings(cfg: Config) -> dict | None:
    """What a config's ``parallel`` asks for.

    Args:
        cfg (Config): ``parallel`` is 'ddp' (or absent), 'fsdp', or a dict with
            ``type`` and the arguments of :class:`FSDP`.

    Returns:
        dict | None: Arguments of :class:`FSDP`, None for DDP.

    Raises:
        InputError: Neither of them; an argument that FSDP has not; FSDP with
            settings that contradict it, or a torch without it.
    """
    given = cfg.get('parallel') or 'ddp'
    settings = dict(given) if isinstance(given, dict) else dict(type=given)
    kind = settings.pop('type', None)
    if kind not in ('ddp', 'fsdp') or (kind == 'ddp' and settings):
        raise InputError(
            f"parallel is {given!r}; give 'ddp', 'fsdp', or dict(type='fsdp', ...) with the arguments of FSDP."
        )
    if kind == 'ddp':
        return None
    known = list(inspect.signature(FSDP).parameters)
    if unknown := [name for name in settings if name not in known]:
        raise InputError(f"parallel: FSDP does not know '{unknown[0]}'; it takes {', '.join(known)}.")
    if cfg.get('compile'):
        raise InputError(
            "parallel='fsdp' gathers parameters around every block, which compile, of the whole step, cannot see: "
            'leave compile out, and compile the blocks of the towers instead.'
        )
    if cfg.get('model_wrapper_cfg'):
        raise InputError(
            "model_wrapper_cfg is of a wrapper such as DDP, and parallel='fsdp' has none: leave one of them out."
        )
    find_fully_shard()
    return settings


class FSDP:
    """Fully sharded data parallel training, of a :class:`Runner`.

    Args:
        reshard_after_forward (bool): Free a block's parameters after its
            forward pass and gather them again for its backward pass; False
            needs memory for all of them, and less time. Defaults to True.
    """

    # Of these devices only autocast takes layer norms with weights in half precision and inputs in single precision.
    half_on = ('cuda',)

    def __init__(self, reshard_after_forward: bool = True):
        self.reshard_after_forward = reshard_after_forward
        self._model: ShardedModule | None = None
        self._averaged: list[tuple[EMAHook, ShardedModule]] = []

    @staticmethod
    def place(model: nn.Module, sync_bn: str | None = None) -> nn.Module:
        """Put the whole model on the device, as it is trained by now by nobody."""
        model = model.to(get_device())
        return model if sync_bn is None else convert_sync_batchnorm(model, sync_bn)

    def check(self, runner) -> None:
        """Refuse, before a training, what would not be right.

        Raises:
            InputError: Several optimizers; loss scaling; validation batches that
                are not equally many in all processes.
        """
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise InputError(
                "parallel='fsdp' takes one optimizer, and this optim_wrapper has several: use parallel='ddp'."
            )
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if self._precision(runner) == torch.float16 or (scaler is not None and scaler.is_enabled()):
            # A scaler looks for infinite gradients in its own process's parts: scales and weights would part.
            raise InputError(
                "parallel='fsdp' has no loss scaling, which float16 needs and AmpOptimWrapper does: train in bfloat16, "
                "optim_wrapper.type='mmlt.BFloat16OptimWrapper', or use parallel='ddp'."
            )
        loop = runner._val_loop
        if hasattr(loop, 'dataloader'):
            numbers = all_gather_object(len(loop.dataloader))
            if len(set(numbers)) > 1:
                raise InputError(
                    "parallel='fsdp' gathers parameters in all processes together, but they have "
                    f'{", ".join(map(str, numbers))} batches to validate: set val_dataloader.sampler.round_up=True.'
                )

    @staticmethod
    def _precision(runner) -> torch.dtype | None:
        """The precision of the run's autocast, None without."""
        device = torch.device(get_device()).type
        with runner.optim_wrapper.optim_context(runner.model):
            return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

    def enter(self, runner) -> None:
        """Take the model apart: what follows are training steps."""
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh(torch.device(get_device()).type, (get_world_size(),))
        model = unwrap(runner.model)
        for module in model.modules():
            if isinstance(module, ImageTower):
                module.prepare(torch.device(get_device()))  # layout and compiled blocks, before parameters are split
        for tensor in (*model.parameters(), *model.buffers()):
            broadcast(tensor.data)  # parts of different models would make none
        dtype = self._precision(runner) if mesh.device_type in self.half_on else None
        self._model = ShardedModule(model, mesh, dtype, self.reshard_after_forward)
        _exchange(runner.optim_wrapper.optimizer, self._model.parts, _split_state)
        if (clip := getattr(runner.optim_wrapper, 'clip_func', None)) is not None:
            runner.optim_wrapper.clip_func = _with_whole_result(clip)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                self._averaged.append((hook, ShardedModule(hook.ema_model.module, mesh)))
                _refresh(hook.ema_model)
        parts = self._model.parts.values()
        total, own = (sum(p.numel() for p in ps) / 1e6 for ps in (parts, map(local_part, parts)))
        runner.logger.info(
            f'FSDP: {len(self._model.units)} blocks and the rest of the model in parts over {mesh.size()} processes, '
            f'{own:.3g} of {total:.3g} million parameters in this one'
        )

    def leave(self, runner) -> None:
        """Put the model together: what follows sees a plain one."""
        if self._model is None:
            return
        self._model.restore()
        plain = {part: p for p, part in self._model.parts.items()}
        _exchange(runner.optim_wrapper.optimizer, plain, lambda key, value, part: whole_tensor(value))
        if (clip := getattr(runner.optim_wrapper, 'clip_func', None)) is not None:
            runner.optim_wrapper.clip_func = clip.__wrapped__
        for hook, module in self._averaged:
            module.restore()
            _refresh(hook.ema_model)
        self._model, self._averaged = None, []

    @contextmanager
    def whole(self, runner, optimizer: bool = True) -> Iterator[None]:
        """Inside, state dicts of model, optimizer and averaged models are whole; all processes enter it together."""
        if self._model is None:
            yield
            return
        for module in (self._model, *(averaged for _, averaged in self._averaged)):
            reshard(module.module)
        owners = [self._model.module, *(hook.ema_model for hook, _ in self._averaged)]
        if optimizer:
            owners.append(runner.optim_wrapper)
        states = [gathered(owner.state_dict(), is_main_process()) for owner in owners]
        with ExitStack() as stack:
            for owner, state in zip(owners, states):
                owner.state_dict = lambda *args, state=state, **kwargs: state
                stack.callback(owner.__dict__.pop, 'state_dict')
            yield


def _with_whole_result(clip: Callable) -> Callable:
    """The norm of gradients in parts as a plain tensor, for the log."""

    @functools.wraps(clip)
    def run(*args, **kwargs):
        return whole_tensor(clip(*args, **kwargs))

    return run


def _refresh(averaged: BaseAveragedModel) -> None:
    """An averaged model keeps its parameters in a dict, too."""
    module = averaged.module
    averaged.avg_parameters = module.state_dict() if averaged.update_buffers else dict(module.named_parameters())


def _exchange(optimizer: torch.optim.Optimizer, new: dict[nn.Parameter, nn.Parameter], convert: Callable) -> None:
    """Give an optimizer other parameters in place of its own, and their state by ``convert(key, value, parameter)``."""
    for group in optimizer.param_groups:
        group['params'] = [new.get(p, p) for p in group['params']]
    states = list(optimizer.state.items())
    optimizer.state.clear()
    for p, state in states:
        p = new.get(p, p)  # type: ignore[call-overload]  # parameters, which torch's types call tensors
        optimizer.state[p] = {key: convert(key, value, p) for key, value in state.items()}


def _split_state(key: str, value, part: DTensor):
    """The part of an optimizer's state that belongs to the part of a parameter."""
    from torch.distributed.tensor import distribute_tensor

    if not torch.is_tensor(value) or key == 'step':
        return value
    if value.shape != part.shape:
        raise InputError(
            f"The optimizer's state '{key}' has shape {tuple(value.shape)} for a parameter of shape "
            f"{tuple(part.shape)}, which parallel='fsdp' cannot split: take AdamW or SGD, or parallel='ddp'."
        )
    return distribute_tensor(value, part.device_mesh, part.placements)
