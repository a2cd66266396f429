"""The ResNets of 6n + 2 layers for 32 x 32 pictures."""

from __future__ import annotations

import torch.nn.functional as F
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.registry import MODELS


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without weights."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride, self.added = stride, out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.added or self.stride > 1:  # option A: every other pixel, zeros for the new channels
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added // 2, self.added - self.added // 2)
            )
        return F.relu(out + x)


@MODELS.register_module()
class CIFARResNet(BaseBackbone):
    """ResNet-20, 32, 44, 56, 110 for CIFAR (He et al. 2016, section 4.2).

    Three stages of n blocks, 16, 32 and 64 wide, 6n + 2 layers with the
    classifier; shortcuts are option A, without weights. This is the ResNet-32
    of the CIFAR-LT benchmarks. MMPretrain's ``ResNet_CIFAR`` is ImageNet's
    architecture with another stem.

    Args:
        depth (int): 6n + 2. Defaults to 32.
        base_channels (int): Width of the first stage. Defaults to 16.
        in_channels (int): Of the pictures. Defaults to 3.
        init_cfg (dict | list, optional): Defaults to Kaiming's initialisation
            of convolutions.

    Raises:
        InputError: Another depth.
    """

    def __init__(
        self,
        depth: int = 32,
        base_channels: int = 16,
        in_channels: int = 3,
        init_cfg: dict | list | None = dict(type='Kaiming', layer='Conv2d'),  # noqa: B006
    ):
        super().__init__(init_cfg)
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f'CIFARResNet has 6n + 2 layers (20, 32, 44, 56, 110), not {depth}.')
        self.conv1 = nn.Conv2d(in_channels, base_channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base_channels)
        blocks, width = [], base_channels
        for stage in range(3):
            for i in range((depth - 2) // 6):
                out = base_channels * 2**stage
                blocks.append(_Block(width, out, stride=2 if stage and i == 0 else 1))
                width = out
        self.blocks = nn.Sequential(*blocks)
        self.out_channels = width

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Compute the feature map.

        Args:
            x (Tensor): Pictures, (N, 3, H, W).

        Returns:
            tuple[Tensor]: One map of shape (N, 4 * base_channels, H / 4, W / 4).
        """
        return (self.blocks(F.relu(self.bn1(self.conv1(x)))),)
