"""A metric that measures nothing and writes the scores of a test."""

from __future__ import annotations

import hashlib
import os.path as osp
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmpretrain.models.heads import LinearClsHead, MultiLabelClsHead, MultiTaskHead
from torch import nn

from mmlt.errors import InputError
from mmlt.evaluation.finite import first_not_finite, scores_not_finite
from mmlt.evaluation.scores_file import DIGEST, Scores, check_npz_path, write_scores
from mmlt.evaluation.shot_metric import ShotMetric
from mmlt.evaluation.targets import picture_name
from mmlt.registry import METRICS
from mmlt.version import __version__

# Below it single precision has no normal numbers; a softmax that rounds to zero counts as this.
_TINY = float(np.finfo(np.float32).tiny)
_TOLERANCE = 2e-2  # of a sum of probabilities in half precision

_NOT_ONE = (
    'Saved scores are those of one softmax over the classes, but {what}: no step after the training is defined for '
    'them; leave --save-logits out, or use --out for the predictions.'
)


@METRICS.register_module()
class SaveLogits(ShotMetric):
    """Collect the scores of a test and write them as a file, see :class:`Scores`.

    The order is that of the dataset, no image comes twice, also with several
    processes. MMPretrain's classifiers give probabilities: their logarithms
    are written, of which those below that of single precision's smallest
    normal number, -87.3, are set to it. Scores that are no probabilities are
    taken as logits; of a linear classifier (:meth:`watch`) the logits
    themselves are written, with the lengths of its class vectors and its bias.
    Images whose label is negative are left out. It has no figures. A picture
    without a file is known by a digest of its pixels, where the dataset holds
    them (:meth:`look_up`).

    Args:
        out_file (str): The ``.npz`` to write.
        split (str): Name of the tested split. Defaults to 'test'.
        facts (dict, optional): More to write with the scores, for example
            ``config``. Defaults to None.
        protocol (str): Where many, medium and few begin. Defaults to
            'standard'.
        class_counts (Sequence[int], optional): See :class:`ShotMetric`.
            Defaults to None.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to None, 'save-logits'.

    Raises:
        InputError: Another name than ``.npz``; no scores, several labels, or
            scores of a multi-label head; scores that are not finite; no
            training counts.
    """

    default_prefix = 'save-logits'
    measure = 'accuracy'

    def __init__(
        self,
        out_file: str,
        split: str = 'test',
        facts: dict | None = None,
        protocol: str = 'standard',
        class_counts: Sequence[int] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ):
        super().__init__(protocol, class_counts, collect_device, prefix)
        self.out_file, self.split, self.facts = check_npz_path(out_file), split, facts or {}
        self._linear: nn.Linear | None = None
        self._logits: torch.Tensor | None = None
        self._dataset: BaseDataset | None = None

    def look_up(self, dataset: BaseDataset) -> None:
        """Name pictures that have no file by their pixels.

        Args:
            dataset (BaseDataset): The tested one.
        """
        self._dataset = dataset

    def watch(self, linear: nn.Linear) -> None:
        """Write what a linear classifier gives, before its softmax.

        Args:
            linear (nn.Linear): The classifier's last layer, which is called
                once a batch.
        """
        self._linear = linear
        linear.register_forward_hook(lambda _, inputs, output: setattr(self, '_logits', output.detach()))

    def keys_of(self, labels: np.ndarray) -> list[str]:
        """None."""
        return []

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep place, label, file and scores of every sample of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``gt_label`` and ``pred_score``.
        """
        broken = first_not_finite(data_samples)
        logits, self._logits = self._logits, None
        if logits is None or len(logits) != len(data_samples):
            self._linear = None  # not called as it was expected: then the probabilities tell
        for i, sample in enumerate(data_samples):
            score, label = sample.get('pred_score'), sample.get('gt_label')
            wrong = scores_not_finite(sample) if i == broken else None
            if not torch.is_tensor(score) or score.ndim != 1:
                wrong = _NOT_ONE.format(what=f'{picture_name(sample)} has none')
            elif label is None or len(label) != 1:
                number = 0 if label is None else len(label)
                wrong = _NOT_ONE.format(what=f'{picture_name(sample)} has {number} labels')
            if wrong is not None:
                self.results.append((-1, -1, '', None, wrong))
                continue
            place = sample.get('sample_idx')
            if self._linear is not None:
                score = logits[i]
            found = (-1 if place is None else int(place), int(label[0]), str(sample.get('img_path') or ''))
            self.results.append((*found, score.detach().float().cpu().numpy(), None))

    def _digests(self, results: list[tuple]) -> list[str]:
        """'sha256:' and a digest of each result's pixels, empty where the dataset does not hold them."""
        places = [r[0] for r in results]
        if self._dataset is None or min(places) < 0 or len(set(places)) < len(places):
            return [''] * len(places)
        pixels = [self._dataset.get_data_info(place).get('img') for place in places]
        return [
            f'{DIGEST}{hashlib.sha256(p.tobytes()).hexdigest()[:32]}' if isinstance(p, np.ndarray) else ''
            for p in pixels
        ]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Write the file; padding of the last batch was dropped before.

        Args:
            results (list): (place, label, file, scores, sentence if it cannot
                be saved) of every sample.

        Returns:
            dict[str, float]: Empty.
        """
        if (sentence := next((r[4] for r in results if r[4] is not None), None)) is not None:
            raise InputError(sentence)
        results = in_order(results)
        if not (known := [r for r in results if r[1] >= 0]):
            raise InputError('No test image has a label to be scored, so there are no scores to save.')
        scores, labels = np.stack([r[3] for r in known]), np.array([r[1] for r in known])
        counts = self.counts(scores.shape[1])
        if (top := int(labels.max())) >= scores.shape[1]:
            raise InputError(
                f'A test image has the label {top}, but the model predicts {scores.shape[1]} classes: give the test '
                'dataset and the model the same classes.'
            )
        linear = self._linear
        kind, logits, floored = as_logits(scores) if linear is None else ('logits', scores.astype(np.float32), 0)
        facts = {'scores': kind, **self.facts, 'protocol': self.protocol, 'mmlt': __version__}
        facts |= {'unlabelled_images': len(results) - len(known), 'scores_at_floor': floored}
        names = (self.dataset_meta or {}).get('classes') or range(len(counts))
        files = np.array([r[2] or digest for r, digest in zip(known, self._digests(known))])
        written = Scores(
            logits, labels, np.array([str(n) for n in names]), counts, self.split, facts, files if any(files) else None
        )
        if linear is not None:
            written.weight_norms = linear.weight.detach().float().norm(dim=1).cpu().numpy()
            written.bias = None if linear.bias is None else linear.bias.detach().float().cpu().numpy()
        write_scores(written, self.out_file)
        print_log(f'Scores of {len(known)} images ({kind}): {self.out_file}', logger='current')
        return {}


def in_order(results: list[tuple]) -> list[tuple]:
    """Results by their place in the dataset.

    Lists that were joined count every part from zero: then, as of datasets
    that tell no places, the order is the one in which they were gathered,
    which is the dataset's, too, under MMEngine's sampler.

    Args:
        results (list[tuple]): With the place first, -1 where it is not known.

    Returns:
        list[tuple]: The same ones.
    """
    places = [r[0] for r in results]
    if min(places, default=-1) < 0 or len(set(places)) < len(places):
        return results
    return sorted(results, key=lambda r: r[0])


def as_logits(scores: np.ndarray) -> tuple[str, np.ndarray, int]:
    """What saved scores are, and as what they are saved.

    Args:
        scores (np.ndarray): ``pred_score`` of N images, (N, C).

    Returns:
        tuple: 'log-probabilities' or 'logits'; these, (N, C), float32; and how
        many probabilities were smaller than single precision can hold.

    Raises:
        InputError: Numbers in [0, 1] that do not sum to one, as those of a
            multi-label head.
    """
    inside = scores.min() >= 0 and scores.max() <= 1 + _TOLERANCE
    if not inside:
        return 'logits', scores.astype(np.float32), 0
    sums = scores.sum(1, dtype=np.float64)
    if (np.abs(sums - 1) > _TOLERANCE).any():
        wrong = sums[int(np.abs(sums - 1).argmax())]
        raise InputError(
            _NOT_ONE.format(what=f'these are between 0 and 1 with a sum of {wrong:.3g}, as of several labels')
        )
    logs = np.log(np.maximum(scores.astype(np.float64), _TINY)).astype(np.float32)
    return 'log-probabilities', logs, int((scores < _TINY).sum())


def save_logits(evaluator, cfg, model: nn.Module, out_file: str, tta: bool = False, tested=None) -> None:
    """Let an evaluator write the scores of its test as well.

    Args:
        evaluator (Evaluator): That of the test loop, which gets a
            :class:`SaveLogits`.
        cfg (Config): The test's.
        model (nn.Module): Refused where its head is for several labels.
        out_file (str): The ``.npz`` to write.
        tta (bool): Whether the scores are fused from several views. Defaults
            to False.
        tested (Dataset, optional): Names the pictures without files, see
            :meth:`SaveLogits.look_up`. Defaults to None, they have no names.

    Raises:
        InputError: A multi-label or multi-task head, or another name than
            ``.npz``.
    """
    for part in model.modules():
        if isinstance(part, (MultiLabelClsHead, MultiTaskHead)):
            raise InputError(_NOT_ONE.format(what=f'{type(part).__name__} predicts several labels or tasks'))
    dataset = cfg.test_dataloader.dataset
    list_name = osp.splitext(osp.basename(str(dataset.get('ann_file') or '')))[0]
    facts = {'config': cfg.filename, 'checkpoint': cfg.get('load_from'), 'tta': tta}
    protocol = next((m.protocol for m in evaluator.metrics if isinstance(m, ShotMetric)), 'standard')
    metric = SaveLogits(out_file, str(dataset.get('split') or list_name or 'test'), facts, protocol)
    metric.dataset_meta = evaluator.dataset_meta  # its loop told the others when it was built
    head = getattr(model, 'head', None)
    if type(head) is LinearClsHead and not tta:
        metric.watch(head.fc)
    if isinstance(tested, BaseDataset):  # places in one that wraps others are not its own
        metric.look_up(tested)
    evaluator.metrics.append(metric)
