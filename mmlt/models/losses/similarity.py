"""Softmax over all pairs of two sets of features, tile by tile.

A matrix of all pairs is never kept for the backward pass, where there are many:
tiles of rows are computed, used, and computed again when the gradient is asked
for. Few pairs are one tile, and that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlt.utils.precision import exact_matmul

# Pairs of a tile: on a GPU large products are fast, on a CPU a tile should stay in the cache. So many are kept, too.
_PAIRS = {'cpu': 2**20, 'other': 2**24}
KEPT = 2**23


def row_tiles(rows: int, columns: int, device: torch.device) -> Iterator[slice]:
    """Slices of the rows whose pairs with all columns make a tile.

    Args:
        rows (int): N.
        columns (int): M.
        device (torch.device): Where they are computed.

    Returns:
        Iterator[slice]: They cover all rows.
    """
    if rows * columns <= KEPT:
        return iter([slice(0, rows)])
    size = max(1, _PAIRS.get(device.type, _PAIRS['other']) // columns)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _logits(queries: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    return (queries * scale) @ keys.t()


def row_log_sums(queries: Tensor, keys: Tensor, scale: Tensor) -> tuple[Tensor, Tensor | None]:
    """``logsumexp`` of every row of ``scale * queries @ keys.T``, without gradient.

    Args:
        queries (Tensor): Shape (N, D).
        keys (Tensor): Shape (M, D).
        scale (Tensor): A scalar.

    Returns:
        tuple[Tensor, Tensor | None]: Log-sums of shape (N, ), and the logits
        (N, M) where they are few enough to be kept.
    """
    with exact_matmul(queries.device):
        tiles = list(row_tiles(len(queries), len(keys), queries.device))
        if len(tiles) == 1:
            logits = _logits(queries, keys, scale)
            return logits.logsumexp(1), logits if logits.numel() <= KEPT else None
        return torch.cat([_logits(queries[part], keys, scale).logsumexp(1) for part in tiles]), None


def weighted_keys(
    queries: Tensor,
    keys: Tensor,
    scale: Tensor,
    over_rows: Tensor,
    d_rows: Tensor,
    over_columns: Tensor | None,
    d_columns: Tensor | None,
    kept: Tensor | None = None,
    d_keys: Tensor | None = None,
) -> Tensor:
    """Sums of the keys, weighted by the derivative of the log-sums by their logits.

    The weight of key j for query i is ``exp(L_ij - over_rows_i) * d_rows_i +
    exp(L_ij - over_columns_j) * d_columns_j``.

    Args:
        queries (Tensor): Shape (N, D).
        keys (Tensor): Shape (M, D).
        scale (Tensor): A scalar.
        over_rows (Tensor): Log-sums of the rows of the logits L, (N, ).
        d_rows (Tensor): Their gradients, (N, ).
        over_columns (Tensor, optional): Log-sums of whole columns, (M, ).
        d_columns (Tensor, optional): Their gradients, (M, ).
        kept (Tensor, optional): The logits, where they were kept.
            Defaults to None.
        d_keys (Tensor, optional): The queries' sums are added here, (M, D).
            Defaults to None.

    Returns:
        Tensor: Shape (N, D).
    """
    sums = torch.empty_like(queries)
    with exact_matmul(queries.device):
        for part in row_tiles(len(queries), len(keys), queries.device):
            tile = _logits(queries[part], keys, scale) if kept is None else kept
            weights = (tile - over_rows[part, None]).exp_().mul_(d_rows[part, None])
            if over_columns is not None and d_columns is not None:
                weights.add_((tile - over_columns).exp_().mul_(d_columns))
            torch.mm(weights, keys, out=sums[part])
            if d_keys is not None:
                d_keys.addmm_(weights.t(), queries[part])
    return sums


class _LogSumExp(torch.autograd.Function):
    """Log-sums of ``exp(scale * queries @ keys.T)`` over every row, and over every column if asked for."""

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, scale: Tensor, columns: bool):
        over_columns = None
        if not columns:
            over_rows, kept = row_log_sums(queries, keys, scale)
        elif len(queries) * len(keys) <= KEPT:
            over_rows, kept = row_log_sums(queries, keys, scale)
            over_columns = kept.logsumexp(0)
        else:
            over_rows, over_columns, kept = *_both_log_sums(queries, keys, scale), None
        ctx.save_for_backward(queries, keys, scale, over_rows, over_columns, kept)
        return over_rows, over_columns

    @staticmethod
    @once_differentiable
    def backward(ctx, d_rows, d_columns):
        queries, keys, scale, over_rows, over_columns, kept = ctx.saved_tensors
        d_keys = torch.zeros_like(keys) if ctx.needs_input_grad[1] else None
        sums = weighted_keys(queries, keys, scale, over_rows, d_rows, over_columns, d_columns, kept, d_keys)
        d_scale = (queries * sums).sum() if ctx.needs_input_grad[2] else None
        return sums.mul_(scale), None if d_keys is None else d_keys.mul_(scale), d_scale, None


def _both_log_sums(queries: Tensor, keys: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sums over rows, and over columns with a running maximum."""
    rows, largest = [], torch.full_like(keys[:, 0], -torch.inf)
    total = torch.zeros_like(largest)
    with exact_matmul(queries.device):
        for part in row_tiles(len(queries), len(keys), queries.device):
            tile = _logits(queries[part], keys, scale)
            rows.append(tile.logsumexp(1))
            new = torch.maximum(largest, tile.amax(0))
            total = total * (largest - new).exp_() + tile.sub_(new).exp_().sum(0)
            largest = new
    return torch.cat(rows), largest + total.log()


def log_sum_exp(
    queries: Tensor, keys: Tensor, scale: Tensor | float, columns: bool = False
) -> tuple[Tensor, Tensor | None]:
    """``logsumexp`` of all logits ``scale * queries @ keys.T`` over rows, and over columns.

    Args:
        queries (Tensor): Shape (N, D), in single precision at least.
        keys (Tensor): Shape (M, D).
        scale (Tensor | float): A scalar.
        columns (bool): Whether the second is asked for. Defaults to False.

    Returns:
        tuple[Tensor, Tensor | None]: Shapes (N, ) and (M, ).
    """
    scale = torch.as_tensor(scale, dtype=queries.dtype, device=queries.device)
    return _LogSumExp.apply(queries, keys, scale, columns)


class _SoftmaxMeans(torch.autograd.Function):
    """``P @ values`` and ``P'.T @ others`` with the row-wise and column-wise softmax of a teacher's logits."""

    @staticmethod
    def forward(ctx, values, others, queries, keys, scale, over_rows, over_columns):
        means = values.new_empty(len(queries), values.shape[1])
        mixed = None if others is None else others.new_zeros(len(keys), others.shape[1])
        with exact_matmul(queries.device):
            for part in row_tiles(len(queries), len(keys), queries.device):
                tile = _logits(queries[part], keys, scale)
                torch.mm((tile - over_rows[part, None]).exp_(), values, out=means[part])
                if mixed is not None:
                    mixed.addmm_((tile - over_columns).exp_().t(), others[part])
        ctx.save_for_backward(queries, keys, scale, over_rows, over_columns)
        return means, mixed

    @staticmethod
    @once_differentiable
    def backward(ctx, d_means, d_mixed):
        queries, keys, scale, over_rows, over_columns = ctx.saved_tensors
        d_values = d_means.new_zeros(len(keys), d_means.shape[1])
        d_others = None if d_mixed is None else d_mixed.new_empty(len(queries), d_mixed.shape[1])
        with exact_matmul(queries.device):
            for part in row_tiles(len(queries), len(keys), queries.device):
                tile = _logits(queries[part], keys, scale)
                d_values.addmm_((tile - over_rows[part, None]).exp_().t(), d_means[part])
                if d_others is not None:
                    torch.mm((tile - over_columns).exp_(), d_mixed, out=d_others[part])
        return d_values, d_others, None, None, None, None, None


def softmax_means(
    values: Tensor,
    queries: Tensor,
    keys: Tensor,
    scale: Tensor | float,
    over_rows: Tensor,
    others: Tensor | None = None,
    over_columns: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Means of values, weighted by the softmax of logits that have no gradient.

    With P the softmax of ``scale * queries @ keys.T`` over every row, and P'
    that over every column: ``P @ values`` and ``P'.T @ others``.

    Args:
        values (Tensor): Shape (M, E).
        queries (Tensor): Shape (N, D), no gradient; so for the rest.
        keys (Tensor): Shape (M, D).
        scale (Tensor | float): A scalar.
        over_rows (Tensor): Of :func:`log_sum_exp`, (N, ).
        others (Tensor, optional): Shape (N, E). Defaults to None.
        over_columns (Tensor, optional): Shape (M, ), with ``others``.
            Defaults to None.

    Returns:
        tuple[Tensor, Tensor | None]: Shapes (N, E) and (M, E).
    """
    scale = torch.as_tensor(scale, dtype=queries.dtype, device=queries.device)
    return _SoftmaxMeans.apply(values, others, queries, keys, scale, over_rows, over_columns)
