"""The mathematics of MORE."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DISCREPANCIES = ('l2', 'kl')


def sinusoidal_alpha(iteration: int, total: int, peak: float) -> float:
    """Weight of the penalty, ``alpha(t) = A sin(pi t / T)``.

    Args:
        iteration (int): t, from 0.
        total (int): T, iterations of the whole training.
        peak (float): A.

    Returns:
        float: 0 at the beginning, A in the middle, about 0 at the end.
    """
    return peak * math.sin(math.pi * iteration / total)


def class_discrepancy(full: Tensor, general: Tensor, kind: str = 'l2', multi_label: bool = False) -> Tensor:
    """Contribution of every class to the discrepancy of two predictions of a sample.

    ``'l2'``: ``(z - z_g)^2``. ``'kl'``: the terms of KL(p || p_g), p of the
    full and p_g of the general model: by softmax, or with ``multi_label`` the
    KL of the two Bernoulli distributions of every class.

    Args:
        full (Tensor): Logits z of all weights, (N, C).
        general (Tensor): Logits z_g of the general weights, (N, C).
        kind (str): 'l2' or 'kl'. Defaults to 'l2'.
        multi_label (bool): Whether classes are independent.
            Defaults to False.

    Returns:
        Tensor: Shape (N, C); the sum over classes is the sample's discrepancy.
    """
    if kind == 'l2':
        return (full - general).square()
    if not multi_label:
        log_p, log_q = F.log_softmax(full, -1), F.log_softmax(general, -1)
        return log_p.exp() * (log_p - log_q)
    yes = full.sigmoid() * (F.logsigmoid(full) - F.logsigmoid(general))
    return yes + (-full).sigmoid() * (F.logsigmoid(-full) - F.logsigmoid(-general))


def prior_weighted(differences: Tensor, targets: Tensor, prior: Tensor, per_class: bool) -> Tensor:
    """Mean over samples of the discrepancy, weighted by class priors.

     With ``per_class`` it is ``mean_i sum_c pi_c d_ic``; otherwise
     ``mean_i w_i sum_c d_ic``, where w_i is the prior of the sample's class
    , the expected prior for a soft label
     as mixup makes it, and the mean over its classes for several labels.

     Args:
         differences (Tensor): d, see :func:`class_discrepancy`, (N, C).
         targets (Tensor): One-hot, soft or multi-hot labels, (N, C).
         prior (Tensor): pi, shares of the classes in the training set, (C, ).
         per_class (bool): See above.

     Returns:
         Tensor: A scalar.
    """
    if per_class:
        return (differences @ prior).mean()
    weights = (targets @ prior) / targets.sum(-1).clamp_min(1)
    return (weights * differences.sum(-1)).mean()


@torch.no_grad()
def group_sums(differences: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
    """Sums and counts for the mean discrepancy per group of classes.

    A sample counts for the groups of its classes, once for each of several
    labels, and by its share for a soft label.

    Args:
        differences (Tensor): d, see :func:`class_discrepancy`, (N, C).
        targets (Tensor): (N, C).
        groups (Tensor): One-hot group of every class, (C, G).

    Returns:
        Tensor: Shape (2, G), sums of the discrepancy and counts.
    """
    members = targets @ groups
    return torch.stack([differences.sum(-1) @ members, members.sum(0)])
