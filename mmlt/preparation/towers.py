"""Facts about an open_clip model that starter configs are written for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
from torch import nn

from mmlt.errors import InputError
from mmlt.models.backbones.adaptformer import adaptable_blocks
from mmlt.models.open_clip_towers import OpenCLIPTowers, carries_weights, is_tag, looks_like_path


@dataclass(frozen=True)
class TowerFacts:
    """What an open_clip model and its weights are, see :func:`probe`.

    Args:
        model (str): Its name, the path of a ``local-dir:`` made absolute.
        pretrained (str, optional): Tag, or absolute path of a weight file.
        scratch (bool): Whether the towers begin at random weights.
        image_size (int, optional): Pixels that were asked for.
        pixels (int): Sides of the pictures that the image tower takes.
        quick_gelu (bool): Whether the model has QuickGELU.
        gelu_is_assumed (bool): Whether nobody said so.
        embed_dim (int): D, width of the space of images and texts.
        width (int, optional): Of the image feature before its projection into
            that space, where the tower has a projection of its own.
        transformer (bool): Whether the image tower has blocks that adapters
            fit into.
        batch_norm (bool): Whether the image tower has batch normalisation.
        mean_std (dict): ``mean`` and ``std`` of the pretraining in 0..255;
            empty where they are CLIP's, or not known.
    """

    model: str
    pretrained: str | None
    scratch: bool
    image_size: int | None
    pixels: int
    quick_gelu: bool
    gelu_is_assumed: bool
    embed_dim: int
    width: int | None
    transformer: bool
    batch_norm: bool
    mean_std: dict


def probe(
    model: str = 'ViT-B-16',
    pretrained: str | None = 'openai',
    image_size: int | None = None,
    quick_gelu: bool | None = None,
) -> TowerFacts:
    """Look at an open_clip model; weights in a file or folder are read, those of a tag are not fetched.

    Args:
        model (str): Its name. Defaults to 'ViT-B-16'.
        pretrained (str, optional): Tag, or path of a weight file. None for
            ``hf-hub:`` and ``local-dir:`` models, which bring their weights;
            others are then trained from random ones. Defaults to 'openai'.
        image_size (int, optional): Pixels. Defaults to None, the model's own.
        quick_gelu (bool, optional): Whether the model has QuickGELU. Defaults
            to None, the weights decide.

    Returns:
        TowerFacts: What it is.

    Raises:
        InputError: No such model or weights; weights in a file or folder that
            do not fit the model.
    """
    if image_size is not None and image_size < 1:
        raise InputError(f'image_size is {image_size}; it must be positive.')
    if model.startswith('local-dir:'):
        model = f'local-dir:{Path(model.removeprefix("local-dir:")).resolve()}'
    towers = OpenCLIPTowers(model, pretrained, image_size, quick_gelu)
    file = None if pretrained is None or is_tag(model, pretrained) else pretrained
    if file is not None:
        if looks_like_path(file) and not Path(file).is_file():
            raise InputError(f"The weight file '{file}' does not exist.")
        pretrained = str(Path(file).resolve())
    visual = towers.clip.visual
    facts = TowerFacts(
        model=model,
        pretrained=pretrained,
        scratch=not towers.has_pretrained,
        image_size=image_size,
        pixels=int(np.ravel(visual.image_size)[0]),
        quick_gelu=towers.quick_gelu,
        gelu_is_assumed=towers.assumption is not None,
        embed_dim=towers.embed_dim,
        width=None if towers.visual_projection is None else len(towers.visual_projection),
        transformer=bool(adaptable_blocks(visual)),
        batch_norm=any(isinstance(m, nn.modules.batchnorm._NormBase) for m in visual.modules()),
        mean_std=_mean_std(towers),
    )
    if file is not None or model.startswith('local-dir:'):
        towers.load()  # weights that do not fit are told now; a tag's would have to be fetched
    return facts


def _mean_std(towers: OpenCLIPTowers) -> dict:
    """By the tag or the model's folder; empty where they don't tell."""
    facts = {}
    if towers.pretrained is not None and is_tag(towers.model, towers.pretrained):
        facts = open_clip.get_pretrained_cfg(towers.model, towers.pretrained)
    elif carries_weights(towers.model):
        facts = towers.clip.visual.preprocess_cfg
    return {k: [round(255 * x, 4) for x in facts[k]] for k in ('mean', 'std') if facts.get(k)}
