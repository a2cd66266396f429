"""The language branch of the LGR head without its large intermediates.

Eq. 4-7 of VL-LTR, for one image embedding e and the anchor embeddings V of a
class, M of them::

    a = softmax(W_q LN(e) . (W_k LN(V)) / sqrt(D)),  G = a V,  cos(e, G)

Neither keys nor G are made. With ``u = (gamma_k * W_k^T W_q LN(e)) / sqrt(D)``,
centred over its D entries, the scores are ``(u . V) / std(V)``: terms that are
equal for all sentences of a class drop out of the softmax, among them beta_k
and the bias of W_k. With ``Gram = V V^T`` the norm of G is
``sqrt(a Gram a)``, and ``e . G = a (V e)``. One product of [u; e] with V gives
all there is; what is kept for the backward pass is (2 B, C, M).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlt.utils.precision import exact_matmul


class AnchorTable:
    """What of the anchor sentences is needed in every step, computed once.

    Args:
        values (Tensor): Sentence embeddings, (C, M, D), zero where padded.
        counts (Tensor): Sentences of every class, (C, ), at least 1.
        eps (float): Of the LayerNorm of the keys. Defaults to 1e-5.
        chunk (int, optional): Classes at a time. Defaults to None: 32 on a
            CPU, whose caches they fit in, and 1024 on a GPU.
    """

    def __init__(self, values: Tensor, counts: Tensor, eps: float = 1e-5, chunk: int | None = None):
        self.values, self.counts = values, counts
        self.chunk = (32 if values.device.type == 'cpu' else 1024) if chunk is None else chunk
        self.inv_std = (values.var(-1, unbiased=False) + eps).rsqrt()  # (C, M)
        with exact_matmul(values.device):
            self.gram = torch.bmm(values, values.transpose(1, 2))  # (C, M, M)
        longest = [int(part.max()) for part in counts.split(self.chunk)]
        shortest = [int(part.min()) for part in counts.split(self.chunk)]
        self._bounds = list(zip(range(0, len(counts), self.chunk), shortest, longest))
        sizes = [len(part) * most for part, most in zip(counts.split(self.chunk), longest)]
        self.num_slots = sum(sizes)  # places for sentences, padding within the groups included

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor | None]]:
        """Groups of classes: where, values (c, m, D), inv_std (c, m), Gram (c, m, m), padding (c, m) or None.

        Each group is cut to its own largest number of sentences.
        """
        for start, least, most in self._bounds:
            part = slice(start, start + self.chunk)
            padding = None
            if least < most:
                padding = torch.arange(most, device=self.counts.device) >= self.counts[part, None]
            yield (
                part,
                self.values[part, :most],
                self.inv_std[part, :most],
                self.gram[part, :most, :most],
                padding,
            )


def group_similarity(
    queries: Tensor, values: Tensor, inv_std: Tensor, gram: Tensor, padding: Tensor | None
) -> tuple[Tensor, ...]:
    """Cosines of one group of classes, and what their derivative needs.

    Args:
        queries (Tensor): u of :func:`fold_query` above the normalised image
            embeddings, (2 B, D).
        values (Tensor): See :meth:`AnchorTable.chunks`; so for the rest.
        inv_std (Tensor): Shape (c, m).
        gram (Tensor): Shape (c, m, m).
        padding (Tensor, optional): Shape (c, m).

    Returns:
        tuple[Tensor]: The cosines, (B, c); then attention (B, c, m), ``e . V``,
        attention times Gram, 1 / ``|G|`` and ``e . G``.
    """
    size = queries.shape[0] // 2  # not len(), which an export would take for a constant
    both = (queries @ values.flatten(0, 1).t()).view(queries.shape[0], *values.shape[:2])
    scores = both[:size].mul_(inv_std)
    if padding is not None:
        scores.masked_fill_(padding, -torch.inf)
    weights, along = scores.softmax(-1), both[size:]
    with exact_matmul(gram.device):
        spread = torch.bmm(weights.transpose(0, 1), gram).transpose(0, 1)
    inv_norm = (spread * weights).sum(-1).clamp_(min=1e-24).rsqrt_()
    dot = (weights * along).sum(-1)
    return dot * inv_norm, weights, along, spread, inv_norm, dot


class _TextSimilarity(torch.autograd.Function):
    """cos(e, G) of all classes; the forward pass keeps its own derivative and nothing else."""

    @staticmethod
    def forward(ctx, folded, image, table, detach_norm):
        size, num_classes = len(image), len(table.counts)
        queries = torch.cat([folded, image])
        cosine = image.new_empty(size, num_classes)
        ctx.table, derivatives = table, []
        needed = any(ctx.needs_input_grad[:2])
        # One block for all groups: small pieces would leave holes in the memory.
        free = image.new_empty(2 * size * table.num_slots) if needed else None
        for part, values, inv_std, gram, padding in table.chunks():
            out, weights, along, spread, inv_norm, dot = group_similarity(queries, values, inv_std, gram, padding)
            cosine[:, part] = out
            if needed:
                factor = 0 if detach_norm else (dot * inv_norm.square()).unsqueeze(-1)
                along = along - dot.unsqueeze(-1) if detach_norm else along.addcmul(spread, factor, value=-1)
                # Zero on paper; it removes the rounding errors that sentences almost equal to each other have in
                # common, and which would otherwise drown the difference.
                along -= (weights * along).sum(-1, keepdim=True)
                derivative, free = free[: 2 * weights.numel()].view(2, *weights.shape), free[2 * weights.numel() :]
                torch.mul(weights, inv_norm.unsqueeze(-1), out=derivative[1])
                torch.mul(derivative[1], along.mul_(inv_std), out=derivative[0])
                derivatives.append(derivative)
        ctx.save_for_backward(*derivatives)  # freed by the backward pass
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        size = len(grad)
        table = ctx.table
        d_queries = grad.new_zeros(2 * size, table.values.shape[2])
        for (part, values, *_), derivative in zip(table.chunks(), ctx.saved_tensors):
            weighted = derivative * grad[:, part].unsqueeze(-1)
            d_queries.addmm_(weighted.view(2 * size, -1), values.flatten(0, 1))
        return d_queries[:size], d_queries[size:], None, None


def fold_query(query: Tensor, key_weight: Tensor, key_norm_weight: Tensor) -> Tensor:
    """Take the keys' projection and LayerNorm weight into the query.

    Args:
        query (Tensor): W_q LN(e), (B, D).
        key_weight (Tensor): W_k, (D, D).
        key_norm_weight (Tensor): gamma_k, (D, ).

    Returns:
        Tensor: u, centred, (B, D).
    """
    folded = (query @ key_weight) * (key_norm_weight * query.shape[-1] ** -0.5)
    return folded - folded.mean(-1, keepdim=True)


def text_similarity(folded: Tensor, image: Tensor, table: AnchorTable, detach_norm: bool = False) -> Tensor:
    """Cosine of every image with the gathered sentences of every class (VL-LTR, Eq. 4-7).

    Args:
        folded (Tensor): See :func:`fold_query`, (B, D).
        image (Tensor): Normalised image embeddings, (B, D).
        table (AnchorTable): Anchor sentences of C classes.
        detach_norm (bool): No gradient through the norm of G, as the published
            code has it on iNaturalist. Defaults to False.

    Returns:
        Tensor: Shape (B, C).
    """
    if not torch.is_grad_enabled():  # plain operations, which can be exported
        queries = torch.cat([folded, image])
        return torch.cat([group_similarity(queries, *group)[0] for _, *group in table.chunks()], 1)
    return _TextSimilarity.apply(folded, image, table, detach_norm)


def sentence_attention(folded: Tensor, classes: Tensor, table: AnchorTable) -> Tensor:
    """Attention over the sentences of one class for every image (VL-LTR, Eq. 6).

    Args:
        folded (Tensor): See :func:`fold_query`, (B, D).
        classes (Tensor): A class for every image, (B, ).
        table (AnchorTable): Anchor sentences.

    Returns:
        Tensor: Weights of shape (B, M), zero where padded.
    """
    scores = torch.bmm(table.values[classes], folded.unsqueeze(-1)).squeeze(-1) * table.inv_std[classes]
    padding = torch.arange(scores.shape[1], device=scores.device) >= table.counts[classes, None]
    return scores.masked_fill(padding, -torch.inf).softmax(-1)
