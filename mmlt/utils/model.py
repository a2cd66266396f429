"""Getting at the model behind its wrappers."""

from __future__ import annotations

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP or test-time augmentation.

    Args:
        model (nn.Module): For example ``runner.model``.

    Returns:
        nn.Module: The innermost one.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    return model


class HostCount:
    """The value of a counting buffer, which is read from its device only after somebody else wrote it.

    A step that asks a GPU for a number waits for all that was launched before.
    """

    def __init__(self) -> None:
        self._known: tuple[Tensor, int] | None = None
        self._value = 0

    def read(self, counter: Tensor) -> int:
        """Value of the counter, a tensor without dimensions."""
        if self._known is None or self._known[0] is not counter or self._known[1] != counter._version:
            self._value = int(counter)
            self._known = (counter, counter._version)
        return self._value

    def advance(self, counter: Tensor) -> None:
        """Add one, in place."""
        value = self.read(counter)
        counter += 1
        self._value, self._known = value + 1, (counter, counter._version)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Move a tensor; from the CPU to a GPU without waiting for the GPU."""
    if x.device.type == 'cpu' and torch.device(device).type == 'cuda':
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
