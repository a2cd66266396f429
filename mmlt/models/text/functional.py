"""Exact shortcuts for causal CLIP text towers.

In a causal transformer that is pooled at the end-of-text token, what stands
after that token cannot change the feature. So a batch is cut to its longest
text, texts are run in groups of like length, and a beginning that all texts
share ("a photo of a") is run once: later tokens attend to its keys and values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, text_global_pool
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class _Parts:
    """The pieces of a text tower under common names (open_clip keeps them in two layouts)."""

    def __init__(self, clip: nn.Module):
        own = getattr(clip, 'text', clip)
        self.transformer = getattr(own, 'transformer', None)
        self.token_embedding = getattr(own, 'token_embedding', None)
        self.positional_embedding = getattr(own, 'positional_embedding', None)
        self.ln_final = getattr(own, 'ln_final', None)
        self.projection = getattr(own, 'text_projection', None)
        self.attn_mask = getattr(own, 'attn_mask', None)
        self.pool_type = getattr(own, 'text_pool_type', None) or getattr(own, 'pool_type', None)
        self.eos_id = getattr(own, 'text_eos_id', None) or getattr(own, 'eos_id', None)
        self.cls_emb = getattr(own, 'cls_emb', None)
        self.pad_mask = getattr(own, 'use_pad_mask', False)


def can_shorten(clip: nn.Module) -> bool:
    """Whether the shortcuts are exact for this tower.

    They are if every attention is causal, the feature is taken at the
    end-of-text token, no class token is appended, and the blocks are plain.
    Bidirectional towers (SigLIP) and ``last`` pooling are not.

    Args:
        clip (nn.Module): An open_clip model with a text tower.

    Returns:
        bool: True where :func:`encode_text` may be used.
    """
    p = _Parts(clip)
    blocks = getattr(p.transformer, 'resblocks', None)
    return (
        p.attn_mask is not None
        and p.pool_type in ('argmax', 'eos')
        and p.cls_emb is None
        and not p.pad_mask
        and blocks is not None
        and all(type(b) is ResidualAttentionBlock and b.attn.in_proj_weight is not None for b in blocks)
    )


def text_lengths(clip: nn.Module, tokens: Tensor) -> Tensor:
    """Length of each text up to and with its end-of-text token.

    Args:
        clip (nn.Module): An open_clip model.
        tokens (Tensor): Token ids of shape (N, L).

    Returns:
        Tensor: Lengths of shape (N, ).
    """
    p = _Parts(clip)
    at = tokens.argmax(-1) if p.pool_type == 'argmax' else (tokens == p.eos_id).int().argmax(-1)
    return at + 1


def shared_prefix(tokens: Tensor, lengths: Tensor) -> int:
    """Number of leading tokens that all texts share, without any end-of-text token."""
    differs = (tokens != tokens[:1]).any(0)
    common = int(differs.int().argmax()) if bool(differs.any()) else tokens.shape[1]
    return min(common, int(lengths.min()) - 1)


def _block(block: nn.Module, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
    """One pre-norm transformer block over tokens that follow ``past`` keys and values.

    Args:
        block (nn.Module): An open_clip ``ResidualAttentionBlock``.
        x (Tensor): Tokens of shape (N, L, W).
        past (tuple, optional): Keys and values of shape (1, H, P, W / H).

    Returns:
        tuple[Tensor]: New tokens (N, L, W), and keys and values of ``x``.
    """
    attn = block.attn
    n, length, width = x.shape
    heads = attn.num_heads
    qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.view(n, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    if past is None:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        before = past[0].shape[2]
        keys = torch.cat([past[0].expand(n, -1, -1, -1), k], 2)
        values = torch.cat([past[1].expand(n, -1, -1, -1), v], 2)
        visible = torch.ones(length, before + length, dtype=torch.bool, device=x.device).tril(before)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=visible)
    x = x + block.ls_1(attn.out_proj(out.transpose(1, 2).reshape(n, length, width)))
    return x + block.ls_2(block.mlp(block.ln_2(x))), k, v


def _call(
    block: nn.Module, x: Tensor, past: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """:func:`_block`, which is no forward pass of the block: one that is in parts (FSDP) is gathered for it."""
    if not _in_parts(block):
        return _block(block, x, past)
    return block.run_gathered(lambda module, x: _block(module, x, None)[0], x), None, None  # nothing follows the texts


def _in_parts(block: nn.Module) -> bool:
    return hasattr(block, 'run_gathered')


def _run(p: _Parts, tokens: Tensor, past: list | None, start: int) -> tuple[Tensor, list]:
    dtype = p.transformer.get_cast_dtype()
    x = p.token_embedding(tokens).to(dtype)
    x = x + p.positional_embedding[start : start + tokens.shape[1]].to(dtype)
    kept = []
    for i, block in enumerate(p.transformer.resblocks):
        before = None if past is None else past[i]
        if p.transformer.grad_checkpointing and torch.is_grad_enabled():
            x, k, v = checkpoint(_call, block, x, before, use_reentrant=False)
        else:
            x, k, v = _call(block, x, before)
        kept.append((k, v))
    return x, kept


def encode_text(clip: nn.Module, tokens: Tensor, share_prefix: bool = True, group_size: int = 64) -> Tensor:
    """Encode texts as ``clip.encode_text`` does, without the work that cannot matter.

    Args:
        clip (nn.Module): An open_clip model for which :func:`can_shorten`.
        tokens (Tensor): Token ids of shape (N, L), padded after the
            end-of-text token.
        share_prefix (bool): Run the tokens that all texts begin with once.
            Defaults to True.
        group_size (int): Texts of like length that run together.
            Defaults to 64.

    Returns:
        Tensor: Text embeddings of shape (N, D), not normalised.
    """
    p = _Parts(clip)
    if _in_parts(p.transformer.resblocks[0]):
        # All processes gather a block together, so as often, whatever their texts are.
        share_prefix, group_size = False, len(tokens)
    lengths = text_lengths(clip, tokens)
    order = lengths.argsort()
    tokens, lengths = tokens[order], lengths[order]
    start, past = 0, None
    if share_prefix and len(tokens) > 1:
        start = shared_prefix(tokens, lengths)
        if start > 0:
            past = _run(p, tokens[:1, :start], None, 0)[1]
    pooled = []
    for part, ends in zip(tokens.split(group_size), lengths.split(group_size)):
        part = part[:, start : int(ends[-1])]
        x, _ = _run(p, part, past, start)
        pooled.append(text_global_pool(x, part, p.pool_type, eos_token_id=p.eos_id))
    x = p.ln_final(torch.cat(pooled)[order.argsort()])  # LayerNorm is per token: only pooled ones need it
    if p.projection is None:
        return x
    return p.projection(x) if isinstance(p.projection, nn.Linear) else x @ p.projection
