"""Long-tail losses for multi-label classification that MMPretrain does not have."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlt.errors import InputError
from mmlt.models.losses.common import TrainingCounts, reduce_scored, scored
from mmlt.registry import MODELS
from mmlt.utils.class_info import ClassInfo, not_told


def focal_bce(logits: Tensor, targets: Tensor, gamma: float = 0.0, neg_scale: float = 1.0) -> Tensor:
    """Binary cross-entropy of every image and class, focal if asked, tolerant of negatives if asked.

    With z a logit, y its target and q = sigmoid(z) for positives,
    sigmoid(-lambda z) for negatives::

        y (1 - q)^gamma log(1 + exp(-z)) + (1 - y) (1 - q)^gamma log(1 + exp(lambda z)) / lambda

    Args:
        logits (Tensor): z, (N, C).
        targets (Tensor): y in [0, 1], (N, C).
        gamma (float): Focusing (Lin et al. 2017); 0 for none. Defaults to 0.
        neg_scale (float): lambda (Wu et al. 2020, Eq. 9). Defaults to 1.

    Returns:
        Tensor: Shape (N, C).
    """
    scaled = neg_scale * logits
    positive, negative = F.softplus(-logits), F.softplus(scaled) / neg_scale
    if gamma:
        # log(1 - q) = -softplus of the other sign: no power of a difference near zero.
        positive = positive * torch.exp(-gamma * F.softplus(logits))
        negative = negative * torch.exp(-gamma * F.softplus(-scaled))
    return targets * positive + (1 - targets) * negative


def rebalanced_weight(targets: Tensor, class_counts: Tensor, alpha: float, beta: float, mu: float) -> Tensor:
    """Weight of every image and class that undoes class-aware sampling of co-occurring labels.

    With n_i the training images of class i, ``r = (1 / n_i) / sum_{j: y_j = 1} 1 / n_j``
    and the weight is ``alpha + sigmoid(beta (r - mu))`` (Wu et al. 2020, Eq. 3-6).
    An image without labels, which class-aware sampling never draws, has the
    limit alpha + 1.

    Args:
        targets (Tensor): y, (N, C).
        class_counts (Tensor): n, (C, ).
        alpha (float): Smallest weight.
        beta (float): Steepness.
        mu (float): The r in the middle.

    Returns:
        Tensor: Shape (N, C).
    """
    inverse = class_counts.reciprocal()
    repeats = (targets * inverse).sum(1, keepdim=True)
    ratio = inverse / repeats.clamp_min(torch.finfo(repeats.dtype).tiny)
    return alpha + torch.sigmoid(beta * (ratio - mu))


def prior_bias(class_counts: Tensor, num_images: int, kappa: float) -> Tensor:
    """What is added to the logits of a class, so that rare ones need not be pushed down.

    ``kappa * log(n_i / (N - n_i))`` (-nu_i in Wu et al. 2020, section 4.2). A
    class that all images have counts as if one image lacked it.

    Args:
        class_counts (Tensor): n, (C, ).
        num_images (int): N, training images.
        kappa (float): Strength.

    Returns:
        Tensor: Shape (C, ).
    """
    return kappa * torch.log(class_counts / (num_images - class_counts).clamp_min(1))


def distribution_balanced_loss(
    logits: Tensor,
    targets: Tensor,
    class_counts: Tensor,
    num_images: int,
    alpha: float = 0.1,
    beta: float = 10.0,
    mu: float = 0.3,
    kappa: float = 0.05,
    neg_scale: float = 5.0,
    gamma: float = 0.0,
) -> Tensor:
    """Distribution-balanced loss of every image and class (Wu et al., ECCV 2020, Eq. 10).

    Args:
        logits (Tensor): Shape (N, C).
        targets (Tensor): Shape (N, C), in [0, 1].
        class_counts (Tensor): Training images of every class, (C, ).
        num_images (int): Training images.
        alpha (float): See :func:`rebalanced_weight`. Defaults to 0.1.
        beta (float): The same. Defaults to 10.
        mu (float): The same. Defaults to 0.3.
        kappa (float): See :func:`prior_bias`. Defaults to 0.05.
        neg_scale (float): See :func:`focal_bce`. Defaults to 5.
        gamma (float): The same. Defaults to 0.

    Returns:
        Tensor: Shape (N, C).
    """
    weight = rebalanced_weight(targets, class_counts, alpha, beta, mu)
    return weight * focal_bce(logits + prior_bias(class_counts, num_images, kappa), targets, gamma, neg_scale)


def effective_number_weight(class_counts: Tensor, beta: float) -> Tensor:
    """Class weights in inverse proportion to the effective number of images.

    ``(1 - beta) / (1 - beta^n)``, normalised to mean 1 (Cui et al., CVPR 2019,
    Eq. 3).

    Args:
        class_counts (Tensor): n, (C, ).
        beta (float): In [0, 1): 0 gives equal weights, near 1 those of 1 / n.

    Returns:
        Tensor: Shape (C, ).
    """
    if beta == 0:
        return torch.ones_like(class_counts)
    weight = -1 / torch.expm1(class_counts * math.log(beta))
    return weight / weight.mean()


class _CountingLoss(TrainingCounts):
    """A loss of all images and classes that knows the training counts; mean over both.

    MMPretrain's multi-label heads call it with ``avg_factor``, the images of
    the batch.
    """

    @abstractmethod
    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of every image and class, (N, C)."""

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: int | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            pred (Tensor): Logits, (N, C).
            target (Tensor): Zeros and ones, or soft targets, (N, C). A class
                whose target is negative or NaN is left out of the image's
                mean, and an image that has no other ones out of the batch.
            weight (Tensor, optional): Weights of the images, (N, ).
                Defaults to None.
            avg_factor (int, optional): What the sum over images is divided by.
                Defaults to None, N.
            reduction_override (str, optional): 'none', 'mean' or 'sum' over
                images. Defaults to None, the module's.

        Returns:
            Tensor: A scalar, or (N, ) with 'none'; always a mean over classes
            that are scored.

        Raises:
            InputError: The counts are not known, or not as many as classes;
                targets that are labels, not of every class.
        """
        self._check_targets(pred, target)
        logits = pred.to(torch.promote_types(pred.dtype, torch.float32))
        known, target = scored(target)
        loss = self.elementwise(logits, target.to(logits.dtype))
        loss = loss.where(known, loss.new_zeros(())).sum(1) / known.sum(1).clamp(min=1)
        reduction = reduction_override or self.reduction
        return self.loss_weight * reduce_scored(loss, known.any(1), weight, reduction, avg_factor)

    def _check_targets(self, pred: Tensor, target: Tensor) -> None:
        if target.shape != pred.shape:
            raise InputError(
                f'{type(self).__name__} is of several labels an image, but it got targets of shape '
                f'{tuple(target.shape)} for logits of shape {tuple(pred.shape)}: use a multi-label head such as '
                "MultiLabelLinearClsHead, or a loss of one label such as 'mmlt.LogitAdjustedLoss'."
            )


@MODELS.register_module()
class DistributionBalancedLoss(_CountingLoss):
    """Distribution-balanced loss (Wu et al., ECCV 2020) for MMPretrain's multi-label heads.

    Re-balanced weights and negative-tolerant regularisation on binary
    cross-entropy, averaged over classes as in the paper (MMPretrain's BCE and
    ASL are sums over classes). Made for class-aware sampling, for example
    :class:`ClassAwareSampler`. The defaults are the paper's for VOC-LT; for
    COCO-LT it has ``mu=0.2, neg_scale=2``.

    The published code divides the logits' bias by lambda once more, which its
    authors call a mistake; ``kappa=0.05 / neg_scale`` gives that. It runs with
    focal weights: ``gamma=2, loss_weight=2``.

    Args:
        alpha (float): Smallest weight. Defaults to 0.1.
        beta (float): Steepness of the weights. Defaults to 10.
        mu (float): Middle of the weights. Defaults to 0.3.
        kappa (float): Strength of the logits' bias. Defaults to 0.05.
        neg_scale (float): lambda, how much negatives are tolerated.
            Defaults to 5.
        gamma (float): Focusing; 0 for none. Defaults to 0.
        class_counts (Sequence[int], optional): Training images of every class.
            Defaults to None, those of the dataset.
        num_images (int, optional): Training images. Defaults to None, those of
            the dataset.
        reduction (str): Over images: 'none', 'mean' or 'sum'.
            Defaults to 'mean'.
        loss_weight (float): Defaults to 1.0.

    Raises:
        InputError: Counts or number of images are not known or do not fit.

    Examples:
        >>> import mmlt, torch
        >>> from mmlt.models import DistributionBalancedLoss
        >>> loss = DistributionBalancedLoss(class_counts=[60, 5], num_images=100)
        >>> loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).shape
        torch.Size([])
    """

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.3,
        kappa: float = 0.05,
        neg_scale: float = 5.0,
        gamma: float = 0.0,
        num_images: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if neg_scale <= 0:
            raise InputError(f'DistributionBalancedLoss: neg_scale is {neg_scale}; it must be positive.')
        self.settings = dict(alpha=alpha, beta=beta, mu=mu, kappa=kappa, neg_scale=neg_scale, gamma=gamma)
        self.num_images, self.num_images_is_given = num_images, num_images is not None

    def _set_counts(self, counts: Sequence[int]) -> None:
        super()._set_counts(counts)
        self._largest = max(counts)  # known without asking the device

    def set_class_info(self, info: ClassInfo) -> None:
        """Take counts and number of training images, unless they were given; ``ClassInfoHook`` calls it.

        Args:
            info (ClassInfo): What is known of the classes.
        """
        super().set_class_info(info)
        if not self.num_images_is_given and info.num_images is not None:
            self.num_images = info.num_images

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :func:`distribution_balanced_loss`."""
        counts = self.counts(logits)
        if self.num_images is None:
            raise not_told('DistributionBalancedLoss', 'how many training images there are', 'give num_images=...')
        if self._largest > self.num_images:
            raise InputError(
                f'DistributionBalancedLoss: a class has {self._largest} training images of {self.num_images} in all; '
                'num_images must be the size of the train split.'
            )
        return distribution_balanced_loss(logits, targets, counts, self.num_images, **self.settings)

    def extra_repr(self) -> str:
        """The settings."""
        return ', '.join(f'{k}={v}' for k, v in self.settings.items())


@MODELS.register_module()
class ClassBalancedBCELoss(_CountingLoss):
    """Binary cross-entropy with class weights by effective numbers (Cui et al., CVPR 2019).

    A class's weight multiplies its positive and negative terms; weights have
    mean 1. Averaged over classes.

    Args:
        beta (float): In [0, 1): 0 gives plain BCE, near 1 weights of 1 / n.
            Defaults to 0.99.
        gamma (float): Focusing of the focal variant; 0 for none.
            Defaults to 0.
        class_counts (Sequence[int], optional): Training images of every class.
            Defaults to None, those of the dataset.
        reduction (str): Over images: 'none', 'mean' or 'sum'.
            Defaults to 'mean'.
        loss_weight (float): Defaults to 1.0.

    Raises:
        InputError: beta outside [0, 1); counts that are not known or do not
            fit.
    """

    def __init__(
        self,
        beta: float = 0.99,
        gamma: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0 <= beta < 1:
            raise InputError(f'ClassBalancedBCELoss: beta is {beta}; it must be at least 0 and below 1.')
        self.beta, self.gamma = beta, gamma

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Weighted cross-entropy of every image and class, (N, C)."""
        return effective_number_weight(self.counts(logits), self.beta) * focal_bce(logits, targets, self.gamma)

    def extra_repr(self) -> str:
        """The settings."""
        return f'beta={self.beta}, gamma={self.gamma}'
