"""What image towers of all sources have in common."""

from __future__ import annotations

import torch
from mmengine.model.weight_init import initialize
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

from mmlt.models.backbones.adaptformer import add_adapters
from mmlt.models.compiled import compile_options, compile_tower, is_due
from mmlt.models.undrawn import FilledOnce


class ImageTower(BaseBackbone):
    """An image tower of another library as an MMPretrain backbone: adapters, freezing, modes, compiling.

    A subclass gives the tower and says by :meth:`encode` what its feature is,
    and by :meth:`load_pretrained` where its weights come from.

    Args:
        visual (nn.Module): The tower.
        model (str): Its name, for messages.
        adapter (dict, optional): Config of a module for every block, such as
            :class:`AdaptFormer`. Defaults to None.
        frozen (bool): Keep all weights as they are. Defaults to False.
        grad_checkpointing (bool): Recompute activations in the backward pass.
            Defaults to False.
        compile (bool | str | dict): See :func:`compile_options`.
            Defaults to False.
        init_cfg (dict, optional): Defaults to None.

    Raises:
        InputError: An adapter in a tower that cannot have it.
    """

    def __init__(
        self,
        visual: nn.Module,
        model: str,
        adapter: dict | None = None,
        frozen: bool = False,
        grad_checkpointing: bool = False,
        compile: bool | str | dict = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.visual, self.model_name = visual, model
        self.adapters = None
        if adapter is not None:
            self.visual.requires_grad_(False)
            self.adapters = add_adapters(self.visual, adapter, model)
        self.frozen = frozen
        if grad_checkpointing:
            self.visual.set_grad_checkpointing(True)  # type: ignore[operator]
        if frozen:
            self.requires_grad_(False)
        self._compile_when, self._compile = compile, compile_options(compile)
        self._prepared: torch.device | None = None
        self._filled = FilledOnce(f"The image tower '{model}'")

    def encode(self, x: Tensor) -> Tensor:
        """Features (N, D) of images (N, 3, H, W)."""
        raise NotImplementedError

    def load_pretrained(self) -> None:
        """Read the pretrained weights into the tower, in place."""
        raise NotImplementedError

    @property
    def image_size(self) -> int | tuple[int, int]:
        """Pixels of the images that the tower was built for."""
        return self.visual.image_size  # type: ignore[return-value]

    def check_filled(self) -> None:
        """Refuse, once, a tower whose pretrained weights nobody has read."""
        self._filled(self.visual)

    def prepare(self, device: torch.device) -> None:
        """What is done once a device: compiled blocks."""
        self._prepared = device
        if self._compile is not None and is_due(self._compile_when, device):
            options, self._compile = self._compile, None  # once
            compile_tower(self.visual, options, device)

    @property
    def tower_is_fixed(self) -> bool:
        """Whether the tower itself, without adapters, stays as it is."""
        return self.frozen or self.adapters is not None

    def init_weights(self) -> None:
        """Read the pretrained weights; called once by MMEngine before training."""
        self.load_pretrained()
        if self.init_cfg is not None:
            # Not MMEngine's whole init_weights, which would go on to timm's method of that name and draw all anew.
            initialize(self, self.init_cfg)
        self._is_init = True

    def train(self, mode: bool = True):
        """Set the mode; frozen parts stay in eval mode."""
        super().train(mode)
        if self.tower_is_fixed:
            self.visual.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Encode images.

        Args:
            x (Tensor): Normalised images of shape (N, 3, H, W), or features of
                shape (N, D) that were cached before and pass unchanged.

        Returns:
            tuple[Tensor]: One tensor of shape (N, D).
        """
        if x.ndim == 2:
            return (x,)
        self.check_filled()
        if self._prepared != x.device:
            self.prepare(x.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return (self.encode(x),)
