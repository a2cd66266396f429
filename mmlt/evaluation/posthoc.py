"""What can be done to the scores of a trained model without training it again.

All functions are of float64 and take scores as logits or as log-probabilities:
what is added to all classes of an image changes none of the results. For that
reason tau-normalisation (Kang et al. 2020) is not here: it divides the logit
of every class by another number, so it needs the logits themselves and not
only their softmax. ``mmlt.TauNormClsHead`` does it, with the classifier's
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmlt.errors import InputError
from mmlt.evaluation.functional import SHOTS, get_protocol, per_class_accuracy, shot_groups
from mmlt.utils.long_tail import exponential_profile, select_long_tail

# Zhang et al. 2022 (SADE) test ImageNet-LT, Places-LT and CIFAR100-LT at these, either way.
SADE_RATIOS = (50, 25, 10, 5, 2)
PRIORS = ('uniform', 'forward', 'backward')


class Temperature(NamedTuple):
    """A temperature, and whether the search ended at one of its bounds."""

    value: float
    at_bound: bool


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities.

    Args:
        logits (np.ndarray): Shape (N, C).

    Returns:
        np.ndarray: Shape (N, C), float64.
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def log_prior(weights: np.ndarray, what: str = 'training images') -> np.ndarray:
    """Logarithms of the shares of the classes.

    Args:
        weights (np.ndarray): Counts or probabilities, (C, ).
        what (str): What they are, for the sentence. Defaults to 'training
            images'.

    Returns:
        np.ndarray: Shape (C, ).

    Raises:
        InputError: One is zero, negative, NaN or infinite.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if (wrong := np.flatnonzero(~((weights > 0) & np.isfinite(weights)))).size:
        raise InputError(
            f'Class {wrong[0]} has {weights[wrong[0]]:g} {what}, of which there is no logarithm: give every class a '
            'positive number, or leave such classes out of the class list.'
        )
    return np.log(weights / weights.sum())


def adjust_logits(logits: np.ndarray, counts: np.ndarray, tau: float = 1.0) -> np.ndarray:
    """Post-hoc logit adjustment, ``z_c - tau * log pi_c`` (Menon et al. 2021, section 4.1, Eq. 9).

    Of a model that was trained with plain cross-entropy, ``tau=1`` makes what
    training with :class:`LogitAdjustedLoss` would make of it: that loss is the
    cross-entropy of ``z + log pi``, and its model predicts by the plain z.

    Args:
        logits (np.ndarray): Shape (N, C).
        counts (np.ndarray): Training images of every class, (C, ).
        tau (float): Strength; 0 changes nothing. Defaults to 1.0.

    Returns:
        np.ndarray: Shape (N, C), float64.

    Raises:
        InputError: A class without training images.
    """
    return np.asarray(logits, dtype=np.float64) - tau * log_prior(counts)


def tau_normalise(logits: np.ndarray, weight_norms: np.ndarray, bias: np.ndarray | None, tau: float) -> np.ndarray:
    """Logits of a linear classifier with tau-normalised class vectors, without bias (Kang et al. 2020, section 4.2).

    ``w_c / |w_c|^tau`` makes of ``w_c f + b_c`` the logit ``(z_c - b_c) / |w_c|^tau``; what
    :class:`mmlt.TauNormClsHead` computes from the feature.

    Args:
        logits (np.ndarray): z, not log-probabilities, (N, C).
        weight_norms (np.ndarray): Lengths of the class vectors, (C, ).
        bias (np.ndarray, optional): b, (C, ); None where there is none.
        tau (float): 0 only drops the bias, 1 makes all vectors of length 1.

    Returns:
        np.ndarray: Shape (N, C), float64.

    Raises:
        InputError: A negative ``tau``.
    """
    if not tau >= 0:
        raise InputError(f'tau is {tau}; the normalisation needs one that is not negative (the paper: 0 to 1).')
    z = np.asarray(logits, dtype=np.float64) - (0 if bias is None else np.asarray(bias, dtype=np.float64))
    return z / np.asarray(weight_norms, dtype=np.float64) ** tau


def tau_sweep(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray, taus: Sequence[float]) -> np.ndarray:
    """Accuracy for every strength of :func:`adjust_logits`, in percent, as a mean over classes.

    One minus it is the balanced error, which the adjustment is made for
    (Menon et al. 2021, section 2). Classes without images are left out.

    Args:
        logits (np.ndarray): Shape (N, C).
        labels (np.ndarray): Shape (N, ).
        counts (np.ndarray): Training images of every class, (C, ).
        taus (Sequence[float]): T strengths.

    Returns:
        np.ndarray: Shape (T, ).

    Raises:
        InputError: A class without training images.
    """
    predicted = (adjust_logits(logits, counts, tau).argmax(1) for tau in taus)
    return np.array([np.nanmean(per_class_accuracy(labels, p, len(counts))) for p in predicted])


def negative_log_likelihood_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative logarithm of the softmax of the true classes, in nats.

    Args:
        logits (np.ndarray): Shape (N, C).
        labels (np.ndarray): Shape (N, ).

    Returns:
        float: Zero at best.
    """
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def temperature_scaling(
    logits: np.ndarray, labels: np.ndarray, bounds: tuple[float, float] = (0.01, 100.0)
) -> Temperature:
    """The T of least negative log-likelihood of ``softmax(z / T)`` (Guo et al. 2017, section 4.2).

    The likelihood is concave in ``1 / T``, so that there is one maximum:
    Newton's method finds where the slope is zero, and a step that would leave
    the bracket is replaced by halving it.

    Args:
        logits (np.ndarray): Shape (N, C).
        labels (np.ndarray): Shape (N, ).
        bounds (tuple[float, float]): Least and largest T. Defaults to (0.01,
            100).

    Returns:
        Temperature: At a bound where the likelihood still rises there, for
        example of scores whose predictions are all right.
    """
    z = log_softmax(logits)
    true = z[np.arange(len(labels)), labels]
    if np.ptp(z, axis=1).max() == 0:
        return Temperature(1.0, False)  # equal scores stay equal

    def slope(beta: float) -> tuple[float, float]:
        p = np.exp(log_softmax(beta * z))
        mean = (p * z).sum(1)
        return float((mean - true).mean()), float(((p * z**2).sum(1) - mean**2).mean())

    low, high = 1 / bounds[1], 1 / bounds[0]
    if slope(low)[0] >= 0:
        return Temperature(float(bounds[1]), True)
    if slope(high)[0] <= 0:
        return Temperature(float(bounds[0]), True)
    beta = min(max(1.0, low), high)
    for _ in range(200):
        first, second = slope(beta)
        low, high = (low, beta) if first > 0 else (beta, high)
        following = beta - first / second if second > 0 else low
        following = following if low < following < high else (low * high) ** 0.5
        if abs(following - beta) <= 1e-10 * beta:
            break
        beta = following
    return Temperature(1 / following, False)


def correct_prior(log_probs: np.ndarray, source_prior: np.ndarray, target_prior: np.ndarray) -> np.ndarray:
    """Log-probabilities where the classes have other frequencies than in training.

    ``log p_c + log target_c - log source_c``, normalised (Saerens et al. 2002,
    section 2, Eq. 2.4; the label shift of Lipton et al. 2018). From the
    training prior to the uniform one this is :func:`adjust_logits` with
    ``tau=1``.

    Args:
        log_probs (np.ndarray): Shape (N, C).
        source_prior (np.ndarray): Frequencies that the scores are made for,
            (C, ), of any sum.
        target_prior (np.ndarray): Those where the model will be used, (C, ).

    Returns:
        np.ndarray: Shape (N, C).

    Raises:
        InputError: A frequency that is not positive.
    """
    shift = log_prior(target_prior, 'as its target prior') - log_prior(source_prior, 'as its source prior')
    return log_softmax(np.asarray(log_probs, dtype=np.float64) + shift)


def target_prior(kind: str, counts: np.ndarray, ratio: float = 1.0) -> np.ndarray:
    """Frequencies of the classes in the test sets of SADE (Zhang et al. 2022, section 5.1).

    A class of rank i in the order has a share in proportion to ``ratio ** (-i
    / (C - 1))``; see :data:`SADE_RATIOS` for the paper's ratios.

    Args:
        kind (str): 'uniform'; 'forward', where the classes with most training
            images are tested most; or 'backward', the other way round.
        counts (np.ndarray): Training images of every class, (C, ).
        ratio (float): Largest over smallest share. Defaults to 1.0.

    Returns:
        np.ndarray: Shape (C, ), of sum 1.

    Raises:
        InputError: Unknown kind, or a ratio below 1.
    """
    if not (ratio >= 1 and np.isfinite(ratio)):
        raise InputError(f'The ratio of a target prior is {ratio:g}; it is largest over smallest share, so at least 1.')
    order = class_order(kind, counts)
    share = np.ones(len(order))
    if kind != 'uniform':
        share[order] = float(ratio) ** (-np.arange(len(order)) / max(len(order) - 1, 1))
    return share / share.sum()


def class_order(kind: str, counts: np.ndarray) -> np.ndarray:
    """The classes, the one with most test images first; equal ones as they are listed.

    Args:
        kind (str): See :func:`target_prior`.
        counts (np.ndarray): Training images of every class, (C, ).

    Returns:
        np.ndarray: Shape (C, ).

    Raises:
        InputError: Unknown kind.
    """
    if kind not in PRIORS:
        raise InputError(f"There is no target prior '{kind}'; choose one of {', '.join(PRIORS)}.")
    order = np.argsort(-np.asarray(counts), kind='stable')
    return order[::-1] if kind == 'backward' else order


def resample_test(labels: np.ndarray, order: np.ndarray | Sequence[int], ratio: float, seed: int) -> np.ndarray:
    """Images of a long-tailed test set, drawn without replacement.

    The class of rank i keeps ``int(n_max * ratio ** (-i / (C - 1)))`` images,
    as in SADE, with the largest ``n_max`` that all classes can supply: in a
    balanced test set its images per class.

    Args:
        labels (np.ndarray): Shape (N, ).
        order (np.ndarray | Sequence[int]): The C classes, the one with most
            images first, see :func:`class_order`.
        ratio (float): Largest over smallest number, at least 1.
        seed (int): The same seed draws the same images.

    Returns:
        np.ndarray: Indices into ``labels``, ascending.

    Raises:
        InputError: A ratio below 1, or one that leaves a class without images;
            a class that has none.
    """
    order = np.asarray(order)
    have = np.bincount(labels, minlength=len(order))[order]
    if not have.all():
        raise InputError(f'Class {order[have == 0][0]} has no image, so no test set with all classes can be drawn.')
    share = (1 / max(ratio, 1)) ** (np.arange(len(order)) / max(len(order) - 1, 1))
    largest = int(np.floor((have / share).min() + 1e-9))
    if largest * share[-1] + 1e-9 < 1:
        raise InputError(
            f'A test set of ratio {ratio:g} would have no image of class {order[-1]}, since its largest class can have '
            f'{largest} images: choose a ratio of at most {max(largest, 1)}.'
        )
    wanted = np.zeros(len(order), dtype=int)
    wanted[order] = exponential_profile(largest, ratio, len(order))
    return np.sort(select_long_tail(labels, wanted, seed))


def reliability(log_probs: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict:
    """How often predictions of a confidence are right (Guo et al. 2017, section 2, Eq. 3).

    Args:
        log_probs (np.ndarray): Shape (N, C).
        labels (np.ndarray): Shape (N, ).
        bins (int): Of equal width, closed above. Defaults to 15.

    Returns:
        dict: ``confidence``, ``accuracy`` (means in [0, 1], NaN in an empty
        bin) and ``count``, each (bins, ), and ``ece`` in percent, NaN without
        images.
    """
    log_probs = log_softmax(log_probs)
    confidence, right = np.exp(log_probs.max(1)), log_probs.argmax(1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, weights=values, minlength=bins) for values in (confidence, right)]
    with np.errstate(invalid='ignore'):
        mean_confidence, accuracy = (values / count for values in sums)
    ece = 100 * np.abs(sums[0] - sums[1]).sum() / len(labels) if len(labels) else float('nan')
    return {'confidence': mean_confidence, 'accuracy': accuracy, 'count': count, 'ece': float(ece)}


def shot_reliability(
    log_probs: np.ndarray, labels: np.ndarray, counts: np.ndarray, protocol: str = 'standard', bins: int = 15
) -> dict[str, dict]:
    """:func:`reliability` of all images, and of those of many-, medium- and few-shot classes.

    Args:
        log_probs (np.ndarray): Shape (N, C).
        labels (np.ndarray): Shape (N, ); they decide the group of an image.
        counts (np.ndarray): Training images of every class, (C, ).
        protocol (str): See ``SHOT_PROTOCOLS``. Defaults to 'standard'.
        bins (int): Defaults to 15.

    Returns:
        dict[str, dict]: By 'all' and the groups that have images.
    """
    groups = shot_groups(counts, get_protocol(protocol))[labels]
    result = {'all': reliability(log_probs, labels, bins)}
    for i, shot in enumerate(SHOTS):
        if (own := groups == i).any():
            result[shot] = reliability(log_probs[own], labels[own], bins)
    return result
