"""What long-tailed datasets share: profiles and counts of train lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmlt.errors import InputError
from mmlt.utils.labels import check_label_lists, check_labels


def exponential_profile(max_count: int, imbalance_ratio: float, num_classes: int) -> list[int]:
    """Class counts that decay exponentially, as the CIFAR-LT benchmarks have them.

    ``n_c = int(max_count * (1 / ratio) ** (c / (C - 1)))`` (LDAM, Cao et al.
    2019, whose lists the field uses).

    Args:
        max_count (int): Images of the largest class.
        imbalance_ratio (float): Largest over smallest count, at least 1.
        num_classes (int): C.

    Returns:
        list[int]: C counts, the largest first.

    Raises:
        InputError: A ratio below 1, or one that leaves a class empty.
    """
    if imbalance_ratio < 1:
        raise InputError(f'The imbalance ratio is {imbalance_ratio}; it is largest over smallest count, so at least 1.')
    steps = max(num_classes - 1, 1)
    counts = [int(max_count * (1 / imbalance_ratio) ** (c / steps) + 1e-9) for c in range(num_classes)]
    if min(counts) < 1:
        raise InputError(
            f'An imbalance ratio of {imbalance_ratio} leaves class {counts.index(0)} without images when the largest '
            f'has {max_count}; choose at most {max_count}.'
        )
    return counts


def select_long_tail(labels: np.ndarray, counts: np.ndarray | Sequence[int], seed: int) -> np.ndarray:
    """Draw ``counts[c]`` samples of every class c, without replacement.

    Args:
        labels (np.ndarray): Labels of shape (N, ).
        counts (np.ndarray | Sequence[int]): Samples wanted of each class.
        seed (int): The same seed draws the same samples.

    Returns:
        np.ndarray: Indices into ``labels``, sorted by class, shuffled within.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for c, n in enumerate(counts):
        members = rng.permutation(np.flatnonzero(labels == c))
        if len(members) < n:
            raise InputError(f'Class {c} has {len(members)} samples, but {n} were asked of it.')
        chosen.append(members[:n])
    return np.concatenate(chosen)


def limit_imbalance(counts: Sequence[int], max_ratio: float) -> list[int]:
    """Class counts of the largest subset whose imbalance is limited, ``min(n_c, floor(ratio * min n))``.

    LT-Soups (Aminbeidokhti et al. 2025) trains on such subsets with ratios
    2^0, 2^1, ...; the cap is that of the authors' published code
    (github.com/Masseeh/LT-Soups, ``sample_balance_factor`` of ``trainer.py``).

    Args:
        counts (Sequence[int]): Images of every class, (C, ), none without.
        max_ratio (float): Largest over smallest count, at least 1.

    Returns:
        list[int]: C counts.

    Raises:
        InputError: A ratio below 1, or an empty class.
    """
    if not max_ratio >= 1:
        raise InputError(f'The imbalance ratio is {max_ratio}; it is largest over smallest count, so at least 1.')
    if not min(counts, default=0):
        raise InputError('A class has no training images, so no imbalance ratio can be told.')
    cap = int(max_ratio * min(counts) + 1e-9)
    return [min(int(n), cap) for n in counts]


def count_classes(labels: np.ndarray | Sequence[int], classes: Sequence[str] | None, where: str) -> list[int]:
    """Count the training images of every class, and check labels and class list.

    Args:
        labels (np.ndarray | Sequence[int]): Labels of the train split.
        classes (Sequence[str], optional): C class names; None takes the labels
            as they are.
        where (str): What to name in an error, for example the annotation file.

    Returns:
        list[int]: C counts, none of them zero.

    Raises:
        InputError: A label outside [0, C), or a class without images.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if len(labels) == 0:
        raise InputError(f'{where} lists no images.')
    check_labels(labels, classes, where)
    counts = np.bincount(labels, minlength=len(classes) if classes is not None else 0)
    if (counts == 0).any():
        empty = np.flatnonzero(counts == 0)
        names = ', '.join(f"{c} ('{classes[c]}')" if classes is not None else str(c) for c in empty[:5])
        more = '' if len(empty) <= 5 else f' and {len(empty) - 5} more'
        raise InputError(
            f'{where} has no training image of class {names}{more}: give every class at least one image, or remove '
            'the class from the class list and renumber the labels.'
        )
    return counts.tolist()


def count_positives(labels: Sequence[np.ndarray], classes: Sequence[str], where: str) -> list[int]:
    """Count the training images that have a label, for every label.

    Args:
        labels (Sequence[np.ndarray]): Labels of every image of the train
            split, none twice; an image may have none.
        classes (Sequence[str]): C class names.
        where (str): What to name in an error.

    Returns:
        list[int]: C counts, none of them zero.

    Raises:
        InputError: No labels, one outside [0, C), or a class that no image
            has.
    """
    check_label_lists(labels, classes, where)
    every = np.concatenate([np.empty(0, np.int64), *labels])
    if len(every) == 0:
        raise InputError(f'{where}: no image has a label.')
    return count_classes(every, classes, where)
