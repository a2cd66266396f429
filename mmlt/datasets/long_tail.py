"""What all long-tailed datasets share: profiles, counts, checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmpretrain.datasets import MultiLabelDataset

from mmlt.errors import InputError


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


def select_long_tail(labels: np.ndarray, counts: Sequence[int], seed: int) -> np.ndarray:
    """Draw ``counts[c]`` samples of every class c, without replacement.

    Args:
        labels (np.ndarray): Labels of shape (N, ).
        counts (Sequence[int]): Samples wanted of each class.
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


def count_classes(labels: Sequence[int], classes: Sequence[str] | None, where: str) -> list[int]:
    """Count the training images of every class, and check labels and class list.

    Args:
        labels (Sequence[int]): Labels of the train split.
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


def check_label_lists(labels: Sequence[np.ndarray], classes: Sequence[str], where: str) -> None:
    """Raise an InputError for an image with a label outside [0, C)."""
    top = len(classes)
    for i, own in enumerate(labels, 1):
        if wrong := [c for c in own if not 0 <= c < top]:
            every = np.concatenate(labels)
            hint = ''
            if every.min() >= 1 and every.max() == top:
                hint = ' The labels seem to start at 1; they must start at 0.'
            raise InputError(f'{where}, image {i}: label {wrong[0]} is outside [0, {top}).{hint}')


def check_labels(labels: np.ndarray, classes: Sequence[str] | None, where: str) -> None:
    """Raise an InputError for a label outside [0, C)."""
    top = len(classes) if classes is not None else np.inf
    wrong = np.flatnonzero((labels < 0) | (labels >= top))
    if len(wrong):
        i = int(wrong[0])
        limit = f'[0, {top})' if classes is not None else '[0, ...)'
        hint = ''
        if classes is not None and labels.min() >= 1 and labels.max() == top:
            hint = ' The labels seem to start at 1; they must start at 0.'
        elif classes is not None and labels.max() >= top:
            hint = f' The class list has {top} names, the labels go up to {labels.max()}: one of them is wrong.'
        raise InputError(f'{where}, entry {i + 1}: label {labels[i]} is outside {limit}.{hint}')


def dataset_labels(dataset) -> np.ndarray:
    """Labels of any mm dataset, through the usual wrappers.

    Args:
        dataset (Dataset): An MMPretrain dataset, or Concat, Repeat,
            ClassBalanced (MMEngine) or Subset (PyTorch) of such.

    Returns:
        np.ndarray: Shape (len(dataset), ).

    Raises:
        InputError: The dataset tells no single label per sample.
    """
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if hasattr(dataset, 'get_gt_labels'):
        return _single_labels(dataset)
    if hasattr(dataset, 'datasets'):
        return np.concatenate([dataset_labels(d) for d in dataset.datasets])
    if hasattr(dataset, 'dataset'):
        inner = dataset_labels(dataset.dataset)
        if hasattr(dataset, 'repeat_indices'):
            return inner[np.asarray(dataset.repeat_indices)]
        if hasattr(dataset, 'indices'):
            return inner[np.asarray(dataset.indices)]
        return inner[np.arange(len(dataset)) % len(inner)]
    raise _no_labels(dataset)


def _single_labels(dataset) -> np.ndarray:
    try:
        labels = np.asarray(dataset.get_gt_labels(), dtype=np.int64)
    except (KeyError, TypeError, ValueError) as e:
        raise _no_labels(dataset) from e
    if labels.ndim != 1:
        raise _no_labels(dataset)
    return labels


def dataset_positives(dataset) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of image and label of a single- or multi-label dataset.

    Args:
        dataset (Dataset): What :func:`dataset_labels` takes, or a
            ``MultiLabelDataset`` of MMPretrain or mmlt.

    Returns:
        tuple: P image indices and their P labels, ordered by image.

    Raises:
        InputError: The dataset tells no labels.
    """
    if not isinstance(dataset, MultiLabelDataset):
        labels = dataset_labels(dataset)
        return np.arange(len(labels)), labels
    dataset.full_init()
    lists = [np.asarray(dataset.get_cat_ids(i), dtype=np.int64) for i in range(len(dataset))]
    images = np.repeat(np.arange(len(lists)), [len(labels) for labels in lists])
    return images, np.concatenate([*lists, np.empty(0, np.int64)])


def _no_labels(dataset) -> InputError:
    return InputError(
        f'{type(dataset).__name__} tells no labels, one per image: class-aware sampling and shot metrics need a '
        'dataset with get_gt_labels(), as every single-label dataset of MMPretrain has.'
    )
