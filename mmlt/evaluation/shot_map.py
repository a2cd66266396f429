"""Shot-split mean average precision as a metric of MMEngine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from mmlt.datasets.long_tail import count_classes, dataset_positives
from mmlt.errors import InputError
from mmlt.evaluation.functional import SHOTS, get_protocol, shot_average_precision, shot_groups
from mmlt.evaluation.shot_metric import train_dataset_of_running_config
from mmlt.registry import METRICS


@METRICS.register_module()
class ShotMAP(BaseMetric):
    """Mean average precision of many-, medium- and few-shot classes of a multi-label dataset.

    The training counts, images that have the class, come by themselves, as
    :class:`ShotAccuracy` gets them. Average precision is the area under the
    precision-recall curve without interpolation, equal scores counted
    together, as in torchmetrics and scikit-learn.

    The keys of the result are ``shot/all``, ``shot/many``, ``shot/medium``,
    ``shot/few`` and ``shot/worst_class``, all in percent. The per-class
    figures are in :attr:`report`.

    Args:
        protocol (str): ``'db'``: many >= 100, medium 20..99, few < 20 training
            images; the others of :class:`ShotAccuracy` give their bounds.
            Defaults to 'db'.
        class_counts (Sequence[int], optional): Training images of every class
            where neither dataset nor config can tell. Defaults to None.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to None, 'shot'.

    Raises:
        InputError: Unknown protocol; counts not to be had, or not as many as
            there are classes; a sample without scores.
    """

    default_prefix = 'shot'

    def __init__(
        self,
        protocol: str = 'db',
        class_counts: Sequence[int] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        get_protocol(protocol)
        self.protocol = protocol
        self.class_counts = None if class_counts is None else np.asarray(class_counts)
        self.report: dict = {}

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep scores and labels of every sample of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_score``, and ``gt_score``
                (C zeros and ones) or ``gt_label``.
        """
        for sample in data_samples:
            if sample.get('pred_score') is None:
                raise InputError('ShotMAP needs the scores of all classes: use a head that sets pred_score.')
            scores = sample['pred_score'].float().cpu().numpy()
            if 'gt_score' in sample:
                target = sample['gt_score'].cpu().numpy() > 0.5
            else:
                target = np.zeros(len(scores), dtype=bool)
                target[sample['gt_label'].cpu().numpy()] = True
            self.results.append((target, scores))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum up all samples; padding of the last batch was dropped before.

        Args:
            results (list): (labels, scores) of every sample, C each.

        Returns:
            dict[str, float]: See the class.
        """
        targets, scores = (np.stack([r[i] for r in results]) for i in (0, 1))
        counts = self._counts()
        classes = (self.dataset_meta or {}).get('classes')
        for number, whose in ((scores.shape[1], 'the model predicts'), (classes and len(classes), 'the dataset has')):
            if number and number != len(counts):
                raise InputError(
                    f'ShotMAP knows training counts of {len(counts)} classes, but {whose} {number} classes, not '
                    f'{len(counts)}: train and test datasets and the model must have the same classes.'
                )
        metrics = shot_average_precision(targets, scores, counts, self.protocol)
        precision = metrics.pop('per_class')
        groups = shot_groups(counts, get_protocol(self.protocol))
        self.report = {
            'protocol': self.protocol,
            'num_samples': len(targets),
            'measure': 'ap',
            'metrics': metrics,
            'classes_per_shot': {shot: int((groups == i).sum()) for i, shot in enumerate(SHOTS)},
            'per_class': [
                {'class': str(name), 'train_images': int(n), 'shot': SHOTS[g], 'ap': None if np.isnan(p) else float(p)}
                for name, n, g, p in zip(classes or range(len(counts)), counts, groups, precision)
            ],
        }
        return metrics

    def _counts(self) -> np.ndarray:
        if self.class_counts is None:
            known = (self.dataset_meta or {}).get('class_counts')
            self.class_counts = np.asarray(known if known is not None else _positives_of_running_config())
        return self.class_counts


def _positives_of_running_config() -> list[int]:
    """Count the labels of the train dataset of the config that runs now."""
    dataset = train_dataset_of_running_config('ShotMAP')
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return count_classes(dataset_positives(dataset)[1], classes, type(dataset).__name__)
