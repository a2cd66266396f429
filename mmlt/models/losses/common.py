"""What the losses for long-tailed training sets share: the training counts, and labels that are not to be scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.utils.class_info import ClassInfo, check_no_empty_class, not_told


class TrainingCounts(nn.Module):
    """Knows the training images of every class, given or told by :class:`ClassInfoHook`.

    Args:
        class_counts (Sequence[int], optional): Training images of every class.
            Defaults to None, those of the dataset.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Defaults to 1.0.

    Raises:
        InputError: A count of zero.
    """

    class_counts: Tensor

    def __init__(self, class_counts: Sequence[int] | None = None, reduction: str = 'mean', loss_weight: float = 1.0):
        super().__init__()
        self.reduction, self.loss_weight = reduction, loss_weight
        # Facts of the dataset, not weights: checkpoints do not carry them and load into heads with any loss.
        # Integers stay exact when a model is cast to half precision.
        self.register_buffer('class_counts', torch.zeros(0, dtype=torch.long), persistent=False)
        self._given = class_counts is not None
        if self._given:
            self._set_counts(class_counts)

    def set_class_info(self, info: ClassInfo) -> None:
        """Take the counts; :class:`ClassInfoHook` calls it before a run.

        Args:
            info (ClassInfo): Those of the argument ``class_counts`` win over
                its counts.

        Raises:
            InputError: Not one count a class, or a count of zero.
        """
        counts = self.class_counts.tolist() if self._given else info.counts
        if counts is not None:  # a test may do without; the loss asks for them
            info.check_counts(counts, type(self).__name__)
            self._set_counts(counts)

    def _set_counts(self, counts: Sequence[int]) -> None:
        check_no_empty_class(counts, type(self).__name__)
        self.class_counts = torch.as_tensor(counts, dtype=torch.long, device=self.class_counts.device)

    def counts(self, logits: Tensor) -> Tensor:
        """The counts as floats beside the logits, shape (C, )."""
        if len(self.class_counts) == 0:
            raise not_told(type(self).__name__, 'the class counts', 'give class_counts=[...] to the loss')
        if len(self.class_counts) != logits.shape[1]:
            raise InputError(
                f'{type(self).__name__} has {len(self.class_counts)} class counts, but the head gives '
                f"{logits.shape[1]} logits: set the head's num_classes, or the counts, to the same number."
            )
        return self.class_counts.to(logits.dtype)


def scored(target: Tensor) -> tuple[Tensor, Tensor]:
    """Which labels are to be scored, and the targets without the others.

    A negative number or NaN marks a label that is not: an ignored image, a
    difficult object, a class that nobody looked for.

    Args:
        target (Tensor): Labels, (N, ), or targets of every class, (N, C).

    Returns:
        tuple[Tensor]: Booleans and targets in the shape of ``target``, zero
        where the first is False.
    """
    known = target >= 0  # NaN is not
    return known, target.masked_fill(~known, 0)


def reduce_scored(
    losses: Tensor, known: Tensor, weight: Tensor | None, reduction: str, avg_factor: float | None
) -> Tensor:
    """Reduce the losses of the images that are scored; the others are as if they were not in the batch.

    Args:
        losses (Tensor): Shape (N, ).
        known (Tensor): Whether an image is scored, (N, ).
        weight (Tensor, optional): Weights of the images, (N, ).
        reduction (str): 'none', 'mean' or 'sum'.
        avg_factor (float, optional): What a mean divides by, for all N images;
            of fewer, as much less. None is N.

    Returns:
        Tensor: A scalar, zero of no image; (N, ) with 'none', zero of an image
        that is not scored.
    """
    reduced = weight_reduce_loss(losses.where(known, losses.new_zeros(())), weight, reduction, avg_factor)
    if reduction != 'mean':
        return reduced
    return reduced * (len(known) / known.sum().clamp(min=1).to(losses.dtype))  # on the device: nothing is waited for


def leave_out_unscored(model: nn.Module) -> None:
    """Let the losses of MMPretrain's multi-label heads leave out labels that are not to be scored, too.

    They know of none, and would take -1 for a target. Those of this package
    are left as they are.

    Args:
        model (nn.Module): Any; changed in place.
    """
    for head in model.modules():
        if isinstance(head, MultiLabelClsHead) and not isinstance(head.loss_module, TrainingCounts):
            head.loss_module.register_forward_pre_hook(_without_unscored)


def _without_unscored(loss: nn.Module, args: tuple) -> tuple:
    """A class that is surely not predicted and not there costs nothing in any loss, and gets no gradient."""
    logits, target, *rest = args
    if target.shape != logits.shape:
        return args
    known, target = scored(target)
    return logits.masked_fill(~known, -100), target, *rest
