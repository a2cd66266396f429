"""Models whose random weights nobody sees, since pretrained ones follow, are built without drawing any."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmlt.errors import InputError
from mmlt.utils import local_part

# Initialisers that draw by themselves; the others of nn.init call Tensor.normal_ or Tensor.uniform_.
_INITS = frozenset(
    getattr(nn.init, f'{name}_')
    for name in ('uniform', 'normal', 'trunc_normal', 'xavier_uniform', 'xavier_normal', 'kaiming_uniform')
    + ('kaiming_normal', 'orthogonal')
)
_IN_PLACE = _INITS | {Tensor.normal_, Tensor.uniform_}
_FACTORIES = frozenset((torch.randn, torch.rand))
_always_drawn = False


class _Undrawn(TorchFunctionMode):
    """Not-a-numbers in place of random floats: whatever is left of them shows."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in _IN_PLACE:
            tensor = args[0] if args else kwargs.get('tensor')
            if tensor.is_floating_point():
                with torch.no_grad():
                    return tensor.fill_(torch.nan)
        elif func in _FACTORIES:
            kwargs.pop('generator', None)
            with torch.no_grad():
                drawn = torch.empty(*args, **kwargs).fill_(torch.nan)
            return drawn
        return func(*args, **kwargs)


def undrawn():
    """A context in which built modules get NaN where they would draw random weights.

    All else is as ever: values that are set, buffers that are computed.
    torch's random numbers stay where they are. For models that are filled at
    once; what is not filled is NaN and cannot pass for a weight.

    Returns:
        ContextManager: Without effect inside :func:`drawn`.

    Examples:
        >>> import torch
        >>> with undrawn():
        ...     layer = torch.nn.Linear(2, 2)
        >>> bool(layer.weight.isnan().all())
        True
    """
    return nullcontext() if _always_drawn else _Undrawn()


@contextmanager
def drawn():
    """A context in which :func:`undrawn` draws: for models that are run though their weights are not read."""
    global _always_drawn
    before, _always_drawn = _always_drawn, True
    try:
        yield
    finally:
        _always_drawn = before


def check_filled(module: nn.Module, what: str, remedy: str, share: float = 0.0) -> None:
    """Refuse a module with weights that were neither drawn nor read; waits for its device once.

    Args:
        module (nn.Module): Of parameters that are split over processes, this
            process's part is looked at.
        what (str): Begins the sentence, for example "The image tower of X".
        remedy (str): Ends it.
        share (float): Up to this share of NaN a tensor passes.
            Defaults to 0, none may be.

    Raises:
        InputError: A parameter or buffer holds NaN; names the first few.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    tensors = {name: local_part(t.detach()) for name, t in tensors.items() if t.is_floating_point() and not t.is_meta}
    if not tensors:
        return
    empty = torch.stack([t.isnan().sum() for t in tensors.values()]).tolist()
    names = [name for (name, t), number in zip(tensors.items(), empty) if number > share * t.numel()]
    if names:
        more = f' and {len(names) - 3} more' if len(names) > 3 else ''
        raise InputError(f'{what} has no numbers (NaN) in {", ".join(names[:3])}{more}: {remedy}')


class FilledOnce:
    """A tower's :func:`check_filled` before its first forward pass, whoever filled it.

    MMEngine's own runner, for example, only logs what a checkpoint lacks. What
    has a few NaN was filled, and is for those to tell who look at results.

    Args:
        what (str): See :func:`check_filled`.
    """

    def __init__(self, what: str):
        self.what, self.checked = what, False

    def __call__(self, module: nn.Module) -> None:
        """Check at the first call; what is traced or compiled is not looked at."""
        if self.checked or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return
        check_filled(
            module,
            self.what,
            'neither pretrained weights nor a checkpoint gave them, or one of a training that diverged did. Call '
            'init_weights() before the first use, give a checkpoint that holds them, or pretrained=None for random '
            'weights.',
            share=0.5,
        )
        self.checked = True
