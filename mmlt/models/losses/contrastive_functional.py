"""Losses over the similarities of a global batch, by tiles: no matrix of all pairs is kept for the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, islice

import torch
from mmengine.dist import get_world_size
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmlt.errors import InputError
from mmlt.utils import gather
from mmlt.utils.precision import exact_matmul

# 134 MB in single precision: what is kept for the backward pass, and on a GPU the size of a tile. A matrix that is not
# larger is one tile that is never computed again.
MAX_LOGITS = 2**25
_GPU_WIDTH = 8192  # columns; of a row of them a softmax still fits into the shared memory
_CPU_TILE, _CPU_WIDTH = 2**19, 1024  # fits into the cache


@dataclass
class Tiles:
    """How a matrix of logits is cut.

    Args:
        parts (list[tuple[slice, slice]]): Rows and columns of every tile.
        num_kept (int): So many of the first are kept for the backward pass.
    """

    parts: list[tuple[slice, slice]]
    num_kept: int


def _split(size: int, most: int) -> list[slice]:
    """Parts of almost the same size, so that none is too small to be worth its launch."""
    count = max(1, -(-size // most))
    return [slice(size * i // count, size * (i + 1) // count) for i in range(count)]


def make_tiles(rows: int, columns: int, device: torch.device, max_logits: int | None = None, share: int = 1) -> Tiles:
    """Cut a matrix of logits: into few large tiles for a GPU, into ones of the size of the cache for a CPU.

    Args:
        rows (int): Of the matrix.
        columns (int): Of the matrix.
        device (torch.device): Where it is computed.
        max_logits (int, optional): Logits that may be kept for the backward
            pass; no tile has more. Defaults to None, ``MAX_LOGITS``.
        share (int): Number of matrices that share them. Defaults to 1.

    Returns:
        Tiles: Those of the first columns first.

    Raises:
        InputError: ``max_logits`` is not positive.
    """
    if max_logits is not None and max_logits < 1:
        raise InputError(f'max_logits is {max_logits}; give a positive number of logits, or None for the default.')
    most = max(1, (max_logits or MAX_LOGITS) // share)
    on_cpu = device.type == 'cpu'
    tile, width = (min(most, _CPU_TILE), _CPU_WIDTH) if on_cpu else (most, _GPU_WIDTH)
    width = min(width, columns, tile)
    parts = [(r, c) for c in _split(columns, width) for r in _split(rows, max(1, tile // max(1, width)))]
    sizes = [(r.stop - r.start) * (c.stop - c.start) for r, c in parts]
    return Tiles(parts, sum(total <= most for total in accumulate(sizes)))


@dataclass
class Side:
    """Logits of queries with keys, and those of a teacher; both in tiles.

    Args:
        queries (Tensor): Multiplied by the logit scale, (n, D).
        keys (Tensor): Shape (N, D).
        tiles (Tiles): How they are cut.
        soft_queries (Tensor, optional): The teacher's, multiplied by its
            logit scale, (n, E). Defaults to None.
        soft_keys (Tensor, optional): The teacher's, (N, E).
            Defaults to None.
        kept (list[Tensor]): Logits of the first tiles.
        soft_kept (list[Tensor]): The teacher's.
    """

    queries: Tensor
    keys: Tensor
    tiles: Tiles
    soft_queries: Tensor | None = None
    soft_keys: Tensor | None = None
    kept: list[Tensor] = field(default_factory=list)
    soft_kept: list[Tensor] = field(default_factory=list)


def _log_sum(logits: Tensor, dim: int) -> Tensor:
    """logsumexp; along rows one pass over the memory for reading and one for writing, where it needs six."""
    if dim == 1:
        return logits[:, 0] - logits.log_softmax(1)[:, 0]
    return logits.logsumexp(dim)


class LogSums:
    """Log-sums of the rows, or of the columns, of a matrix that comes in tiles.

    With a teacher also those of its logits, and ``mean``, the means of the
    student's logits under the teacher's softmax.

    Args:
        size (int): Number of rows, or of columns.
        like (Tensor): Of the logits' type and device.
        teacher (bool): Whether there is one. Defaults to False.
    """

    def __init__(self, size: int, like: Tensor, teacher: bool = False):
        self.hard = like.new_full((size,), -torch.inf)
        self.soft = torch.full_like(self.hard, -torch.inf) if teacher else None
        self.mean = torch.zeros_like(self.hard) if teacher else None

    def add(self, part: slice, dim: int, logits: Tensor, soft: Tensor | None = None) -> None:
        """Take in one tile.

        Args:
            part (slice): Its rows, or its columns.
            dim (int): 1 for the sums of rows, 0 for those of columns.
            logits (Tensor): The student's.
            soft (Tensor, optional): The teacher's. Defaults to None.
        """
        self.hard[part] = torch.logaddexp(self.hard[part], _log_sum(logits, dim))
        if soft is None:
            return
        own, before = _log_sum(soft, dim), self.soft[part]
        mean = (soft - own.unsqueeze(dim)).exp_().mul_(logits).sum(dim)
        total = torch.logaddexp(before, own)
        self.mean[part] = mean * (own - total).exp_() + self.mean[part] * (before - total).exp_()
        self.soft[part] = total


def scan(side: Side, columns: bool) -> tuple[LogSums, LogSums | None]:
    """Go once through the tiles; those to be kept are put into ``side``.

    Args:
        side (Side): The matrix.
        columns (bool): Sum up the columns too.

    Returns:
        tuple[LogSums, LogSums | None]: Of the rows and of the columns.
    """
    teacher = side.soft_keys is not None
    of_rows = LogSums(len(side.queries), side.queries, teacher)
    of_columns = LogSums(len(side.keys), side.queries, teacher) if columns else None
    for i, (r, c) in enumerate(side.tiles.parts):
        logits = side.queries[r] @ side.keys[c].t()
        soft = side.soft_queries[r] @ side.soft_keys[c].t() if teacher else None
        of_rows.add(r, 1, logits, soft)
        if columns:
            of_columns.add(c, 0, logits, soft)
        if i < side.tiles.num_kept:
            side.kept.append(logits)
            if teacher:
                side.soft_kept.append(soft)
    return of_rows, of_columns


def _both_softmaxes(queries: Tensor, keys: Tensor, kept: Tensor | None, rows: Tensor, columns: Tensor) -> Tensor:
    """``exp(l_ij + r_i) + exp(l_ij + c_j)`` of one tile; logits that were kept stay as they are."""
    logits = queries @ keys.t() if kept is None else kept
    weights = (logits + rows[:, None]).exp_()
    return weights.add_((logits + columns).exp_())


def _both_softmaxes_fused(queries: Tensor, keys: Tensor, kept: Tensor | None, rows: Tensor, columns: Tensor) -> Tensor:
    """The same with a third of the memory traffic, but a logarithm for every logit, which on a CPU costs more."""
    weights = torch.logaddexp(rows[:, None], columns)
    weights = weights.addmm_(queries, keys.t()) if kept is None else weights.add_(kept)
    return weights.exp_()


def pull_back(side: Side, own: Tensor, others: Tensor, d_queries: Tensor | None, into_keys=None) -> None:
    """Add the gradient by the logits, times keys and queries; tiles that were not kept are computed again.

    Args:
        side (Side): The matrix.
        own (Tensor): What is added to the rows' logits before the
            exponential, (1, n); with a teacher (2, n), for both.
        others (Tensor): The same of the columns, (1, N) or (2, N).
        d_queries (Tensor, optional): Shape (n, D), is added to.
        into_keys (tuple[Tensor, Tensor], optional): Queries without the logit scale,
            (n, D), and what their products are added to, (N, D).
            Defaults to None.
    """
    both = _both_softmaxes if own.device.type == 'cpu' else _both_softmaxes_fused
    for i, (rows, columns) in enumerate(side.tiles.parts):
        kept = side.kept[i] if i < len(side.kept) else None
        weights = both(side.queries[rows], side.keys[columns], kept, own[0, rows], others[0, columns])
        if side.soft_keys is not None:
            kept = side.soft_kept[i] if i < len(side.soft_kept) else None
            queries, keys = side.soft_queries[rows], side.soft_keys[columns]
            weights -= both(queries, keys, kept, own[1, rows], others[1, columns])
        if d_queries is not None:
            d_queries[rows].addmm_(weights, side.keys[columns])
        if into_keys is not None:
            into_keys[1][columns].addmm_(weights.t(), into_keys[0][rows])


@dataclass
class Batch:
    """What the loss of a global batch is made of, beside the features of this process; nothing has a gradient.

    Args:
        image (Tensor): Image features of all N rows, (N, D).
        text (Tensor): Text features of all rows, (N, D).
        pulls (tuple[Tensor, Tensor], optional): What the own images and texts
            are drawn to, (n, D) each: the sum over both directions.
            Defaults to None, what the teacher says.
        log_weights (tuple[Tensor, Tensor], optional): Logarithms of the
            weights of the own rows in both directions, (n, ) each.
            Defaults to None, 1.
        teacher (tuple[Tensor, ...], optional): The teacher's features, own
            images (n, E) and own texts (n, E), multiplied by its logit scale, images
            and texts of all rows, (N, E). Defaults to None.
        max_logits (int, optional): See :func:`make_tiles`.
    """

    image: Tensor
    text: Tensor
    pulls: tuple[Tensor, Tensor] | None = None
    log_weights: tuple[Tensor, Tensor] | None = None
    teacher: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
    max_logits: int | None = None

    def sides(self, image: Tensor, text: Tensor, keep: bool = False) -> list[Side]:
        """The matrices that this process computes.

        In one process that of images with texts, which has both directions; in
        several the own rows of each direction.

        Args:
            image (Tensor): Own images multiplied by the logit scale, (n, D).
            text (Tensor): Own texts multiplied by the logit scale, (n, D).
            keep (bool): Whether tiles are kept. Defaults to False.

        Returns:
            list[Side]: One or two.
        """
        pairs = [(image, self.text), (text, self.image)]
        soft: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * 2
        if self.teacher is not None:
            soft_image, soft_text, all_soft_image, all_soft_text = self.teacher
            soft = [(soft_image, all_soft_text), (soft_text, all_soft_image)]
        number = 1 if get_world_size() == 1 else 2
        share = number * (1 if self.teacher is None else 2)
        tiles = make_tiles(len(image), len(self.text), image.device, self.max_logits, share)
        if not keep:
            tiles.num_kept = 0
        return [Side(*pair, tiles, *others) for pair, others in list(zip(pairs, soft))[:number]]


def scan_both(sides: list[Side]) -> tuple[LogSums, LogSums]:
    """Log-sums of the own rows in both directions.

    Args:
        sides (list[Side]): See :meth:`Batch.sides`.

    Returns:
        tuple[LogSums, LogSums]: Of the images and of the texts.
    """
    with exact_matmul(sides[0].queries.device):
        if len(sides) == 1:
            return scan(sides[0], columns=True)
        return scan(sides[0], columns=False)[0], scan(sides[1], columns=False)[0]


class _GlobalLoss(torch.autograd.Function):
    """This process's rows of both directions; the gradient needs no communication of gradients.

    With l the logits, a and b the log-sums of images and texts, w and v their weights, and a prime for the teacher's,
    the gradient by l_ij is ``w_i exp(l_ij - a_i) + v_j exp(l_ij - b_j)`` less the same of the teacher, or less what is
    known beforehand. A row of one direction is a column of the other: with the log-sums of all rows (gathered vectors)
    every process finds the whole gradient of its own features by itself.
    """

    @staticmethod
    def forward(ctx, image, text, logit_scale, batch, needed):
        sides = batch.sides(logit_scale * image, logit_scale * text, keep=needed)
        sums = scan_both(sides)
        weights = batch.log_weights or (None, None)
        rows, offsets = 0, []
        for i, (own, x) in enumerate(((sums[0], image), (sums[1], text))):
            matched = own.mean if batch.pulls is None else (x * batch.pulls[i]).sum(1).mul_(logit_scale / 2)
            rows = rows + (own.hard if weights[i] is None else own.hard * weights[i].exp()) - matched
            offsets.append(-own.hard if weights[i] is None else weights[i] - own.hard)
            if own.soft is not None:
                offsets.append(-own.soft)
        if needed:
            offsets = torch.stack(offsets, 1)
            pulls = batch.pulls or (None, None)
            tensors = [x for s in sides for x in (s.keys, s.soft_queries, s.soft_keys, *s.kept, *s.soft_kept)]
            ctx.layout = [(s.tiles, len(s.kept), len(s.soft_kept)) for s in sides]
            ctx.save_for_backward(image, text, logit_scale, offsets, gather(offsets, check=False), *pulls, *tensors)
        return rows.mean() / 2

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        image, text, logit_scale, offsets, all_offsets, *pulls = ctx.saved_tensors[:7]
        tensors, sides = iter(ctx.saved_tensors[7:]), []
        for x, (tiles, kept, soft_kept) in zip((image, text), ctx.layout):
            keys, soft_queries, soft_keys = islice(tensors, 3)
            kept, soft_kept = list(islice(tensors, kept)), list(islice(tensors, soft_kept))
            sides.append(Side(logit_scale * x, keys, tiles, soft_queries, soft_keys, kept, soft_kept))
        needs_image, needs_text, needs_scale = ctx.needs_input_grad[:3]
        needed = needs_image or (needs_scale and not needs_text), needs_text
        d_image, d_text = (
            (torch.zeros_like(x) if pull is None else -pull) if need else None
            for x, pull, need in zip((image, text), pulls, needed)
        )
        # By rows of one block: what is strided would not be vectorised on a CPU.
        of_image, of_text = offsets.t().contiguous().chunk(2)
        of_all_images, of_all_texts = all_offsets.t().contiguous().chunk(2)
        with exact_matmul(image.device):
            if len(sides) == 1:
                into_keys = None if d_text is None else (image, d_text)
                pull_back(sides[0], of_image, of_all_texts, d_image, into_keys)
            else:
                if d_image is not None:
                    pull_back(sides[0], of_image, of_all_texts, d_image)
                if d_text is not None:
                    pull_back(sides[1], of_text, of_all_images, d_text)
        # DDP divides the sum over processes by their number: so per row of this process, not of the global batch.
        step = grad / (2 * len(image))
        d_scale = None
        if needs_scale:  # the logits are linear in the logit scale
            d_scale = step * ((image * d_image).sum() if d_image is not None else (text * d_text).sum())
        d_image = d_image.mul_(step * logit_scale) if needs_image else None
        return d_image, d_text.mul_(step * logit_scale) if needs_text else None, d_scale, None, None


def global_loss(image: Tensor, text: Tensor, logit_scale: Tensor, batch: Batch) -> Tensor:
    """Weighted cross-entropy of this process's rows in both directions.

    With l the logits of a row, p its target distribution and w its weight::

        L_i = w_i logsumexp_j l_ij - sum_j p_ij l_ij

    Args:
        image (Tensor): Own image features, (n, D).
        text (Tensor): Own text features, (n, D).
        logit_scale (Tensor): The logit scale, a scalar.
        batch (Batch): All the rest.

    Returns:
        Tensor: A scalar, the mean over own rows and both directions.
    """
    needed = torch.is_grad_enabled() and any(x.requires_grad for x in (image, text, logit_scale))
    return _GlobalLoss.apply(image, text, logit_scale, batch, needed)
