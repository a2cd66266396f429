"""Modules whose parameters are in parts, one a process, by FSDP2 (``torch.distributed.fsdp.fully_shard``)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from mmlt.errors import InputError

# Names of lists of blocks in open_clip, timm, transformers and MMPretrain, and of the stages of ResNets.
_BLOCKS = ('resblocks', 'blocks', 'layers', 'layer', 'stages')
_STAGE = re.compile(r'layer\d')


def find_fully_shard() -> Callable:
    """PyTorch's ``fully_shard``.

    Raises:
        InputError: This torch has none, or an early one.
    """
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
    found: list[nn.Module] = []
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
        self._before = [(m, type(m), m.__dict__.get('forward'), _hook_ids(m)) for m in module.modules()]
        names = [set(m.__dict__) for m in module.modules()]
        self.units = blocks(module)
        whole = {p for p in self._plain.values() if p.ndim == 0}
        self._shard(whole, dtype, reshard)
        self._added = [(m, set(m.__dict__) - own) for m, own in zip(module.modules(), names)]
        self._handles: list[RemovableHandle] = []
        self.parts = {self._plain[name]: p for name, p in module.named_parameters(remove_duplicate=False)}
        for p in self.parts:
            if p in whole:
                self.parts[p] = self._view(p)
            else:
                p.data = p.data.new_empty(0)  # kept for restore(); who reads it meanwhile shall not get stale values

    def _shard(self, whole: set[nn.Parameter], dtype: torch.dtype | None, reshard: bool) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, register_fsdp_forward_method

        fully_shard = find_fully_shard()
        for parameter in self._plain.values():
            parameter.data = parameter.data.contiguous()  # not channels last, which FSDP cannot split
        for unit in self.units:
            policy = MixedPrecisionPolicy()
            if dtype is not None and _may_run_in(unit):
                # Casts are left to autocast, which is the same computation as without FSDP.
                policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
                unit.forward = _under_autocast(unit.forward, self.mesh.device_type, dtype)
            fully_shard(unit, mesh=self.mesh, reshard_after_forward=reshard, mp_policy=policy, ignored_params=whole)
            run = _runner(unit, self.mesh.device_type, policy.param_dtype)
            unit.run_gathered = run  # type: ignore[assignment]  # torch's types know tensors and modules only
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
            path, _, own = name.rpartition('.')
            owner = self.module.get_submodule(path)
            if (part := owner._parameters[own]) is not p:
                p.data = whole_tensor(part)
                owner._parameters[own] = p
        for handle in self._handles:
            handle.remove()
        for m, kind, forward, hooks in self._before:
            m.__class__ = kind
            for name, ids in hooks.items():
                for key in [key for key in m.__dict__[name] if key not in ids]:
                    del m.__dict__[name][key]
            if forward is not None:
                m.forward = forward
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
        reshard(root)


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


def gathered(state, keep: bool = True):
    """Nested values with whole tensors on the CPU in place of parts; all processes call it together.

    Args:
        state (Any): Dicts, lists and tuples of anything.
        keep (bool): Whether this process needs them; None stands there
            otherwise. Defaults to True.

    Returns:
        Any: Of the same form.
    """
    from torch.distributed.tensor import DTensor

    if isinstance(state, DTensor):
        whole = whole_tensor(state)
        return whole.cpu() if keep else None
    if isinstance(state, dict):
        return type(state)((k, gathered(v, keep)) for k, v in state.items())
    if isinstance(state, (list, tuple)):
        return type(state)(gathered(v, keep) for v in state)
    return state
