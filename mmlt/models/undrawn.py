"""Models whose random weights nobody sees, since pretrained ones follow, are built without drawing any."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
