"""Position embeddings in the attention pooling of CLIP's ResNets, for other image sizes."""

from __future__ import annotations

import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn


def attention_pool(visual: nn.Module) -> AttentionPool2d | None:
    """The attention pooling of one of CLIP's ResNets, None in other image towers."""
    pool = getattr(visual, 'attnpool', None)
    return pool if isinstance(pool, AttentionPool2d) else None


@contextmanager
def pool_positions_are_resized(visual: nn.Module):
    """A context in which weights of another image size can be loaded into one of CLIP's ResNets."""
    pool = attention_pool(visual)
    if pool is None:
        yield
        return
    handle = pool._register_load_state_dict_pre_hook(_resize_pool_positions, with_module=True)
    try:
        yield
    finally:
        handle.remove()


def _resize_pool_positions(pool: AttentionPool2d, state: dict[str, Tensor], prefix: str, *args) -> None:
    """Position embeddings of another image size; open_clip resizes those of Vision Transformers only."""
    key = f'{prefix}positional_embedding'
    given, wanted = state.get(key), len(pool.positional_embedding)
    if given is None or len(given) == wanted:
        return
    old, new = math.isqrt(len(given) - 1), math.isqrt(wanted - 1)
    grid = given[1:].t().reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode='bicubic', antialias=True, align_corners=False)
    state[key] = torch.cat([given[:1], grid.flatten(2)[0].t()])
