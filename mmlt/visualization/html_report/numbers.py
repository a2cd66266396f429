"""Figures that follow from what was predicted for every test picture."""

from __future__ import annotations

import numpy as np

from mmlt.evaluation import Predictions
from mmlt.evaluation.functional import SHOTS


def test_images(found: Predictions, num_classes: int) -> np.ndarray:
    """Test pictures of every class, (C, )."""
    return np.bincount(found.label, minlength=num_classes)


def mean_confidence(found: Predictions, num_classes: int) -> np.ndarray:
    """Mean confidence over the test pictures of every class.

    Args:
        found (Predictions): Of N pictures.
        num_classes (int): C.

    Returns:
        np.ndarray: In percent, (C, ); NaN of a class without pictures, and
        where the model gives no confidence.
    """
    total = np.bincount(found.label, weights=found.confidence, minlength=num_classes)
    images = test_images(found, num_classes)
    return np.where(images > 0, 100 * total / np.maximum(images, 1), np.nan)


def mistakes(found: Predictions, num_classes: int) -> dict[int, list[tuple[int, int]]]:
    """What the pictures of every class were taken for.

    Args:
        found (Predictions): Of N pictures.
        num_classes (int): C.

    Returns:
        dict[int, list[tuple[int, int]]]: By class, for those with mistakes:
        wrong classes and how many pictures, the most frequent first, of equal
        ones that with the lower number.
    """
    wrong = found.label != found.prediction
    pairs = found.label[wrong].astype(np.int64) * num_classes + found.prediction[wrong]
    result: dict[int, list[tuple[int, int]]] = {}
    for pair, number in zip(*(a.tolist() for a in np.unique(pairs, return_counts=True))):
        result.setdefault(pair // num_classes, []).append((pair % num_classes, number))
    return {c: sorted(own, key=lambda m: (-m[1], m[0])) for c, own in result.items()}


def calibration(found: Predictions, bins: int = 15) -> list[dict]:
    """What :func:`mmlt.evaluation.expected_calibration_error` adds up, bin by bin.

    Args:
        found (Predictions): Of N pictures.
        bins (int): Of equal width. Defaults to 15.

    Returns:
        list[dict]: ``low`` and ``high`` of every bin and its ``images``; where
        it has some, their mean ``confidence`` and ``accuracy``. In percent.
    """
    # In double precision, as the metric does: an edge must not move a picture to another bin.
    confidence, right = found.confidence.astype(np.float64), found.label == found.prediction
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(index, minlength=bins)
    sums = [np.bincount(index, weights=values, minlength=bins) for values in (confidence, right)]
    result = []
    for i, number in enumerate(images.tolist()):
        own = dict(low=100 * i / bins, high=100 * (i + 1) / bins, images=number)
        if number:
            own |= dict(confidence=100 * float(sums[0][i]) / number, accuracy=100 * float(sums[1][i]) / number)
        result.append(own)
    return result


def shot_confusion(found: Predictions, groups: np.ndarray) -> dict:
    """Confusion between and within many-, medium- and few-shot classes.

    Args:
        found (Predictions): Of N pictures.
        groups (np.ndarray): Index into ``SHOTS`` of every class, (C, ).

    Returns:
        dict: By shot group of the true class: ``images``; ``share``, three
        numbers, how many of them were predicted as a class of each group; and
        ``within``, how many as a wrong class of their own group. In percent,
        None where a group has no pictures.
    """
    true, taken = groups[found.label], groups[found.prediction]
    wrong = found.label != found.prediction
    images, share, within = [], [], []
    for i in range(len(SHOTS)):
        own = true == i
        images.append(int(own.sum()))
        known = images[-1] > 0
        share.append([100 * float((taken[own] == j).mean()) if known else None for j in range(len(SHOTS))])
        within.append(100 * float((wrong & (taken == i))[own].mean()) if known else None)
    return dict(images=images, share=share, within=within)


def worst_classes(accuracy: list[float | None], images: np.ndarray | None, number: int) -> list[int]:
    """The classes of the lowest accuracy, the worst first; of equal ones those with more test pictures.

    Args:
        accuracy (list[float | None]): C values, None of a class without test
            pictures.
        images (np.ndarray, optional): Test pictures of every class, (C, ).
        number (int): At most so many.

    Returns:
        list[int]: Classes, none of which is all right.
    """
    candidates = [c for c, a in enumerate(accuracy) if a is not None and a < 100]
    candidates.sort(key=lambda c: (accuracy[c], 0 if images is None else -images[c], c))
    return candidates[:number]
