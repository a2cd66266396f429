"""Shot-split mean average precision as a metric of MMEngine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmlt.errors import InputError
from mmlt.evaluation.finite import first_not_finite, scores_not_finite
from mmlt.evaluation.functional import shot_average_precision
from mmlt.evaluation.shot_metric import ShotMetric
from mmlt.evaluation.targets import scored_targets
from mmlt.registry import METRICS


@METRICS.register_module()
class ShotMAP(ShotMetric):
    """Mean average precision of many-, medium- and few-shot classes of a multi-label dataset.

    The training counts, images that have the class, come by themselves, see
    :class:`ShotMetric`. Average precision is the area under the
    precision-recall curve without interpolation, equal scores counted
    together, as in torchmetrics and scikit-learn. Labels that are not to be
    scored are left out, as in MMPretrain's ``VOCAveragePrecision``: classes of
    which an image shows difficult objects only, and targets of -1 or NaN.

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
            there are classes; a sample without scores, with scores that are
            not finite or with a label that is no class.
    """

    measure = 'ap'
    default_protocol = 'db'

    def keys_of(self, labels: np.ndarray) -> list[str]:
        """See :class:`ShotMetric`."""
        counts = self.counts(0)
        shown = np.isin(np.arange(len(counts)), labels)[None]  # one image with all of them
        figures = shot_average_precision(shown, shown.astype(float), counts, self.protocol)
        del figures['per_class']
        return [*figures]

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep scores and labels of every sample of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_score``, and ``gt_score``
                (C zeros and ones, -1 or NaN of what is not to be scored) or
                ``gt_label`` and perhaps ``gt_label_difficult``.
        """
        broken = first_not_finite(data_samples)
        for i, sample in enumerate(data_samples):
            if sample.get('pred_score') is None:
                raise InputError('ShotMAP needs the scores of all classes: use a head that sets pred_score.')
            scores = sample['pred_score'].float().cpu().numpy()
            targets = scored_targets(sample, len(scores))
            hard = np.where(targets < 0, -1, targets > 0.5).astype(np.int8)
            self.results.append((hard, scores, scores_not_finite(sample) if i == broken else None))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum up all samples; padding of the last batch was dropped before.

        Args:
            results (list): (targets, scores, sentence if they are not finite)
                of every sample.

        Returns:
            dict[str, float]: See the class.
        """
        if (sentence := next((r[2] for r in results if r[2] is not None), None)) is not None:
            raise InputError(sentence)
        targets, scores = (np.stack([r[i] for r in results]) for i in (0, 1))
        counts = self.counts(scores.shape[1])
        metrics = shot_average_precision(targets, scores, counts, self.protocol)
        precision = metrics.pop('per_class')
        self.set_report(metrics, int((targets >= 0).any(1).sum()), counts, precision)
        return metrics
