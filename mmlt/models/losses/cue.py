"""CUE: extra positives beside the label, in two binary losses on logits that the class priors raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor

from mmlt.errors import InputError
from mmlt.models.losses.common import TrainingCounts, reduce_scored, scored
from mmlt.models.losses.neighbours import neighbour_table, read_neighbours
from mmlt.registry import MODELS
from mmlt.utils.class_info import ClassInfo, not_told


def zero_shot_targets(scores: Tensor, target: Tensor, top_k: int) -> Tensor:
    """The label, and the k classes that a frozen zero-shot model scores best beside it.

    As in CUE's published code (``vlm_multi_fn`` of ``utils/cue_utils.py``) the
    label does not count among the k. Of equal
    scores the class of the lower index comes first, on every device.

    Args:
        scores (Tensor): Of the zero-shot model, (N, C); only their order
            counts.
        target (Tensor): Labels of shape (N, ), or class probabilities of shape
            (N, C), for example of mixup: classes that have any do not count
            among the k, and keep it.
        top_k (int): k, at most C - 1.

    Returns:
        Tensor: In [0, 1], shape (N, C), of ``scores``' type.

    Raises:
        InputError: There are no k classes beside the label.
    """
    num_classes = scores.shape[1]
    if not 1 <= top_k < num_classes:
        raise InputError(
            f'CUELoss takes top_k={top_k} classes beside the label, but there are {num_classes} classes: give a top_k '
            f'from 1 to {num_classes - 1}.'
        )
    own = _as_probabilities(target, num_classes, scores.dtype)
    # topk() promises no order of equal scores; a stable sort does.
    ranked = scores.masked_fill(own > 0, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    extra = torch.zeros_like(own).scatter(1, ranked[:, :top_k], 1.0)
    return torch.where(own > 0, own, extra)


def neighbour_targets(target: Tensor, table: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The label, and the neighbours of its class; ``get_multi_fn`` of CUE's published code.

    Args:
        target (Tensor): Labels of shape (N, ), or class probabilities of shape
            (N, C): each class lends its own to its neighbours, up to 1 in sum.
        table (Tensor): Neighbours of every class, (C, M), see
            :func:`neighbour_table`.
        dtype (torch.dtype): Of the result. Defaults to torch.float32.

    Returns:
        Tensor: In [0, 1], shape (N, C).
    """
    own = _as_probabilities(target, len(table), dtype)
    if target.ndim == 1:
        return own.scatter(1, table[target], 1.0)
    classes = torch.arange(len(table), device=table.device).unsqueeze(1).expand_as(table)
    lent = own[:, classes.flatten()] * (table != classes).flatten()  # places without a neighbour name the class itself
    return own.index_add(1, table.flatten(), lent.to(dtype)).clamp(max=1)


def _as_probabilities(target: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    if target.ndim == 2:
        return target.to(dtype)
    return torch.zeros(len(target), num_classes, dtype=dtype, device=target.device).scatter(1, target.unsqueeze(1), 1.0)


def binary_logit_adjusted_loss(logits: Tensor, targets: Tensor, counts: Tensor, tau: float = 1.0) -> Tensor:
    """Binary cross-entropy of logits that the class priors raise ("BLA" in CUE), the mean over the classes.

    ``mean_c BCE(sigmoid(z_c + tau * log pi_c), y_c)`` with ``pi_c = n_c / sum
    n``; ``get_multi_bla_loss`` of the published code.

    Args:
        logits (Tensor): z of shape (N, C).
        targets (Tensor): y in [0, 1], shape (N, C).
        counts (Tensor): Training images n of every class, shape (C, ), floats.
        tau (float): Strength of the adjustment. Defaults to 1.0.

    Returns:
        Tensor: Shape (N, ).
    """
    adjusted = logits + tau * (counts / counts.sum()).log()
    return F.binary_cross_entropy_with_logits(adjusted, targets, reduction='none').mean(1)


@MODELS.register_module()
class CUELoss(TrainingCounts):
    """A loss for one label, and two binary ones whose extra positives keep related classes related (CUE).

    Zhang et al., "CUE: Concept-Aware Multi-Label Expansion to Mitigate Concept
    Confusion in Long-Tailed Learning", CVPR 2026::

        L = L_base + w_a * BLA(z, y_a) + w_b * BLA(z, y_b)

    with BLA of :func:`binary_logit_adjusted_loss`, y_a of
    :func:`zero_shot_targets` (per image, by a frozen zero-shot model, which
    :class:`CUEClassifier` has) and y_b of :func:`neighbour_targets` (per class,
    by a file of one's own; the paper asks a language model for it,
    ``mmlt neighbours`` takes nearest class texts).

    The paper's text was not at hand: both weights of 0.5, k = 5 beside the
    label, tau = 1 and the mean over classes are those of the published code
    (github.com/zhangruichi/CUE, ``utils/cue_utils.py`` and
    ``utils/config.py``; MIT). Ours are the order of equal scores and what
    becomes of mixed labels.

    Args:
        base (dict, optional): Any loss of MMPretrain or mmlt for one label; it
            has its own ``class_counts``. Defaults to None,
            ``dict(type='mmlt.LogitAdjustedLoss')``, as in the paper.
        zero_shot_weight (float): w_a; 0 leaves the term out.
            Defaults to 0.5.
        neighbour_weight (float): w_b; 0 leaves the term out. Defaults to 0.5.
        neighbours (str | dict, optional): A JSON file that maps class names to
            lists of class names, or that mapping, see
            :func:`neighbour_table`. A class that is not in it has no
            neighbours. Read when a training begins. Defaults to None.
        top_k (int): k. Defaults to 5.
        tau (float): Strength of the adjustment in both terms; that of the base
            is its own. Defaults to 1.0.
        class_counts (Sequence[int], optional): Training images of every class.
            Defaults to None, those of the dataset, which
            :class:`ClassInfoHook` brings.
        reduction (str): 'none', 'mean' or 'sum', also of the base.
            Defaults to 'mean'.
        loss_weight (float): Of the sum. Defaults to 1.0.

    Raises:
        InputError: A negative weight or tau, a k below one; no neighbours for
            a term that has a weight, or such as do not fit the classes; a
            training without scores of a zero-shot model, or without counts.

    Examples:
        >>> import torch, mmlt
        >>> from mmlt.models import CUELoss
        >>> from mmlt.utils.class_info import ClassInfo
        >>> base = dict(type='mmlt.LogitAdjustedLoss', class_counts=[90, 9, 1])
        >>> loss = CUELoss(base, neighbours={'cat': ['dog']}, top_k=1, class_counts=[90, 9, 1])
        >>> loss.set_class_info(ClassInfo(['cat', 'dog', 'car']))
        >>> loss(torch.zeros(1, 3), torch.tensor([0]), zero_shot=torch.tensor([[0.5, 0.1, 0.3]]))
        tensor(1.5553)
    """

    table: Tensor | None

    def __init__(
        self,
        base: dict | None = None,
        zero_shot_weight: float = 0.5,
        neighbour_weight: float = 0.5,
        neighbours: str | Mapping[str, Sequence[str]] | None = None,
        top_k: int = 5,
        tau: float = 1.0,
        class_counts: Sequence[int] | None = None,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ):
        super().__init__(class_counts, reduction, loss_weight)
        for name, value in (
            ('zero_shot_weight', zero_shot_weight),
            ('neighbour_weight', neighbour_weight),
            ('tau', tau),
        ):
            if not value >= 0:
                raise InputError(f"CUELoss's {name} is {value}; it must not be negative.")
        if not (isinstance(top_k, int) and top_k >= 1):
            raise InputError(f"CUELoss's top_k is {top_k}; give a whole number from 1 on (the published code: 5).")
        if neighbour_weight > 0 and neighbours is None:
            raise InputError(
                'CUELoss has no neighbour classes: give neighbours=<JSON file> (mmlt neighbours '
                'writes one), or neighbour_weight=0.'
            )
        self.base = MMPRETRAIN_MODELS.build(base or dict(type='mmlt.LogitAdjustedLoss'))
        self.zero_shot_weight, self.neighbour_weight = zero_shot_weight, neighbour_weight
        self.neighbours, self.top_k, self.tau = neighbours, top_k, tau
        self.classes: Sequence[str] | None = None
        # A fact of the training, as the counts.
        self.register_buffer('table', None, persistent=False)

    def set_class_info(self, info: ClassInfo) -> None:
        """Take class names and counts; :class:`ClassInfoHook` calls it before a run.

        Args:
            info (ClassInfo): What is known of the classes.
        """
        super().set_class_info(info)
        self.classes, self.table = info.classes, None

    def train(self, mode: bool = True):
        """Set the mode; a training begins with the neighbours, a test does not need their file."""
        super().train(mode)
        if mode and self.classes is not None:
            self._read_table()
        return self

    def _read_table(self) -> None:
        if self.table is None and self.neighbour_weight > 0:
            if self.classes is None:
                raise not_told('CUELoss', 'the class names', 'call set_class_info()')
            table = neighbour_table(read_neighbours(self.neighbours), self.classes)
            self.table = table.to(self.class_counts.device)

    def forward(
        self,
        cls_score: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        zero_shot: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            cls_score (Tensor): Logits of shape (N, C).
            target (Tensor): Labels of shape (N, ), or class probabilities of
                shape (N, C). An image whose label, or a probability of it, is
                negative or NaN is left out of both terms.
            weight (Tensor, optional): Weight of every image, shape (N, ).
                Defaults to None.
            avg_factor (float, optional): The mean divides by it instead of by
                N. Defaults to None.
            reduction_override (str, optional): In place of ``reduction``.
                Defaults to None.
            zero_shot (Tensor, optional): Scores of the zero-shot model, (N, C).
                Defaults to None.
            **kwargs: For the base.

        Returns:
            Tensor: A scalar; shape (N, ) with 'none'.
        """
        reduction = reduction_override or self.reduction
        options = dict(weight=weight, avg_factor=avg_factor, reduction_override=reduction)
        loss = self.base(cls_score, target, **options, **kwargs)
        if self.zero_shot_weight > 0 or self.neighbour_weight > 0:
            with torch.autocast(cls_score.device.type, enabled=False):
                logits = cls_score.to(torch.promote_types(cls_score.dtype, torch.float32))
                known, target = scored(target)
                if target.ndim == 2:
                    known, target = known.all(1), target.to(logits.dtype)
                terms = self.terms(logits, target, zero_shot)
                loss = loss + reduce_scored(terms, known, weight, reduction, avg_factor)
        return self.loss_weight * loss

    def terms(self, logits: Tensor, target: Tensor, zero_shot: Tensor | None) -> Tensor:
        """The weighted sum of both terms.

        Args:
            logits (Tensor): Shape (N, C), in single precision at least.
            target (Tensor): Labels (N, ), or class probabilities (N, C).
            zero_shot (Tensor, optional): Scores, (N, C).

        Returns:
            Tensor: Shape (N, ).
        """
        counts, total = self.counts(logits), logits.new_zeros(len(logits))
        if self.zero_shot_weight > 0:
            if zero_shot is None:
                raise InputError(
                    "CUELoss got no scores of a zero-shot model: set model.type='mmlt.CUEClassifier' and "
                    'model.teacher=dict(model=..., pretrained=...), or zero_shot_weight=0.'
                )
            targets = zero_shot_targets(zero_shot.detach().to(logits.dtype), target, self.top_k)
            total = total + self.zero_shot_weight * binary_logit_adjusted_loss(logits, targets, counts, self.tau)
        if self.neighbour_weight > 0:
            self._read_table()
            targets = neighbour_targets(target, self.table, logits.dtype)
            total = total + self.neighbour_weight * binary_logit_adjusted_loss(logits, targets, counts, self.tau)
        return total

    def extra_repr(self) -> str:
        """The settings."""
        names = ('zero_shot_weight', 'neighbour_weight', 'top_k', 'tau')
        return ', '.join(f'{name}={getattr(self, name)}' for name in names)
