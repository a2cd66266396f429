"""Single-label losses for long-tailed training sets."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.losses.common import TrainingCounts, reduce_scored, scored
from mmlt.registry import MODELS
from mmlt.utils.renamed import renamed


def logit_adjusted_loss(logits: Tensor, target: Tensor, counts: Tensor, tau: float = 1.0) -> Tensor:
    """Cross-entropy of logits that the class priors raise (Menon et al. 2021, Eq. 10).

    ``-log softmax(z + tau * log pi)_y`` with ``pi_c = n_c / sum n``.

    Args:
        logits (Tensor): z of shape (N, C).
        target (Tensor): Labels of shape (N, ), or class probabilities of shape
            (N, C).
        counts (Tensor): Training images n of every class, shape (C, ), floats.
        tau (float): Strength of the adjustment. Defaults to 1.0.

    Returns:
        Tensor: Shape (N, ).
    """
    log_prior = (counts / counts.sum()).log()
    return F.cross_entropy(logits + tau * log_prior, target, reduction='none')


def effective_number_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Class weights, the inverse of the effective number of images (Cui et al. 2019, Eq. 2 and section 4).

    ``w_c`` in proportion to ``(1 - beta) / (1 - beta ** n_c)``, scaled to a sum
    of C. ``beta=0`` weighs all classes equally; towards 1, by ``1 / n_c``.

    Args:
        counts (Tensor): Training images n of every class, shape (C, ), floats.
        beta (float): In [0, 1). Defaults to 0.9999.

    Returns:
        Tensor: Shape (C, ).
    """
    # 1 - beta ** n, also for the few images of which little is left after rounding
    effective = -torch.expm1(counts * (math.log(beta) if beta > 0 else -math.inf))
    weights = 1 / effective
    return weights * (len(counts) / weights.sum())


def softmax_focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, class_weight: Tensor | None = None
) -> Tensor:
    """Focal loss of a softmax, ``-w_y (1 - p_y) ** gamma * log p_y`` (Lin et al. 2017, Eq. 4 for many classes).

    Args:
        logits (Tensor): Shape (N, C).
        target (Tensor): Labels of shape (N, ), or class probabilities of shape
            (N, C), which weigh the losses of the classes.
        gamma (float): Focusing parameter; 0 is the cross-entropy.
            Defaults to 2.0.
        class_weight (Tensor, optional): w of shape (C, ). Defaults to None.

    Returns:
        Tensor: Shape (N, ).
    """
    log_p = logits.log_softmax(1)
    # At p = 1 the slope of a power below one is infinite: the clamp keeps it out of the gradient.
    rest = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).tiny)
    losses = -(rest**gamma) * log_p
    if class_weight is not None:
        losses = class_weight * losses
    if target.ndim == 2:
        return (target * losses).sum(1)
    return losses.gather(1, target.unsqueeze(1)).squeeze(1)


def ldam_margins(counts: Tensor, max_margin: float = 0.5) -> Tensor:
    """Margins in proportion to ``n_c ** (-1 / 4)`` (Cao et al. 2019, Eq. 10).

    Args:
        counts (Tensor): Training images n of every class, shape (C, ), floats.
        max_margin (float): That of the smallest class. Defaults to 0.5.

    Returns:
        Tensor: Shape (C, ).
    """
    return max_margin * (counts.min() / counts) ** 0.25


def ldam_loss(
    logits: Tensor, target: Tensor, margins: Tensor, logit_scale: float = 30.0, class_weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy with a margin on the logit of the true class (Cao et al. 2019, Eq. 13).

    ``-w_y log softmax(logit_scale * (z - margin_y at y))_y``

    Args:
        logits (Tensor): z of shape (N, C).
        target (Tensor): Labels of shape (N, ), or class probabilities of shape
            (N, C), which weigh the losses of the classes; every one that is
            not zero costs as much as an image.
        margins (Tensor): Shape (C, ).
        logit_scale (float): Defaults to 30.
        class_weight (Tensor, optional): w of shape (C, ). Defaults to None.

    Returns:
        Tensor: Shape (N, ).
    """
    if target.ndim == 2:
        rows, labels = target.nonzero(as_tuple=True)
        losses = ldam_loss(logits[rows], labels, margins, logit_scale, class_weight) * target[rows, labels]
        return logits.new_zeros(len(logits)).index_add(0, rows, losses)
    margin = torch.zeros_like(logits).scatter(1, target.unsqueeze(1), margins[target].unsqueeze(1))
    return F.cross_entropy(logit_scale * (logits - margin), target, weight=class_weight, reduction='none')


class _ClsLoss(nn.Module):
    """Call and reduction as MMPretrain's ClsHead expects them; subclasses give the loss of every image."""

    def __init__(self, reduction: str = 'mean', loss_weight: float = 1.0):
        super().__init__()
        self.reduction, self.loss_weight = reduction, loss_weight

    @abstractmethod
    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Losses of shape (N, ) of logits (N, C) in single precision at least."""

    def forward(
        self,
        cls_score: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        **kwargs,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            cls_score (Tensor): Logits of shape (N, C).
            target (Tensor): Labels of shape (N, ), or class probabilities of
                shape (N, C), for example of mixup. An image whose label, or a
                probability of it, is negative or NaN is left out.
            weight (Tensor, optional): Weight of every image, shape (N, ).
                Defaults to None.
            avg_factor (float, optional): The mean divides by it instead of by
                N. Defaults to None.
            reduction_override (str, optional): 'none', 'mean' or 'sum' in place
                of ``reduction``. Defaults to None.
            **kwargs: Not used; MMPretrain's heads pass theirs.

        Returns:
            Tensor: A scalar; shape (N, ) with 'none'.
        """
        with torch.autocast(cls_score.device.type, enabled=False):
            logits = cls_score.to(torch.promote_types(cls_score.dtype, torch.float32))
            known, target = scored(target)
            if target.ndim == 2:
                known, target = known.all(1), target.to(logits.dtype)
            losses = self.losses(logits, target)
            reduction = reduction_override or self.reduction
            return self.loss_weight * reduce_scored(losses, known, weight, reduction, avg_factor)


class _CountLoss(TrainingCounts, _ClsLoss):
    """A loss that needs the number of training images of every class."""


def _check(loss: nn.Module, name: str, value: float, valid: bool, range_: str) -> None:
    if not valid:
        raise InputError(f"{type(loss).__name__}'s {name} is {value}; it must {range_}.")


@MODELS.register_module()
class LogitAdjustedLoss(_CountLoss):
    """Logit-adjusted cross-entropy (Menon et al. 2021), see :func:`logit_adjusted_loss`.

    The adjustment belongs to the loss: predictions use the plain logits.

    Args:
        tau (float): Strength of the adjustment; 0 is the cross-entropy.
            Defaults to 1.0.
        class_counts (Sequence[int], optional): Training images of every class.
            Defaults to None, those of the dataset, which
            :class:`ClassInfoHook` brings.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Defaults to 1.0.

    Raises:
        InputError: No counts, a count of zero, or not one count a class.

    Examples:
        >>> import torch
        >>> from mmlt.models import LogitAdjustedLoss
        >>> loss = LogitAdjustedLoss(class_counts=[90, 10])
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))  # log 10
        tensor(2.3026)
    """

    def __init__(self, tau: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        _check(self, 'tau', tau, tau >= 0, 'not be negative')
        self.tau = tau

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """See :func:`logit_adjusted_loss`."""
        return logit_adjusted_loss(logits, target, self.counts(logits), self.tau)


@MODELS.register_module()
class BalancedSoftmaxLoss(LogitAdjustedLoss):
    """Balanced softmax, ``-log (n_y e^{z_y} / sum_c n_c e^{z_c})`` (Ren et al. 2020, Eq. 3 and 4).

    The same as :class:`LogitAdjustedLoss` with ``tau=1``.

    Args:
        **kwargs: ``class_counts``, ``reduction``, ``loss_weight`` of
            :class:`LogitAdjustedLoss`.

    Raises:
        InputError: No counts, a count of zero, or not one count a class.
    """

    def __init__(self, **kwargs):
        super().__init__(tau=1.0, **kwargs)


@MODELS.register_module()
class LDAMLoss(_CountLoss):
    """Label-distribution-aware margins with deferred re-weighting (Cao et al. 2019).

    Its logits are meant to be cosines of normalised features and class
    vectors, in [-1, 1]; for a head that scales its cosines itself, give
    ``logit_scale=1`` and a margin in units of its logits; scaled by both it is
    refused (:func:`check_composition`).

    With ``drw_epoch`` the classes are weighted by
    :func:`effective_number_weights` from that epoch on, which
    :class:`EpochHook` tells, or MMEngine's message hub; so a resumed run goes on
    with the right weights. In a training by iterations an epoch is a pass over
    the images. The mean divides by the number of images, as everywhere in
    MMPretrain; the published code divides by the sum of their weights.

    Args:
        max_margin (float): Margin of the smallest class. Defaults to 0.5.
        logit_scale (float): Factor on the logits after the margin.
            Defaults to 30.
        drw_epoch (int, optional): First epoch, from 0, with class weights;
            the paper has 160 of 200. Defaults to None, no weights.
        beta (float): Of the class weights, in [0, 1). Defaults to 0.9999.
        class_counts (Sequence[int], optional): See :class:`LogitAdjustedLoss`.
            Defaults to None.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Defaults to 1.0.

    Raises:
        InputError: No counts, a count of zero, or not one count a class; a
            ``drw_epoch`` in a training by iterations without EpochHook.
    """

    @renamed(scale='logit_scale')
    def __init__(
        self,
        max_margin: float = 0.5,
        logit_scale: float = 30.0,
        drw_epoch: int | None = None,
        beta: float = 0.9999,
        **kwargs,
    ):
        super().__init__(**kwargs)
        _check(self, 'max_margin', max_margin, max_margin >= 0, 'not be negative')
        _check(self, 'logit_scale', logit_scale, logit_scale > 0, 'be positive')
        _check(self, 'beta', beta, 0 <= beta < 1, 'lie in [0, 1)')
        self.max_margin, self.logit_scale, self.drw_epoch, self.beta = max_margin, logit_scale, drw_epoch, beta
        self._epoch: int | None = None

    def set_epoch(self, epoch: int, max_epochs: int) -> None:
        """Take the epoch; :class:`EpochHook` calls it.

        Args:
            epoch (int): The first is 0.
            max_epochs (int): How many there are.
        """
        if self.drw_epoch is not None and self.drw_epoch >= max_epochs and self._epoch is None:
            print_log(
                f'LDAMLoss weighs the classes from epoch {self.drw_epoch} on, but the training has {max_epochs}: it '
                'never will. The paper begins at four fifths of the training.',
                logger='current',
                level=logging.WARNING,
            )
        self._epoch = epoch

    @property
    def _reweighted(self) -> bool:
        if self.drw_epoch is None:
            return False
        if self._epoch is not None:
            return self._epoch >= self.drw_epoch
        hub = MessageHub.get_current_instance()
        if (
            self.training
            and self.drw_epoch > 0
            and hub.get_info('max_epochs', None) == 1 < hub.get_info('max_iters', 1)
        ):
            raise InputError(
                f'LDAMLoss weighs the classes from epoch {self.drw_epoch} on, but MMEngine counts one epoch in this '
                "training: add dict(type='mmlt.EpochHook') to custom_hooks, or leave out drw_epoch."
            )
        return hub.get_info('epoch', 0) >= self.drw_epoch

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """See :func:`ldam_loss`."""
        counts = self.counts(logits)
        weights = effective_number_weights(counts, self.beta) if self._reweighted else None
        return ldam_loss(logits, target, ldam_margins(counts, self.max_margin), self.logit_scale, weights)


@MODELS.register_module()
class SoftmaxFocalLoss(_ClsLoss):
    """Focal loss of a softmax over the classes, see :func:`softmax_focal_loss`.

    Args:
        gamma (float): Focusing parameter; 0 is the cross-entropy.
            Defaults to 2.0.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Defaults to 1.0.

    Raises:
        InputError: A negative ``gamma``.
    """

    def __init__(self, gamma: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        _check(self, 'gamma', gamma, gamma >= 0, 'not be negative')
        self.gamma = gamma

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """See :func:`softmax_focal_loss`."""
        return softmax_focal_loss(logits, target, self.gamma)


@MODELS.register_module()
class ClassBalancedLoss(_CountLoss):
    """Cross-entropy or focal loss weighted by effective numbers of images (Cui et al. 2019).

    The weights are :func:`effective_number_weights`; the loss is
    :func:`softmax_focal_loss`.

    Args:
        beta (float): In [0, 1). Defaults to 0.9999.
        gamma (float): Focusing parameter; 0 is the cross-entropy.
            Defaults to 0.
        class_counts (Sequence[int], optional): See :class:`LogitAdjustedLoss`.
            Defaults to None.
        reduction (str): 'none', 'mean' or 'sum'. Defaults to 'mean'.
        loss_weight (float): Defaults to 1.0.

    Raises:
        InputError: No counts, a count of zero, or not one count a class.
    """

    def __init__(self, beta: float = 0.9999, gamma: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        _check(self, 'beta', beta, 0 <= beta < 1, 'lie in [0, 1)')
        _check(self, 'gamma', gamma, gamma >= 0, 'not be negative')
        self.beta, self.gamma = beta, gamma

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """See :func:`softmax_focal_loss`."""
        weights = effective_number_weights(self.counts(logits), self.beta)
        return softmax_focal_loss(logits, target, self.gamma, weights)
