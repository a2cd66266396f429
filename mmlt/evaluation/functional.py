"""Long-tail metrics as pure functions."""

from __future__ import annotations

import numpy as np

from mmlt.choices import SHOT_PROTOCOLS, ShotProtocol
from mmlt.errors import InputError

SHOTS = ('many', 'medium', 'few')


def get_protocol(name: str) -> ShotProtocol:
    """A protocol by its name.

    Raises:
        InputError: No such protocol.
    """
    if name not in SHOT_PROTOCOLS:
        raise InputError(f"There is no shot protocol '{name}'; choose one of {', '.join(SHOT_PROTOCOLS)}.")
    return SHOT_PROTOCOLS[name]


def shot_groups(class_counts: np.ndarray, protocol: ShotProtocol) -> np.ndarray:
    """Index into ``SHOTS`` of every class.

    Args:
        class_counts (np.ndarray): Training images of every class, (C, ).
        protocol (ShotProtocol): Where the bounds are.

    Returns:
        np.ndarray: 0 many, 1 medium, 2 few; shape (C, ).
    """
    counts = np.asarray(class_counts)
    return np.where(counts >= protocol.many, 0, np.where(counts <= protocol.few, 2, 1))


def per_class_accuracy(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of right predictions of every class in percent; NaN where the split has no sample.

    Args:
        labels (np.ndarray): Shape (N, ).
        predictions (np.ndarray): Shape (N, ).
        num_classes (int): C.

    Returns:
        np.ndarray: Shape (C, ).
    """
    total = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[labels == predictions], minlength=num_classes)
    with np.errstate(invalid='ignore'):
        return np.where(total > 0, 100 * right / np.maximum(total, 1), np.nan)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, in percent (Guo et al. 2017).

    Args:
        confidence (np.ndarray): Largest probability of every sample, (N, ).
        correct (np.ndarray): Whether it was right, (N, ).
        bins (int): Defaults to 15.

    Returns:
        float: In [0, 100].
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=confidence - correct, minlength=bins)
    return float(100 * np.abs(gap).sum() / len(confidence))


def negative_log_likelihood(probability: np.ndarray) -> float:
    """Mean negative logarithm of the probabilities of the true classes, in nats.

    Args:
        probability (np.ndarray): Probability of every sample's true class,
            (N, ). What single precision rounds to zero counts as its smallest
            normal number, 87.3 nats.

    Returns:
        float: Zero at best.
    """
    return float(-np.log(np.maximum(probability, np.finfo(np.float32).tiny)).mean())


def shot_accuracy(
    labels: np.ndarray, predictions: np.ndarray, class_counts: np.ndarray, protocol: str = 'standard'
) -> dict:
    """Top-1 accuracy by shot group, in percent.

    Args:
        labels (np.ndarray): Shape (N, ).
        predictions (np.ndarray): Shape (N, ).
        class_counts (np.ndarray): Training images of every class, (C, ).
        protocol (str): See ``SHOT_PROTOCOLS``. Defaults to 'standard'.

    Returns:
        dict: ``all`` and those of ``many``, ``medium``, ``few`` that have
        classes, averaged as the protocol says; ``balanced`` (mean over
        classes) and ``sample_accuracy`` (share of right samples) under every
        protocol; ``worst_class``, ``harmonic_mean`` of per-class accuracies,
        and ``per_class`` (C, ).
    """
    rule = get_protocol(protocol)
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    groups = shot_groups(class_counts, rule)
    accuracy = per_class_accuracy(labels, predictions, len(groups))
    right = labels == predictions

    def mean(classes: np.ndarray) -> float:
        if rule.average == 'sample':
            return float(100 * right[classes[labels]].mean())
        return float(np.nanmean(accuracy[classes]))

    seen = ~np.isnan(accuracy)
    result: dict[str, float | np.ndarray] = {'all': mean(seen)}
    for i, shot in enumerate(SHOTS):
        if (chosen := (groups == i) & seen).any():
            result[shot] = mean(chosen)
    result['balanced'] = float(np.nanmean(accuracy))
    result['sample_accuracy'] = float(100 * right.mean())
    result['worst_class'] = float(np.nanmin(accuracy))
    known = accuracy[seen]
    result['harmonic_mean'] = float(len(known) / np.sum(1 / known)) if (known > 0).all() else 0.0
    result['per_class'] = accuracy
    return result


def average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall curve of one class, in percent.

    The sum over distinct scores, from the largest, of the gain in recall times
    the precision there, without interpolation; equal scores count together.

    Args:
        targets (np.ndarray): Whether each sample has the class, (N, );
            negative or NaN where that is not to be scored.
        scores (np.ndarray): Shape (N, ).

    Returns:
        float: In [0, 100]; NaN where no sample has the class.
    """
    targets = np.asarray(targets, dtype=float)
    known = targets >= 0  # NaN is not
    targets, scores = targets[known] > 0, scores[known]
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], np.cumsum(targets[order])
    if len(hits) == 0 or hits[-1] == 0:
        return float('nan')
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    gains = np.diff(hits[last], prepend=0)
    return float(100 * np.sum(gains * hits[last] / (last + 1)) / hits[-1])


def shot_average_precision(
    targets: np.ndarray, scores: np.ndarray, class_counts: np.ndarray, protocol: str = 'db'
) -> dict:
    """Mean average precision by shot group, in percent.

    Args:
        targets (np.ndarray): Which classes each sample has, (N, C); negative
            or NaN where that is not to be scored.
        scores (np.ndarray): Shape (N, C).
        class_counts (np.ndarray): Training images of every class, (C, ).
        protocol (str): Where the bounds are, see ``SHOT_PROTOCOLS``.
            Defaults to 'db'.

    Returns:
        dict: ``all`` and those of ``many``, ``medium``, ``few`` that have
        classes, means over the classes that the samples have at all;
        ``worst_class``; and ``per_class`` (C, ), NaN for the others.
    """
    groups = shot_groups(class_counts, get_protocol(protocol))
    precision = np.array([average_precision(t, s) for t, s in zip(targets.T, scores.T)])
    seen = ~np.isnan(precision)
    if not seen.any():
        raise InputError('No test image has any of the classes: mean average precision has nothing to measure.')
    result: dict[str, float | np.ndarray] = {'all': float(precision[seen].mean())}
    for i, shot in enumerate(SHOTS):
        if (chosen := (groups == i) & seen).any():
            result[shot] = float(precision[chosen].mean())
    result['worst_class'] = float(precision[seen].min())
    result['per_class'] = precision
    return result
