"""Image towers of open_clip as MMPretrain backbones."""

from __future__ import annotations

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.backbones.image_tower import ImageTower
from mmlt.models.open_clip_towers import QuickGELUGuard, open_clip_tower
from mmlt.registry import MODELS


@MODELS.register_module()
class OpenCLIPVision(ImageTower):
    """The image tower of any open_clip model.

    The output is the projected image embedding, not normalised, in the joint
    image-text space. With the same ``model`` and ``pretrained`` as an
    :class:`OpenCLIPText` both towers come from one load.

    Weights are read by :meth:`init_weights` (MMEngine calls it before
    training), so that testing a checkpoint needs no pretrained weights.

    Args:
        model (str): Name of an open_clip model, for example ``'ViT-B-16'`` or
            ``'RN50'``.
        pretrained (str, optional): An open_clip tag (``'openai'``), the path
            of a local weight file, or None for random weights.
            Defaults to None.
        frozen (bool): Keep the weights and statistics as they are, those of
            adapters too: no gradients, always in eval mode.
            Defaults to False.
        norm_eval (bool): Keep BatchNorm layers in eval mode, that is, use and
            keep their running statistics. Small batches per process ask for
            it. Under DDP a BatchNorm layer in training sees its own process's
            images only; ``norm_eval=True``, or MMEngine's
            ``sync_bn='torch'`` on GPUs, gives the result of one process.
            Defaults to False.
        grad_checkpointing (bool): Recompute activations in the backward pass
            by open_clip's own switch. Defaults to False.
        image_size (int, optional): Input size in pixels if it differs from the
            model's own. Defaults to None.
        quick_gelu (bool, optional): Force or forbid QuickGELU. By default the
            tag or the file decides, since a wrong activation costs accuracy
            without any error; plain files do not tell, and GELU is assumed.
            Defaults to None.
        adapter (dict, optional): An adapter for every block of a Vision
            Transformer, for example ``dict(type='mmlt.AdaptFormer',
            num_classes=1000)``. The adapters are trained, the tower itself
            stays as it is. They are not in ``visual``, whose weights and names
            remain those of open_clip. Defaults to None.
        projection (bool): Project the feature into the joint image-text space.
            False gives the feature before that, of the transformer's width;
            for a head that does not compare it with texts. Defaults to True.
        compile (bool | str | dict): Compile the tower's blocks by
            ``torch.compile``, in place; ``'auto'`` on a GPU only, a dict gives
            arguments of ``torch.compile``. Where there is no compiler the
            tower runs as it is, and one line says so. Defaults to False.
        init_cfg (dict, optional): MMEngine's initialisation config, applied
            after the pretrained weights. Defaults to None.

    Raises:
        InputError: No such model or tag; missing or unfit weight file; an
            adapter, or no projection, in a tower that cannot have it.

    Examples:
        >>> import torch, mmlt
        >>> from mmlt.models import OpenCLIPVision
        >>> backbone = OpenCLIPVision('mmlt-tiny-rn').eval()
        >>> backbone(torch.zeros(2, 3, 32, 32))[-1].shape
        torch.Size([2, 128])
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        frozen: bool = False,
        norm_eval: bool = False,
        grad_checkpointing: bool = False,
        image_size: int | None = None,
        quick_gelu: bool | None = None,
        adapter: dict | None = None,
        projection: bool = True,
        compile: bool | str | dict = False,
        init_cfg: dict | None = None,
    ):
        visual, towers = open_clip_tower('image', model, pretrained, image_size, quick_gelu)
        super().__init__(visual, model, adapter, frozen, grad_checkpointing, compile, init_cfg)
        self._towers = towers
        self.out_channels = towers.embed_dim
        self.projection = projection
        if not projection:
            self.out_channels = self._leave_out_projection(model)
        self.activation = QuickGELUGuard(towers.quick_gelu)
        self.norm_eval = norm_eval
        self.train(self.training)

    def prepare(self, device: torch.device) -> None:
        """What is done once a device: compiled blocks, and the layout of memory that convolutions are fast in."""
        if device.type == 'cuda' and isinstance(self.visual, ModifiedResNet):
            self.visual.to(memory_format=torch.channels_last)
        super().prepare(device)

    def _leave_out_projection(self, model: str) -> int:
        if not isinstance(self.visual, VisionTransformer):
            raise InputError(
                f"projection=False: the image tower of '{model}' has no projection that could be left out, only the "
                "Vision Transformers of open_clip's own have; remove it, and the head gets the projected feature."
            )
        self.visual.proj.requires_grad_(False)  # an unused parameter would stall DDP
        return self.visual.proj.shape[0]

    def load_pretrained(self) -> None:
        """Read the pretrained weights of both towers of the model, once."""
        self._towers.load()

    def train(self, mode: bool = True):
        """Set the mode; frozen parts stay in eval mode."""
        super().train(mode)
        if self.norm_eval and not self.tower_is_fixed:
            for module in self.visual.modules():
                if isinstance(module, nn.modules.batchnorm._NormBase):
                    module.eval()
        return self

    def encode(self, x: Tensor) -> Tensor:
        """Encode images.

        Args:
            x (Tensor): Normalised images of shape (N, 3, H, W).

        Returns:
            Tensor: Shape (N, D), without projection (N, W).
        """
        if x.device.type == 'cuda' and isinstance(self.visual, ModifiedResNet):
            x = x.contiguous(memory_format=torch.channels_last)
        out = self.visual(x) if self.projection else _unprojected(self.visual, x)
        return out[0] if isinstance(out, tuple) else out


def _unprojected(visual: VisionTransformer, x: Tensor) -> Tensor:
    """The steps of open_clip's forward but the last, ``@ visual.proj``."""
    return visual._pool(visual.transformer(visual._embeds(x)))[0]
