"""AdaptFormer: small trained branches beside the MLPs of a frozen Vision Transformer."""

from __future__ import annotations

import math

import torch
from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.registry import MODELS

# Blocks of the form x + attention(LN(x)), then x + MLP(LN(x)), and what they call the second LN.
_SECOND_NORM = {ResidualAttentionBlock: 'ln_2', CustomResidualAttentionBlock: 'ln_2', Block: 'norm2', EvaBlock: 'norm2'}


def adapter_bottleneck(num_classes: int, num_blocks: int) -> int:
    """LIFT's width of the adapters, ``2 ** floor(log2(C / (2 L)))``, at least 1.

    As in ``models/peft_vit.py`` of the published code (Shi et al. 2024,
    github.com/shijxcs/LIFT). All adapters together then have no more weights than a linear classifier.

    Args:
        num_classes (int): C.
        num_blocks (int): L, blocks of the tower.

    Returns:
        int: For example 32 for 1,000 classes and 12 blocks.
    """
    return 2 ** max(0, math.floor(math.log2(num_classes / (2 * num_blocks))))


@MODELS.register_module()
class AdaptFormer(nn.Module):
    """One adapter, parallel to the MLP of a transformer block (Chen et al. 2022; Shi et al. 2024, LIFT).

    ``x + MLP(LN(x)) + s * up(ReLU(down(LN'(x))))``

    LN' is the adapter's own. ``up`` starts at zero, so training starts at the
    plain tower; s is learned and starts at 1, as in LIFT's published code
    (``AdaptFormer`` of ``models/peft_modules.py``). It is the
    ``adapter`` of an :class:`OpenCLIPVision` or a :class:`TimmViT`, which makes
    one for every block and gives ``width`` and ``num_blocks``.

    Args:
        width (int): W, width of the tokens.
        num_blocks (int): L, blocks of the tower.
        bottleneck (int, optional): b, width of the branch. Defaults to None,
            by the number of classes, see :func:`adapter_bottleneck`.
        num_classes (int, optional): C, for the default of ``bottleneck``.
            Defaults to None.
        init (str): How ``down`` starts, 'uniform' (PyTorch's) or 'normal'
            (LIFT's published code), both with deviation ``1 / sqrt(3 W)``.
            Defaults to 'uniform'.

    Raises:
        InputError: Neither a bottleneck nor a number of classes, or none above
            zero; another ``init``.
    """

    def __init__(
        self,
        width: int,
        num_blocks: int,
        bottleneck: int | None = None,
        num_classes: int | None = None,
        init: str = 'uniform',
    ):
        super().__init__()
        if init not in ('uniform', 'normal'):
            raise InputError(f"AdaptFormer's init is '{init}'; choose 'uniform' or 'normal'.")
        if bottleneck is None and not num_classes:
            raise InputError(
                'AdaptFormer does not know how wide it is: give model.backbone.adapter num_classes=<classes of the '
                'dataset>, or a bottleneck.'
            )
        if bottleneck is None:
            bottleneck = adapter_bottleneck(num_classes, num_blocks)
        if bottleneck < 1:
            raise InputError(
                f"AdaptFormer's bottleneck is {bottleneck}; it must be at least 1 (LIFT: 32 for 1,000 classes)."
            )
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.scale = nn.Parameter(torch.ones(()))
        if init == 'normal':
            nn.init.normal_(self.down.weight, std=(3 * width) ** -0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self._tokens: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """What the branch adds to tokens of shape (..., W)."""
        return self.scale * self.up(self.down(self.norm(x)).relu())

    def attach(self, block: nn.Module) -> None:
        """Add the branch to a block, whose modules and weights keep their names.

        Args:
            block (nn.Module): A block of open_clip or timm.
        """
        getattr(block, _second_norm(block)).register_forward_pre_hook(self._take_tokens)
        block.register_forward_hook(self._add_branch)

    # Bound methods, not closures: a deepcopy of the tower has hooks of its own adapters.
    def _take_tokens(self, norm: nn.Module, args: tuple) -> None:
        self._tokens = args[0]

    def _add_branch(self, block: nn.Module, args: tuple, output: Tensor) -> Tensor:
        tokens, self._tokens = self._tokens, None
        return output + self(tokens)


def _second_norm(block: nn.Module) -> str | None:
    return next((name for kind, name in _SECOND_NORM.items() if isinstance(block, kind)), None)


def adaptable_blocks(visual: nn.Module) -> list[nn.Module]:
    """Blocks of an image tower that adapters fit into.

    Args:
        visual (nn.Module): An image tower of open_clip or timm.

    Returns:
        list[nn.Module]: First to last; none unless it is a Vision Transformer
        with an MLP after the attention in all of its blocks.
    """
    if hasattr(visual, 'transformer'):
        blocks = list(visual.get_submodule('transformer.resblocks').children())
    else:
        blocks = list(getattr(getattr(visual, 'trunk', visual), 'blocks', ()))
    return [] if any(_second_norm(block) is None for block in blocks) else blocks


def add_adapters(visual: nn.Module, adapter: dict, model: str) -> nn.ModuleList:
    """Give every block of an image tower an adapter.

    Args:
        visual (nn.Module): An image tower of open_clip or timm.
        adapter (dict): Config of a module such as :class:`AdaptFormer`.
        model (str): The tower's name, for the error.

    Returns:
        nn.ModuleList: L adapters, first block to last; the tower only has
        hooks that call them.

    Raises:
        InputError: It is no Vision Transformer with an MLP after the attention.
    """
    blocks = adaptable_blocks(visual)
    if not blocks:
        raise InputError(
            f"The image tower of '{model}' is no Vision Transformer whose blocks AdaptFormer fits into: choose a model "
            'such as ViT-B-16, or leave out model.backbone.adapter.'
        )
    adapters = nn.ModuleList()
    for block in blocks:
        width = len(getattr(block, _second_norm(block)).weight)
        branch = MODELS.build(dict(adapter, width=width, num_blocks=len(blocks)))
        branch.attach(block)
        adapters.append(branch)
    return adapters
