"""What the losses for long-tailed training sets share: the training counts, and labels that are not to be scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from mmlt.errors import InputError


class TrainingCounts(nn.Module):
    """Knows the training images of every class, given or told by :class:`ClassInfoHook`.

    Args:
        class_counts (Sequence[int], optional): Training images of every class.
            Defaults to None, those of the dataset.

    Raises:
        InputError: A count of zero.
    """

    def __init__(self, class_counts: Sequence[int] | None = None):
        super().__init__()
        # Facts of the dataset, not weights: checkpoints do not carry them and load into heads with any loss.
        # Integers stay exact when a model is cast to half precision.
        self.register_buffer('class_counts', torch.zeros(0, dtype=torch.long), persistent=False)
        self._given = class_counts is not None
        if self._given:
            self._set_counts(class_counts)

    def set_class_info(self, classes: Sequence[str], class_counts=None, class_texts=None) -> None:
        """Take the counts; :class:`ClassInfoHook` calls it before a run.

        Args:
            classes (Sequence[str]): C class names.
            class_counts (Sequence[int], optional): Training images of every
                class; those of the argument ``class_counts`` win.
                Defaults to None.
            class_texts (str | Sequence, optional): Not used here.
                Defaults to None.

        Raises:
            InputError: Not one count a class, or a count of zero.
        """
        counts = self.class_counts.tolist() if self._given else class_counts
        if counts is None:
            return  # a test without training counts; the loss asks for them
        if classes is not None and len(counts) != len(classes):
            raise InputError(
                f'{type(self).__name__} got {len(counts)} class counts, but the dataset has {len(classes)} classes: '
                'give one count a class.'
            )
        self._set_counts(counts)

    def _set_counts(self, counts: Sequence[int]) -> None:
        counts = torch.as_tensor(counts, dtype=torch.long)
        if (counts < 1).any():
            raise InputError(
                f'{type(self).__name__}: class {int((counts < 1).nonzero()[0])} has no training images; give every '
                'class at least one, or remove it from the class list.'
            )
        self.class_counts = counts.to(self.class_counts.device)

    def counts(self, logits: Tensor) -> Tensor:
        """The counts as floats beside the logits, shape (C, )."""
        if len(self.class_counts) == 0:
            raise InputError(
                f"{type(self).__name__} does not know the class counts: add dict(type='mmlt.ClassInfoHook') to "
                'custom_hooks with a dataset whose metainfo has class_counts, or give class_counts=[...] to the loss.'
            )
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
