"""Which figures an evaluation will have, before it runs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmpretrain.structures import DataSample

from mmlt.errors import InputError
from mmlt.evaluation.shot_metric import ShotMetric
from mmlt.utils.labels import dataset_positives


def result_keys(metrics: Sequence[BaseMetric], dataset) -> tuple[list[str], bool]:
    """Names of all figures.

    Args:
        metrics (Sequence[BaseMetric]): Those of an evaluator that knows its
            dataset.
        dataset (Dataset): The evaluated one.

    Returns:
        tuple: Names in the order of the result, and whether these are all; not
        where a metric, or the labels of the dataset, cannot tell.

    Raises:
        InputError: A shot metric cannot work with this dataset.
    """
    try:
        labels = np.unique(dataset_positives(dataset)[1])
    except InputError:
        return [], False  # no labels to be read
    labels = labels[labels >= 0]
    if len(labels) == 0:
        return [], False
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    found = [_keys(metric, labels, max(len(classes), int(labels[-1]) + 1)) for metric in metrics]
    return [key for own in found for key in own or ()], None not in found


def _keys(metric: BaseMetric, labels: np.ndarray, num_classes: int) -> list[str] | None:
    own = metric.keys_of(labels) if isinstance(metric, ShotMetric) else _trial(metric, labels, num_classes)
    return own and [f'{metric.prefix}/{key}' if metric.prefix else key for key in own]


def _trial(metric: BaseMetric, labels: np.ndarray, num_classes: int) -> list[str] | None:
    """Keys of a metric of MMPretrain, from a made-up prediction for every class; others may do anything."""
    if not type(metric).__module__.startswith('mmpretrain.'):
        return None
    metric = copy.copy(metric)
    metric.results = []
    score = torch.full((num_classes,), 1 / num_classes)
    samples = [DataSample().set_gt_label(int(c)).set_pred_score(score).set_pred_label(0).to_dict() for c in labels]
    for sample in samples:
        sample['gt_label_difficult'] = []  # its metrics for VOC ask for it
    try:
        metric.process(None, samples)
        return [*metric.compute_metrics(metric.results)]
    except Exception as e:
        print_log(f'{type(metric).__name__} tells its figures only when it runs ({e}).', 'current', logging.DEBUG)
        return None
