"""Mixed precision where there is no GPU."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper

from mmlt.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Autocast to bfloat16 on any device; bfloat16 needs no loss scaling.

    MMEngine's AmpOptimWrapper asks for a GPU. :class:`mmlt.engine.Runner` uses
    this one instead for ``--amp`` on a CPU.

    Args:
        **kwargs: See MMEngine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model):
        """Autocast around the forward pass."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
