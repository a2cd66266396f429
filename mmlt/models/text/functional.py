"""Exact shortcuts for causal CLIP text towers.

In a causal transformer that is pooled at the end-of-text token, what stands
after that token cannot change the feature. So a batch is cut to its longest
text, texts are run in groups of like length, and a beginning that all texts
share ("a photo of a") is run once: later tokens attend to its keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, text_global_pool
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmlt.utils import to_device


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


def run_block(
    block: ResidualAttentionBlock, x: Tensor, past: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One pre-norm transformer block over tokens that follow ``past`` keys and values.

    Args:
        block (ResidualAttentionBlock): Of open_clip.
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
    block: Callable, module: ResidualAttentionBlock, x: Tensor, past: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A block that is in parts (FSDP) is gathered for :func:`run_block`, which is no forward pass of it."""
    if not _in_parts(module):
        return block(module, x, past)
    return module.run_gathered(lambda m, x: block(m, x, None)[0], x), None, None  # nothing follows the texts


def _in_parts(module: nn.Module) -> bool:
    return hasattr(module, 'run_gathered')


def _run(
    p: _Parts, block: Callable, tokens: Tensor, past: list | None, start: int
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    dtype = p.transformer.get_cast_dtype()
    x = p.token_embedding(tokens).to(dtype)
    x = x + p.positional_embedding[start : start + tokens.shape[1]].to(dtype)
    kept = []
    for i, module in enumerate(p.transformer.resblocks):
        before = None if past is None else past[i]
        if p.transformer.grad_checkpointing and torch.is_grad_enabled():
            x, k, v = checkpoint(_call, block, module, x, before, use_reentrant=False)
        else:
            x, k, v = _call(block, module, x, before)
        kept.append((k, v))
    return x, kept


@dataclass(frozen=True)
class TextPlan:
    """How a batch of texts is run; made where the tokens are, on the CPU, so that no step waits for a GPU.

    Args:
        groups (tuple[tuple[int, int], ...]): Number of texts, and tokens of
            the longest, of every group.
        order (Tensor, optional): Texts in the order of the groups, (N, ).
            Defaults to None, as they stand.
        prefix (int): Tokens that all texts begin with and that are run once.
            Defaults to 0.
    """

    groups: tuple[tuple[int, int], ...]
    order: Tensor | None = None
    prefix: int = 0

    @property
    def length(self) -> int:
        """Tokens of the longest text."""
        return self.groups[-1][1]

    def to(self, device: torch.device) -> TextPlan:
        """The plan with its order on a device."""
        return self if self.order is None else replace(self, order=to_device(self.order, device))


def equal_groups(clip: nn.Module, tokens: Tensor, size: int = 64, share_prefix: bool = True) -> TextPlan:
    """Texts of like length in groups of one size, and their common prefix once: the least work.

    Args:
        clip (nn.Module): An open_clip model for which :func:`can_shorten`.
        tokens (Tensor): Token ids on the CPU, (N, L).
        size (int): Texts of a group. Defaults to 64.
        share_prefix (bool): Defaults to True.

    Returns:
        TextPlan: The plan.
    """
    lengths = text_lengths(clip, tokens)
    prefix = shared_prefix(tokens, lengths) if share_prefix and len(tokens) > 1 else 0
    ascending, order = lengths.sort()
    return TextPlan(tuple((len(part), int(part[-1])) for part in ascending.split(size)), order, prefix)


def few_groups(clip: nn.Module, tokens: Tensor, cost: int = 4096) -> TextPlan:
    """All texts at once, cut to the longest; several groups only where that saves more than they cost.

    Args:
        clip (nn.Module): See :func:`equal_groups`.
        tokens (Tensor): See :func:`equal_groups`.
        cost (int): What one more group costs, mainly launches, in tokens that
            could run meanwhile. Defaults to 4096.

    Returns:
        TextPlan: The plan.
    """
    lengths = text_lengths(clip, tokens)
    groups = length_groups(lengths, cost)
    return TextPlan(groups, lengths.argsort(stable=True) if len(groups) > 1 else None)


def plan_texts(clip: nn.Module, tokens: Tensor, device: torch.device | str = 'cpu') -> TextPlan:
    """Decide how a batch of texts is run on a device.

    On a CPU work counts. On a GPU small groups and the masked attention after
    a prefix take more time than the padding that they save
    (tools/benchmarks/gpu.py).

    Args:
        clip (nn.Module): See :func:`equal_groups`.
        tokens (Tensor): See :func:`equal_groups`.
        device (torch.device | str): Where they will be run.
            Defaults to 'cpu'.

    Returns:
        TextPlan: The plan.
    """
    return (equal_groups if torch.device(device).type == 'cpu' else few_groups)(clip, tokens)


def length_groups(lengths: Tensor, cost: int) -> tuple[tuple[int, int], ...]:
    """The groups of texts with the least work, padding and start of a group included.

    Args:
        lengths (Tensor): Tokens of every text, (N, ).
        cost (int): What a group costs by itself, in tokens.

    Returns:
        tuple[tuple[int, int], ...]: Texts and largest length of every group,
        shortest first.
    """
    sizes, counts = (x.tolist() for x in lengths.unique(return_counts=True))
    ends = list(accumulate(counts, initial=0))
    least, begins = [0], []
    for last, size in enumerate(sizes):
        work, first = min((least[i] + (ends[last + 1] - ends[i]) * size + cost, i) for i in range(last + 1))
        least.append(work)
        begins.append(first)
    groups, last = [], len(sizes)
    while last:
        first = begins[last - 1]
        groups.append((ends[last] - ends[first], sizes[last - 1]))
        last = first
    return tuple(groups[::-1])


def encode_text(clip: nn.Module, tokens: Tensor, plan: TextPlan | None = None, block: Callable | None = None) -> Tensor:
    """Encode texts as ``clip.encode_text`` does, without the work that cannot matter.

    Args:
        clip (nn.Module): An open_clip model for which :func:`can_shorten`.
        tokens (Tensor): Token ids of shape (N, L), padded after the
            end-of-text token.
        plan (TextPlan, optional): Of these tokens, its order on their device.
            Defaults to None, made here; of tokens on a GPU, whose lengths
            could only be waited for, all of full length.
        block (Callable, optional): Compiled form of :func:`run_block`.
            Defaults to None.

    Returns:
        Tensor: Text embeddings of shape (N, D), not normalised.
    """
    p = _Parts(clip)
    if plan is None:
        if tokens.device.type == 'cpu':
            plan = plan_texts(clip, tokens)
        else:
            plan = TextPlan(((len(tokens), tokens.shape[1]),))
    if _in_parts(p.transformer.resblocks[0]):
        # All processes gather a block together, so as often, whatever their texts are.
        plan = TextPlan(((len(tokens), plan.length),))
    run = partial(_run, p, block or run_block)
    past = None if plan.prefix == 0 else run(tokens[:1, : plan.prefix], None, 0)[1]
    if plan.order is not None:
        tokens = tokens[plan.order]
    pooled = []
    for part, (_, length) in zip(tokens.split([n for n, _ in plan.groups]), plan.groups):
        part = part[:, plan.prefix : length]
        x, _ = run(part, past, plan.prefix)
        pooled.append(text_global_pool(x, part, p.pool_type, eos_token_id=p.eos_id))
    x = torch.cat(pooled)
    if plan.order is not None:
        x = x[plan.order.argsort()]
    x = p.ln_final(x)  # LayerNorm is per token: only pooled ones need it
    if p.projection is None:
        return x
    return p.projection(x) if isinstance(p.projection, nn.Linear) else x @ p.projection
