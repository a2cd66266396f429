"""Shot-split accuracy as a metric of MMEngine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, print_log

from mmlt.checkpoints import read_config_text
from mmlt.errors import InputError
from mmlt.evaluation.finite import first_not_finite, scores_not_finite
from mmlt.evaluation.functional import (
    SHOTS,
    expected_calibration_error,
    get_protocol,
    negative_log_likelihood,
    shot_accuracy,
    shot_groups,
)
from mmlt.evaluation.meanings import meanings
from mmlt.evaluation.predictions import Predictions
from mmlt.evaluation.targets import picture_name
from mmlt.registry import METRICS
from mmlt.utils.class_info import ClassInfo, class_info
from mmlt.utils.classes import check_same_classes
from mmlt.utils.labels import build_dataset


class ShotMetric(BaseMetric):
    """A metric by many-, medium- and few-shot classes.

    The training counts that split the classes come by themselves: from the
    built train dataset (:func:`class_info`), in a test from that of the
    running config, and where it is not there from ``class_counts`` of the
    tested dataset's metainfo. So a foreign config needs no more than the metric.

    Args:
        protocol (str, optional): Where many, medium and few begin.
            Defaults to None, :attr:`default_protocol`.
        class_counts (Sequence[int], optional): Training images of every class
            where neither dataset nor config can tell. Defaults to None.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to None, 'shot'.

    Raises:
        InputError: Unknown protocol; counts not to be had, or not as many as
            there are classes.
    """

    default_prefix = 'shot'
    measure: str  # what the report has of every class
    default_protocol: str

    def __init__(
        self,
        protocol: str | None = None,
        class_counts: Sequence[int] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.protocol = protocol or self.default_protocol
        get_protocol(self.protocol)
        self.class_counts = None if class_counts is None else np.asarray(class_counts)
        self._given = class_counts is not None
        self.report: dict = {}

    def counts(self, num_scores: int) -> np.ndarray:
        """Training images of every class, (C, ), after a check of C against the model and the dataset.

        Args:
            num_scores (int): Classes that the model predicts, 0 if it does not
                tell.
        """
        if self.class_counts is None:
            self.class_counts = np.asarray(self._find_counts())
        counts, classes = self.class_counts, (self.dataset_meta or {}).get('classes')
        for number, whose in ((num_scores, 'the model predicts'), (classes and len(classes), 'the dataset has')):
            if number and number != len(counts):
                raise InputError(
                    f'{type(self).__name__} knows training counts of {len(counts)} classes, but {whose} {number} '
                    f'classes, not {len(counts)}: train and test datasets and the model must have the same classes.'
                )
        return counts

    @abstractmethod
    def keys_of(self, labels: np.ndarray) -> list[str]:
        """Which figures an evaluation of classes will have, without the prefix.

        Args:
            labels (np.ndarray): The classes that have test images, (K, ).
        """

    def set_report(self, metrics: dict[str, float], num_samples: int, counts: np.ndarray, figures: np.ndarray) -> None:
        """Put together :attr:`report`.

        Args:
            metrics (dict[str, float]): The result.
            num_samples (int): Test images.
            counts (np.ndarray): Training images of every class, (C, ).
            figures (np.ndarray): The measure of every class in percent, (C, ),
                NaN where it has none.
        """
        names = (self.dataset_meta or {}).get('classes') or range(len(counts))
        self.report = make_report(self.protocol, self.measure, metrics, num_samples, names, counts, figures)

    def set_class_info(self, info: ClassInfo) -> None:
        """Take the counts of the built train dataset, unless they were given; :func:`tell_classes` calls it.

        Args:
            info (ClassInfo): Of the train dataset.
        """
        if not self._given and info.counts is not None:
            self.class_counts = np.asarray(info.counts)

    def _find_counts(self) -> Sequence[int]:
        """Counts where nobody told them: of the running config's train dataset, else those that the dataset knows."""
        meta = self.dataset_meta or {}
        known, classes = meta.get('class_counts'), meta.get('classes')
        try:
            own = _running_train_dataset()
        except Exception as e:  # a machine for tests need not have the training images
            if known is None:
                raise
            own = ClassInfo(())
            print_log(
                f'The train dataset cannot be counted ({type(e).__name__}: {e}): the training counts are those that '
                'the tested dataset knows of its train list.',
                logger='current',
                level=30,
            )
        # Another dataset that knows its counts is another run's; this one's classes in another order are a mistake.
        if known is None or (own.classes and classes and sorted(own.classes) == sorted(map(str, classes))):
            check_same_classes({'the train dataset': own.classes, 'the tested one': classes})
            known = known if own.counts is None else own.counts
        if known is None:
            raise InputError(
                f'{type(self).__name__} does not know how many training images the classes have: give '
                'class_counts=[...] to the metric, or have a train_dataloader in the config.'
            )
        return known


def _running_train_dataset() -> ClassInfo:
    """What is known of the train dataset of the config that runs now; nothing where there is none."""
    text = MessageHub.get_current_instance().runtime_info.get('cfg')
    loader = None if text is None else read_config_text(text, 'The training').get('train_dataloader')
    if not loader or not loader.get('dataset'):
        return ClassInfo(())
    return class_info(build_dataset(loader.dataset))


def make_report(
    protocol: str,
    measure: str,
    metrics: dict[str, float],
    num_samples: int,
    names: Sequence,
    counts: np.ndarray,
    figures: np.ndarray,
) -> dict:
    """A result with its classes, as tables, pictures and JSON take it.

    Args:
        protocol (str): See ``SHOT_PROTOCOLS``.
        measure (str): What is known of every class, 'accuracy' or 'ap'.
        metrics (dict[str, float]): The result.
        num_samples (int): Test images.
        names (Sequence): The C classes.
        counts (np.ndarray): Training images of every class, (C, ).
        figures (np.ndarray): The measure of every class in percent, (C, ), NaN
            where it has none.

    Returns:
        dict: :attr:`ShotMetric.report`.
    """
    groups = shot_groups(counts, get_protocol(protocol))
    told = meanings(protocol, measure)
    return {
        'protocol': protocol,
        'num_samples': num_samples,
        'measure': measure,
        'metrics': metrics,
        'meanings': {key: told[key] for key in metrics},
        'classes_per_shot': {shot: int((groups == i).sum()) for i, shot in enumerate(SHOTS)},
        'per_class': [
            {
                'class': str(name),
                'train_images': int(n),
                'shot': SHOTS[g],
                measure: None if np.isnan(x) else float(x),
            }
            for name, n, g, x in zip(names, counts, groups, figures)
        ],
    }


def tell_apart(metrics: Sequence[BaseMetric]) -> None:
    """Give shot metrics of one evaluator that have one prefix different ones, after their protocols.

    Args:
        metrics (Sequence[BaseMetric]): Changed in place; others stay.

    Raises:
        InputError: Two have one prefix and one protocol.
    """
    protocols: dict[str, set[str]] = {}
    for metric in metrics:
        if not isinstance(metric, ShotMetric):
            continue
        known = protocols.setdefault(metric.prefix, set())
        if metric.protocol in known:
            raise InputError(
                f"Two shot metrics with the prefix '{metric.prefix}' and the protocol '{metric.protocol}' stand in one "
                f"evaluator: leave one out, or give {type(metric).__name__} prefix='another name'."
            )
        if known:
            kind, own = type(metric).__name__, f'{metric.prefix}-{metric.protocol}'
            print_log(f"The figures of {kind} with the protocol '{metric.protocol}' are named '{own}/...'.", 'current')
            metric.prefix = own
        known.add(metric.protocol)


@METRICS.register_module()
class ShotAccuracy(ShotMetric):
    """Top-1 accuracy of many-, medium- and few-shot classes.

    The training counts come by themselves, see :class:`ShotMetric`.

    The keys of the result are ``shot/all``, ``shot/many``, ``shot/medium``,
    ``shot/few``, ``shot/balanced`` (mean over classes),
    ``shot/sample_accuracy`` (share of right samples), ``shot/worst_class``,
    ``shot/harmonic_mean`` and ``shot/ece`` (expected calibration error, 15
    bins), all in percent, and ``shot/nll``, the mean negative logarithm of the
    true class's probability in nats: a validation loss. The last two need
    ``pred_score``. ``shot/all`` is what the protocol says, the mean over
    classes or the accuracy over samples. The per-class figures, and in words
    what every figure is, are in :attr:`report`, what was predicted for every
    picture in :attr:`predictions`.

    A sample with a negative label is not scored.

    Args:
        protocol (str): ``'standard'``: many > 100, medium 20..100, few < 20,
            means over classes; ``'vl-ltr'``: >= 100, 21..99, <= 20, over
            samples; ``'lpt'``: > 100, 21..100, <= 20, over samples.
            Defaults to 'standard'.
        class_counts (Sequence[int], optional): Training images of every class
            where neither dataset nor config can tell. Defaults to None.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to None, 'shot'.

    Raises:
        InputError: Unknown protocol; counts not to be had, or not as many as
            there are classes; a sample with several labels or with scores that
            are not finite; no sample to be scored.
    """

    measure = 'accuracy'
    default_protocol = 'standard'
    predictions: Predictions | None = None  # of the last evaluation, in the first process

    def keys_of(self, labels: np.ndarray) -> list[str]:
        """See :class:`ShotMetric`; of predictions with scores."""
        figures = shot_accuracy(labels, labels, self.counts(0), self.protocol)
        del figures['per_class']
        return [*figures, 'ece', 'nll']

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep label, prediction, confidence and the true class's probability of every sample of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``gt_label``, and ``pred_score``
                or ``pred_label``.
        """
        broken = first_not_finite(data_samples)
        for i, sample in enumerate(data_samples):
            score = sample.get('pred_score')
            label = _single_label(sample)
            if score is not None:
                confidence, prediction = score.float().max(0)
                # A label that the model does not have is an error of compute_metrics.
                probability = float(score[label]) if 0 <= label < len(score) else float('nan')
                found = (label, int(prediction), float(confidence), len(score), probability)
            else:
                found = (label, int(sample['pred_label'][0]), float('nan'), 0, float('nan'))
            file, index = sample.get('img_path'), sample.get('sample_idx')
            picture = (str(file or ''), -1 if index is None else int(index))
            self.results.append((*found, scores_not_finite(sample) if i == broken else None, *picture))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum up all samples; padding of the last batch was dropped before.

        Args:
            results (list): (label, prediction, confidence, C, probability of
                the label, sentence if scores are not finite, picture's file,
                its number) of every sample.

        Returns:
            dict[str, float]: See the class.
        """
        if (sentence := next((r[5] for r in results if r[5] is not None), None)) is not None:
            raise InputError(sentence)
        if not (results := [r for r in results if r[0] >= 0]):
            raise InputError('No test image has a label to be scored: all of them are negative.')
        labels = np.array([r[0] for r in results])
        predictions = np.array([r[1] for r in results])
        confidence = np.array([r[2] for r in results])
        counts = self.counts(results[0][3])
        if (top := int(max(labels.max(), predictions.max()))) >= len(counts):
            raise InputError(
                f'ShotAccuracy knows training counts of {len(counts)} classes, but the model predicts {top + 1} or '
                'more: train and test datasets must have the same classes.'
            )
        metrics = shot_accuracy(labels, predictions, counts, self.protocol)
        accuracy = metrics.pop('per_class')
        if not np.isnan(confidence).any():
            metrics['ece'] = expected_calibration_error(confidence, labels == predictions)
            metrics['nll'] = negative_log_likelihood(np.array([r[4] for r in results]))
        self.set_report(metrics, len(labels), counts, accuracy)
        self.predictions = Predictions.gather([(*r[:3], *r[6:]) for r in results])
        return metrics


def _single_label(sample: dict) -> int:
    """The label; negative where it is not to be scored."""
    labels = sample.get('gt_label')
    if labels is None or len(labels) != 1:
        raise InputError(
            f'ShotAccuracy scores pictures with one label, but {picture_name(sample)} has '
            f'{0 if labels is None else len(labels)}: use mmlt.ShotMAP for several labels, and a test list with labels.'
        )
    return int(labels[0])
