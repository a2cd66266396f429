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

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, broadcast, get_world_size
from mmengine.hooks import EMAHook
from mmengine.model import convert_sync_batchnorm
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmlt.errors import InputError
from mmlt.utils import local_part, unwrap

# Names of lists of blocks in open_clip, timm, transformers and MMPretrain, and of the stages of ResNets.
_BLOCKS = ('resblocks', 'blocks', 'layers', 'layer', 'stages')
_STAGE = re.compile(r'layer\d')


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
    _fully_shard()
    return settings


def _fully_shard() -> Callable:
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        fully_shard = None
    if fully_shard is None or 'ignored_params' not in inspect.signature(fully_shard).parameters:
        raise InputError(
            f"parallel='fsdp' needs torch.distributed.fsdp.fully_shard with ignored_params, and torch "
            f"{torch.__version__} has it not: install torch 2.8 or newer, or use parallel='ddp'."
        )
    return fully_shard


def blocks(root: nn.Module) -> list[nn.Module]:
    """Parts of a model that are gathered one after the other, inner ones first.

    Args:
        root (nn.Module): The model.

    Returns:
        list[nn.Module]: Blocks of transformers and of ConvNeXts, stages of
        ResNets; not the rest of the model.
    """
    found = []
    for name, module in root.named_modules():
        last = name.rpartition('.')[2]
        if last in _BLOCKS and isinstance(module, (nn.ModuleList, nn.Sequential)) and _are_blocks(module):
            found += module
        elif _STAGE.fullmatch(last) and isinstance(module, nn.Sequential):
            found.append(module)
    return [module for module in reversed(found) if next(module.parameters(), None) is not None]


def _are_blocks(modules: nn.ModuleList | nn.Sequential) -> bool:
    """Modules of one kind that have parts; MMPretrain calls the layers of an MLP 'layers', too."""
    one = len({type(m) for m in modules}) == 1 and not isinstance(modules[0], (nn.ModuleList, nn.ModuleDict))
    return one and next(modules[0].children(), None) is not None


class ShardedModule:
    """A module that :meth:`restore` makes the plain one again.

    Parameters without dimension, which FSDP cannot split, stay whole in every
    process; their gradients are averaged, and :attr:`parts` has views of them
    that an optimizer can take together with the parts of the others.

    Args:
        module (nn.Module): Plain, with the same values in all processes.
        mesh (DeviceMesh): The processes.
        dtype (torch.dtype, optional): Precision of the blocks where they run;
            the parts, gradients that are summed up, and what is no block stay
            in single precision, and so do blocks with running statistics or
            low-rank parts. Defaults to None, that of the parameters.
        reshard (bool): See :class:`FSDP`. Defaults to True.
    """

    def __init__(self, module: nn.Module, mesh, dtype: torch.dtype | None = None, reshard: bool = True):
        self.module, self.mesh = module, mesh
        self._plain = dict(module.named_parameters(remove_duplicate=False))
        self._before = [(m, type(m), m.__dict__.copy(), _hook_ids(m)) for m in module.modules()]
        self.units = blocks(module)
        whole = {p for p in self._plain.values() if p.ndim == 0}
        self._shard(whole, dtype, reshard)
        added = [(m, set(m.__dict__) - set(own)) for m, _, own, _ in self._before]
        self._added = [(m, names) for m, names in added if names]
        self._handles = []
        self.parts = {self._plain[name]: p for name, p in module.named_parameters(remove_duplicate=False)}
        for p in self.parts:
            if p in whole:
                self.parts[p] = self._view(p)
            else:
                p.data = p.data.new_empty(0)  # kept for restore(); who reads it meanwhile shall not get stale values

    def _shard(self, whole: set[nn.Parameter], dtype: torch.dtype | None, reshard: bool) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, register_fsdp_forward_method

        fully_shard = _fully_shard()
        for parameter in self._plain.values():
            parameter.data = parameter.data.contiguous()  # not channels last, which FSDP cannot split
        for unit in self.units:
            policy = MixedPrecisionPolicy()
            if dtype is not None and _may_run_in(unit):
                # Casts are left to autocast, which is the same computation as without FSDP.
                policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
                unit.forward = _under_autocast(unit.forward, self.mesh.device_type, dtype)
            fully_shard(unit, mesh=self.mesh, reshard_after_forward=reshard, mp_policy=policy, ignored_params=whole)
            unit.run_gathered = _runner(unit, self.mesh.device_type, policy.param_dtype)
            register_fsdp_forward_method(unit, 'run_gathered')
        fully_shard(self.module, mesh=self.mesh, ignored_params=whole)
        self.module.register_forward_hook(_free_without_gradient)

    def _view(self, parameter: nn.Parameter) -> nn.Parameter:
        """The same numbers for an optimizer whose other parameters are in parts."""
        from torch.distributed.tensor import DTensor, Replicate

        def wrap(x: Tensor) -> DTensor:
            return DTensor.from_local(x, self.mesh, [Replicate()], run_check=False)

        view = nn.Parameter(wrap(parameter.data), requires_grad=parameter.requires_grad)

        def average(p: nn.Parameter) -> None:
            torch.distributed.all_reduce(p.grad, group=self.mesh.get_group())
            grad, p.grad = wrap(p.grad / self.mesh.size()), None
            view.grad = grad if view.grad is None else view.grad + grad

        if parameter.requires_grad:
            self._handles.append(parameter.register_post_accumulate_grad_hook(average))
        return view

    @torch.no_grad()
    def restore(self) -> None:
        """Make the module what it was, with the values that it has now, in all processes."""
        reshard(self.module)
        for name, p in self._plain.items():
            owner, _, own = name.rpartition('.')
            owner = self.module.get_submodule(owner)
            if (part := owner._parameters[own]) is not p:
                p.data = part.full_tensor()
                owner._parameters[own] = p
        for handle in self._handles:
            handle.remove()
        for m, kind, own, hooks in self._before:
            m.__class__ = kind
            for name, ids in hooks.items():
                for key in [key for key in m.__dict__[name] if key not in ids]:
                    del m.__dict__[name][key]
            if 'forward' in own:
                m.forward = own['forward']
        for m, names in self._added:
            for name in names:
                m.__dict__.pop(name, None)


def reshard(root: nn.Module) -> None:
    """Free what is gathered; outside of a step parameters are in parts."""
    from torch.distributed.fsdp import FSDPModule

    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _free_without_gradient(root: nn.Module, args, output) -> None:
    if not torch.is_grad_enabled():  # no backward pass will do it
        root.reshard()


def _hook_ids(module: nn.Module) -> dict[str, set]:
    """Hooks of every kind that a module has."""
    return {name: set(own) for name, own in module.__dict__.items() if '_hooks' in name and isinstance(own, dict)}


def _may_run_in(unit: nn.Module) -> bool:
    """Whether a block can have its parameters in half precision."""
    return not any(b.is_floating_point() for b in unit.buffers()) and not any(
        parametrize.is_parametrized(m) for m in unit.modules()
    )


def _under_autocast(forward: Callable, device: str, dtype: torch.dtype) -> Callable:
    """Weights in half precision take inputs of any precision, also where autocast is off."""

    def run(*args, **kwargs):
        with torch.autocast(device, dtype):
            return forward(*args, **kwargs)

    return run


def _runner(unit: nn.Module, device: str, dtype: torch.dtype | None) -> Callable:
    """A method that runs any function on the block; FSDP gathers the block's parameters around it."""

    def run_gathered(function: Callable, *args):
        return function(unit, *args)

    return run_gathered if dtype is None else _under_autocast(run_gathered, device, dtype)


def whole_tensor(value):
    """All of a tensor that is in parts, detached; anything else as it is; all processes call it together."""
    return value.full_tensor().detach() if hasattr(value, 'full_tensor') else value


def gathered(state):
    """Nested values with whole tensors on the CPU in place of parts; all processes call it together."""
    from torch.distributed.tensor import DTensor

    if isinstance(state, DTensor):
        return whole_tensor(state).cpu()
    if isinstance(state, dict):
        return type(state)((k, gathered(v)) for k, v in state.items())
    if isinstance(state, (list, tuple)):
        return type(state)(map(gathered, state))
    return state


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
            InputError: Several optimizers; float16; validation batches that
                are not equally many in all processes.
        """
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise InputError(
                "parallel='fsdp' takes one optimizer, and this optim_wrapper has several: use parallel='ddp'."
            )
        if self._precision(runner) == torch.float16:
            raise InputError(  # MMEngine's scaler looks for infinite gradients in each process by itself
                "parallel='fsdp' has no loss scaling, which float16 needs: train in bfloat16 "
                "(optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16')), or use parallel='ddp'."
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
        for tensor in (*model.parameters(), *model.buffers()):
            broadcast(tensor.data)  # parts of different models would make none
        dtype = self._precision(runner) if mesh.device_type in self.half_on else None
        self._model = ShardedModule(model, mesh, dtype, self.reshard_after_forward)
        _exchange(runner.optim_wrapper.optimizer, self._model.parts, _split_state)
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
        states = [gathered(owner.state_dict()) for owner in owners]
        with ExitStack() as stack:
            for owner, state in zip(owners, states):
                owner.state_dict = lambda *args, state=state, **kwargs: state
                stack.callback(owner.__dict__.pop, 'state_dict')
            yield


def _refresh(averaged: nn.Module) -> None:
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
        p = new.get(p, p)
        optimizer.state[p] = {key: convert(key, value, p) for key, value in state.items()}


def _split_state(key: str, value, part: nn.Parameter):
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
