"""Vision Transformers of timm as MMPretrain backbones."""

from __future__ import annotations

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mmlt.errors import InputError
from mmlt.models.backbones.image_tower import ImageTower
from mmlt.models.timm_weights import build_timm_vit, load_timm_weights, patch_size
from mmlt.registry import MODELS

_POOLINGS = ('cls', 'avg', 'cls+avg', 'timm')
# Arguments of timm that have a name of their own here, or none.
_OWN = {
    'img_size': 'set image_size',
    'dynamic_img_size': 'set dynamic',
    'global_pool': 'set pooling',
    'pretrained': 'set pretrained',
    'num_classes': "the classifier is the model's head",
    'patch_drop_rate': 'patches are not dropped here',
}


@MODELS.register_module()
class TimmViT(ImageTower):
    """Any plain Vision Transformer of timm: DINOv2, DINOv3, SigLIP 2, DeiT III, EVA-02 and others.

    The feature is pooled from the last tokens after their norm, without
    classifier. Models without a text tower are LIFT's case of a head that
    starts from class means, see :class:`ClassMeansHook`.

    Weights are read by :meth:`init_weights` (MMEngine calls it before
    training), so that testing a checkpoint needs no pretrained weights. Their
    position table is resized to ``image_size`` by timm.

    Args:
        model (str): Name of a model of timm, for example
            ``'vit_base_patch14_dinov2'``.
        pretrained (str, optional): A tag of timm (``'lvd142m'``), the path of
            a local weight file, or None for random weights.
            Defaults to None.
        image_size (int, optional): Input size in pixels if it differs from the
            model's own (518 for DINOv2). Defaults to None.
        dynamic (bool): Take images of other sizes than ``image_size``, too;
            the position table is resized in every forward pass then.
            Defaults to False.
        pooling (str): 'cls', the class token; 'avg', the mean of the patches
            without class token and registers; 'cls+avg', both, 2 W wide (as in
            DINOv2's linear evaluation); or 'timm', the model's own, for
            example SigLIP's attention pooling. Defaults to 'timm'.
        adapter (dict, optional): An adapter for every block, for example
            ``dict(type='mmlt.AdaptFormer', num_classes=1000)``. The adapters
            are trained, the tower itself stays as it is. They are not in
            ``visual``, whose weights and names remain those of timm.
            Defaults to None.
        frozen (bool): Keep the weights as they are, those of adapters too: no
            gradients, always in eval mode. Defaults to False.
        grad_checkpointing (bool): Recompute activations in the backward pass
            by timm's own switch. Defaults to False.
        options (dict, optional): More arguments of timm's model, for example
            ``dict(drop_path_rate=0.1)``. Defaults to None.
        compile (bool | str | dict): See :class:`OpenCLIPVision`.
            Defaults to False.
        init_cfg (dict, optional): MMEngine's initialisation config, applied
            after the pretrained weights. Defaults to None.

    Raises:
        InputError: No such model or tag; no Vision Transformer; a missing or
            unfit weight file; a size that patches do not fill; a pooling or
            an adapter that the model cannot have; images of another size.

    Examples:
        >>> import torch, mmlt
        >>> from mmlt.models import TimmViT
        >>> tiny = dict(depth=2, embed_dim=64, num_heads=2)
        >>> backbone = TimmViT('vit_small_patch14_dinov2', image_size=28, pooling='cls+avg', options=tiny).eval()
        >>> backbone(torch.zeros(2, 3, 28, 28))[-1].shape
        torch.Size([2, 128])
    """

    visual: VisionTransformer | Eva

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        image_size: int | None = None,
        dynamic: bool = False,
        pooling: str = 'timm',
        adapter: dict | None = None,
        frozen: bool = False,
        grad_checkpointing: bool = False,
        options: dict | None = None,
        compile: bool | str | dict = False,
        init_cfg: dict | None = None,
    ):
        options = dict(options or {})
        for name in _OWN.keys() & options.keys():
            raise InputError(f"TimmViT's options hold '{name}', which is not theirs: {_OWN[name]}.")
        if image_size is not None and (not isinstance(image_size, int) or image_size < 1):
            raise InputError(f"TimmViT's image_size is {image_size!r}: give a number of pixels, or None.")
        visual = build_timm_vit(model, pretrained, image_size, dynamic, options)
        _check_pooling(visual, model, pooling)
        super().__init__(visual, model, adapter, frozen, grad_checkpointing, compile, init_cfg)
        self.pretrained, self.pooling, self.dynamic = pretrained, pooling, dynamic
        self.out_channels = visual.embed_dim * (2 if pooling == 'cls+avg' else 1)
        self._check_size(*self.image_size)
        if pooling != 'timm' and visual.attn_pool is not None:
            visual.attn_pool.requires_grad_(False)  # unused parameters would stall DDP
        self._loaded = False
        self.train(self.training)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the tower was built for."""
        return tuple(self.visual.patch_embed.img_size)

    def load_pretrained(self) -> None:
        """Read the pretrained weights, once."""
        if self.pretrained is not None and not self._loaded:
            load_timm_weights(self.visual, self.model_name, self.pretrained)
        self._loaded = True

    def encode(self, x: Tensor) -> Tensor:
        """Encode images.

        Args:
            x (Tensor): Normalised images of shape (N, 3, H, W).

        Returns:
            Tensor: Shape (N, W), with the pooling 'cls+avg' (N, 2 W).
        """
        if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):  # a graph is of one size
            self._check_size(*x.shape[-2:])
        return self._pooled(self.visual.forward_features(x))

    def _pooled(self, tokens: Tensor) -> Tensor:
        visual, parts = self.visual, []
        if self.pooling == 'timm':
            return visual.forward_head(tokens, pre_logits=True)
        if 'cls' in self.pooling:
            parts.append(tokens[:, 0])
        if 'avg' in self.pooling:
            parts.append(tokens[:, visual.num_prefix_tokens :].mean(1))
        # A model that pools first and normalises then does so with each part; in others this norm does nothing.
        return torch.cat([visual.fc_norm(part) for part in parts], dim=-1)

    def _check_size(self, height: int, width: int) -> None:
        own, patch = self.image_size, patch_size(self.visual)
        if not self.dynamic and (height, width) != own:
            built = f'{own[0]} x {own[1]}'
            remedy = f'set model.backbone.image_size={height}, or dynamic=True for images of several sizes'
            if height != width:
                remedy = f'resize them to {built}, or set model.backbone.dynamic=True'
            raise InputError(
                f"The images are {height} x {width} and '{self.model_name}' was built for {built}: {remedy}."
            )
        if getattr(self.visual.patch_embed, 'dynamic_img_pad', False):
            return  # timm pads them
        for side, own_patch in zip((height, width), patch):
            if side % own_patch:
                below = max(1, side // own_patch) * own_patch
                pixels = f'{patch[0]}' if patch[0] == patch[1] else f'{patch[0]} x {patch[1]}'
                raise InputError(
                    f'Images of {height} x {width} are not filled by the patches of {pixels} pixels of '
                    f"'{self.model_name}': in place of {side} choose a multiple such as {below} or {below + own_patch}."
                )


def _check_pooling(visual, model: str, pooling: str) -> None:
    if pooling not in _POOLINGS:
        raise InputError(f"TimmViT's pooling is '{pooling}'; choose one of {', '.join(map(repr, _POOLINGS))}.")
    if 'cls' in pooling and getattr(visual, 'cls_token', None) is None:
        raise InputError(f"timm's '{model}' has no class token, so pooling='{pooling}' cannot be: set 'avg' or 'timm'.")
    if pooling == 'timm' and not visual.global_pool:
        raise InputError(f"timm's '{model}' has no pooling of its own: set model.backbone.pooling='avg' or 'cls'.")
