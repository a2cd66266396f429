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

from mmlt.datasets.long_tail import dataset_positives
from mmlt.errors import InputError
from mmlt.evaluation.shot_metric import ShotMetric


def result_keys(metrics: Sequence[BaseMetric], dataset) -> tuple[list[str], bool]:
    """Names of all figures, by a trial with one made-up prediction for every class that the dataset has.

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
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    if len(labels) == 0:
        return [], False
    number = max(len(classes), int(labels[-1]) + 1)
    score = torch.full((number,), 1 / number)
    samples = [
        {
            **DataSample().set_gt_label(int(c)).set_pred_score(score).set_pred_label(0).to_dict(),
            'gt_label_difficult': [],
        }
        for c in labels
    ]
    found = [_trial(metric, samples) for metric in metrics]
    return [key for own in found for key in own or ()], None not in found


def _trial(metric: BaseMetric, samples: list[dict]) -> list[str] | None:
    if not type(metric).__module__.startswith(('mmlt.', 'mmpretrain.')):
        return None  # others may do anything, such as write files
    metric = copy.copy(metric)
    metric.results = []
    try:
        metric.process(None, samples)
        found = metric.compute_metrics(metric.results)
    except Exception as e:
        if isinstance(metric, ShotMetric):
            raise
        print_log(f'{type(metric).__name__} tells its figures only when it runs ({e}).', 'current', logging.DEBUG)
        return None
    return [f'{metric.prefix}/{key}' if metric.prefix else key for key in found]
