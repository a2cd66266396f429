"""Getting at the model behind its wrappers."""

from __future__ import annotations

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP or test-time augmentation.

    Args:
        model (nn.Module): For example ``runner.model``.

    Returns:
        nn.Module: The innermost one.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
