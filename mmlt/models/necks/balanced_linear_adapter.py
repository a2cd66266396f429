"""BALLAD's adapter."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.registry import MODELS
from mmlt.utils.renamed import renamed


def balanced_linear_adapter(
    f: Tensor, weight: Tensor, bias: Tensor | None = None, residual_ratio: float = 0.2, relu: bool = True
) -> Tensor:
    """Mix a feature with its linear adaptation (BALLAD, Eq. 5).

    ``f* = residual_ratio * ReLU(W f + b) + (1 - residual_ratio) * f``

    Args:
        f (Tensor): Features of shape (N, D), projected, not normalised.
        weight (Tensor): W of shape (D, D), rows are outputs.
        bias (Tensor, optional): b of shape (D, ). Defaults to None.
        residual_ratio (float): The residual factor lambda. Defaults to 0.2.
        relu (bool): Apply the ReLU. Defaults to True.

    Returns:
        Tensor: Adapted features of shape (N, D).
    """
    adapted = F.linear(f, weight, bias)
    if relu:
        adapted = adapted.relu()
    return residual_ratio * adapted + (1 - residual_ratio) * f


@MODELS.register_module()
class BalancedLinearAdapter(BaseModule):
    """The linear adapter of BALLAD's phase B (paper section 3.2, Eq. 5).

    As the neck of an ``ImageClassifier`` it adapts image features; as the
    ``text_adapter`` of a :class:`TextClsHead`, text features (Table 6). The
    paper has ReLU and bias; the published code has neither:
    ``relu=False, bias=False``.

    Args:
        in_channels (int): Width D of the features.
        residual_ratio (float): Residual factor lambda in [0, 1]; 0 passes the
            features unchanged, 1 replaces them. Defaults to 0.2.
        relu (bool): ReLU after the linear layer. Defaults to True.
        bias (bool): Bias of the linear layer. Defaults to True.
        init_cfg (dict, optional): Defaults to None, PyTorch's random
            initialisation of a linear layer.

    Raises:
        InputError: ``residual_ratio`` outside [0, 1], or features of another width.

    Examples:
        >>> import torch
        >>> from mmlt.models import BalancedLinearAdapter
        >>> BalancedLinearAdapter(8)((torch.zeros(2, 8),))[-1].shape
        torch.Size([2, 8])
    """

    @renamed(ratio='residual_ratio')
    def __init__(
        self,
        in_channels: int,
        residual_ratio: float = 0.2,
        relu: bool = True,
        bias: bool = True,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if not 0 <= residual_ratio <= 1:
            raise InputError(
                f'BalancedLinearAdapter: residual_ratio is {residual_ratio}; it must lie in [0, 1] (the paper: 0.2).'
            )
        self.linear = nn.Linear(in_channels, in_channels, bias=bias)
        self.residual_ratio, self.relu = residual_ratio, relu

    def forward(self, feats: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """Adapt the last feature.

        Args:
            feats (Tensor | tuple[Tensor]): Features of shape (N, D), or a
                backbone's tuple, of which the last is adapted.

        Returns:
            Tensor | tuple[Tensor]: In the form of ``feats``.
        """
        last = feats[-1] if isinstance(feats, tuple) else feats
        width = self.linear.in_features
        if last.shape[-1] != width:
            raise InputError(
                f'BalancedLinearAdapter was built for features of width {width}, but they are {last.shape[-1]} wide: '
                f'set in_channels={last.shape[-1]}.'
            )
        adapted = balanced_linear_adapter(last, self.linear.weight, self.linear.bias, self.residual_ratio, self.relu)
        return (*feats[:-1], adapted) if isinstance(feats, tuple) else adapted
