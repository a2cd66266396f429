"""Targets of one picture, and which of them are not to be scored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mmlt.errors import InputError


def picture_name(sample: Mapping) -> str:
    """What to call the picture of a sample in a sentence: its path, or its number in the dataset."""
    if path := sample.get('img_path'):
        return f"'{path}'"
    index = sample.get('sample_idx')
    return 'a picture' if index is None else f'picture {index}'


def scored_targets(sample: Mapping, num_classes: int) -> np.ndarray:
    """Targets of every class, and which are not to be scored.

    Those are classes whose ``gt_score`` is negative or NaN, and, as in
    MMPretrain's ``VOCAveragePrecision``, those of ``gt_label_difficult`` that
    are not in ``gt_label``, too.

    Args:
        sample (Mapping): With ``gt_score``, C numbers, or ``gt_label``, and
            perhaps ``gt_label_difficult``.
        num_classes (int): C.

    Returns:
        np.ndarray: Shape (C, ), in [0, 1]; -1 of what is not to be scored.

    Raises:
        InputError: A label outside [0, C); names the picture.
    """
    if sample.get('gt_score') is not None:
        targets = torch.as_tensor(sample['gt_score'], dtype=torch.float32).cpu().numpy().copy()
        if len(targets) != num_classes:
            raise InputError(
                f'The gt_score of {picture_name(sample)} is of {len(targets)} classes, but there are {num_classes}: '
                'give the model and the dataset the same classes.'
            )
        targets[~(targets >= 0)] = -1  # NaN is neither
    else:
        targets = np.zeros(num_classes, dtype=np.float32)
        targets[_labels(sample, 'gt_label', num_classes)] = 1
    difficult = _labels(sample, 'gt_label_difficult', num_classes)
    targets[difficult[targets[difficult] == 0]] = -1
    return targets


def _labels(sample: Mapping, key: str, num_classes: int) -> np.ndarray:
    labels = np.array([float(c) for c in (() if sample.get(key) is None else sample[key])])
    if (wrong := labels[~((labels >= 0) & (labels < num_classes))]).size:
        raise InputError(
            f'{key} of {picture_name(sample)} has the label {wrong[0]:g}, outside [0, {num_classes}): it does not say '
            'which class is meant. A class that is not to be scored is marked by -1 at its place in gt_score, or by '
            'gt_label_difficult.'
        )
    return labels.astype(np.int64)
