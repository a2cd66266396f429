"""MORE: the rebalancing of a classifier's capacity by low-rank weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmpretrain.models import BaseClassifier
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import label_to_onehot
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.losses.common import scored
from mmlt.models.more.functional import DISCREPANCIES, class_discrepancy, prior_weighted, sinusoidal_alpha
from mmlt.models.more.low_rank import merge, split_weights
from mmlt.registry import MODELS
from mmlt.utils.class_info import ClassInfo, check_no_empty_class, not_told

# What makes the parts of a module those of another one.
_SHARED = (
    '_modules',
    '_parameters',
    '_buffers',
    '_non_persistent_buffers_set',
    '_state_dict_hooks',
    '_load_state_dict_pre_hooks',
    '_load_state_dict_post_hooks',
)


def _check_settings(discrepancy: str, multi_label: str, peak: float) -> None:
    if discrepancy not in DISCREPANCIES:
        raise InputError(f"MORE's discrepancy is '{discrepancy}'; choose 'l2' or 'kl'.")
    if multi_label not in ('class', 'sample'):
        raise InputError(f"MORE's multi_label is '{multi_label}'; choose 'class' or 'sample'.")
    if not peak >= 0:
        raise InputError(f"MORE's peak is {peak}; give a number >= 0, and 0 for the control without penalty.")


@MODELS.register_module()
class MORE(BaseClassifier):
    """Model rebalancing (MORE) for any classifier.

    Every chosen weight becomes W = W_g + B A with a B A of low rank, and all
    of it is trained. The loss is the classifier's own, with the full weights,
    plus

    ``alpha(t) * mean_i pi_{y_i} * ||z(x_i; W) - z(x_i; W_g)||^2``,

    with ``pi_c`` the share of class c in the training set and ``alpha(t) =
    peak * C * sin(pi t / T)``. It is heavier on frequent classes, so the
    low-rank part is left to the rare ones. Prediction uses W; merged
    (:meth:`merge`), the model is the plain one at its plain cost.
    :class:`MOREHook` sets alpha and writes the merged checkpoint.

    The parts of the classifier are this model's own, under the same names:
    ``model.backbone``, checkpoints and names of parameters in
    ``paramwise_cfg`` are as without the wrapper, except for split weights,
    see :func:`split_weights`. Options of the classifier are reached by
    ``model.classifier.``.

    Both passes see the same images and draw the same random numbers (dropout,
    stochastic depth), so they differ by B A alone; a training has the random
    numbers of a plain one. BatchNorm layers normalise each pass by its own
    batch statistics; the running ones are updated by the full pass only.

    The squared distance has no bound: at high learning rates the training
    diverges unless its gradients are clipped, for example by
    ``optim_wrapper=dict(clip_grad=dict(max_norm=5))``.

    The paper is known here by its abstract and by a third party's note. Not
    known from them, and arguments here: which layers are split, how the prior
    weighs several labels, and whether the general prediction is detached.

    Args:
        classifier (dict | nn.Module): Any classifier, for example an
            ``ImageClassifier``; one config without changes.
        layers (str | Sequence[str]): Which weights are split, patterns of
            their names, see :func:`split_weights`. Frozen ones never are.
            Defaults to '*', all of Linear, Conv2d and attention layers.
        exclude (str | Sequence[str]): Patterns of names to leave out.
            Defaults to ().
        rank (float | int): Rank of the low-rank part as a ratio of
            ``min(out, in * k * k)`` if a float, or as a number if an integer.
            Defaults to 0.1.
        peak (float): A / C, largest weight of the penalty over the number of
            classes. 0 is the matched control: split weights without penalty
            and without second forward pass. 2 is meant for a loss that sums
            over classes, as MMPretrain's with several labels do; for one that
            takes their mean it is 2 / C. Defaults to 2.0.
        discrepancy (str): 'l2', or 'kl' for the paper's ablation (the
            direction is not known: of the full to the general prediction).
            Defaults to 'l2'.
        detach_general (bool): Stop the penalty's gradient at the general
            prediction; saves its backward pass. Defaults to False.
        multi_label (str): For multi-label heads. 'class': squared differences
            of every class weighted by its own prior; 'sample': a sample's sum
            of them weighted by the mean prior of its classes.
            Defaults to 'class'.
        data_preprocessor (dict, optional): For a classifier that has none of
            its own. Defaults to None.

    Raises:
        InputError: A pattern without layers, a rank too large, see
            :func:`split_weights`; unknown options; a classifier without head,
            with a head whose logits in training need the labels, or with
            activation checkpointing; class counts missing or zero.

    Examples:
        >>> import mmlt
        >>> from mmpretrain.registry import MODELS
        >>> model = MODELS.build(dict(
        ...     type='mmlt.MORE',
        ...     classifier=dict(
        ...         type='ImageClassifier',
        ...         backbone=dict(type='mmlt.CIFARResNet', depth=32),
        ...         neck=dict(type='GlobalAveragePooling'),
        ...         head=dict(type='LinearClsHead', num_classes=10, in_channels=64))))
        >>> len(model.split.names)
        32
    """

    def __init__(
        self,
        classifier: dict | nn.Module,
        layers: str | Sequence[str] = '*',
        exclude: str | Sequence[str] = (),
        rank: float | int = 0.1,
        peak: float = 2.0,
        discrepancy: str = 'l2',
        detach_general: bool = False,
        multi_label: str = 'class',
        data_preprocessor: dict | None = None,
    ):
        _check_settings(discrepancy, multi_label, peak)
        if isinstance(classifier, dict):
            if classifier.get('data_preprocessor') is None and data_preprocessor is not None:
                classifier = {**classifier, 'data_preprocessor': data_preprocessor}
            built: nn.Module = MMPRETRAIN_MODELS.build(classifier)
            classifier = built
        super().__init__(data_preprocessor=classifier.data_preprocessor)
        # The classifier's parts are this model's own; the classifier itself is no part, so no name gets longer.
        self.__dict__['classifier'] = classifier
        for shared in _SHARED:
            self.__dict__[shared] = classifier.__dict__[shared]
        self._logits_of()
        recomputes = _recomputing(classifier)
        if peak > 0 and recomputes:
            raise InputError(
                f"'{recomputes}' recomputes its activations in the backward pass (grad_checkpointing or with_cp), "
                'when the second pass of MORE is over and its weights are gone: switch it off, or set peak=0.'
            )
        self.split = split_weights(classifier, layers, exclude, rank)
        self.peak, self.discrepancy, self.detach_general = peak, discrepancy, detach_general
        self.multi_label = multi_label
        self.alpha: float | None = None
        self.class_counts: list[int] | None = None
        self.last: tuple[Tensor, Tensor] | None = None  # of the last batch: discrepancy and targets, both (N, C)
        self._prior: Tensor | None = None
        self._recomputes = bool(recomputes)

    def set_class_info(self, info: ClassInfo) -> None:
        """Take the training counts; :class:`ClassInfoHook` and :class:`MOREHook` call it before a run.

        Args:
            info (ClassInfo): What is known of the classes.
        """
        if info.counts is None:
            return
        check_no_empty_class(info.counts, 'MORE', info.classes)
        self.class_counts = list(info.counts)
        self._prior = torch.tensor(info.counts, dtype=torch.float64).div(sum(info.counts)).float()

    def set_progress(self, iteration: int, total: int) -> None:
        """Set alpha for an iteration; :class:`MOREHook` calls it.

        Args:
            iteration (int): t, from 0.
            total (int): T, iterations of the whole training.
        """
        if self.peak == 0:
            self.alpha = 0.0
            return
        self.alpha = sinusoidal_alpha(iteration, total, self.peak * len(self._known_counts()))

    def _known_counts(self) -> list[int]:
        if self.class_counts is None:
            raise not_told(
                'MORE',
                'how many training images the classes have',
                'give the dataset metainfo=dict(class_counts=[...]) where it has no single labels to count',
            )
        return self.class_counts

    @property
    def is_multi_label(self) -> bool:
        """Whether a sample may have several labels."""
        return isinstance(getattr(self.classifier, 'head', None), MultiLabelClsHead)

    def train(self, mode: bool = True):
        """Set the mode of the classifier and of all its parts."""
        self.classifier.train(mode)
        self.training = mode
        return self

    def init_weights(self) -> None:
        """Initialise the classifier; initialisers write in place, so they are shown W_g itself."""
        with self.split.general_only():
            self.classifier.init_weights()
        self._is_init = True

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """See ``ImageClassifier``; for learning rates that decay by layer."""
        return self.classifier.get_layer_depth(param_name)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """See ``ImageClassifier.forward``; 'loss' is MORE's, the rest the classifier's with the full weights."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.classifier(inputs, data_samples, mode=mode)

    def extract_feat(self, inputs: Tensor, *args, **kwargs):
        """See ``ImageClassifier.extract_feat``."""
        return self.classifier.extract_feat(inputs, *args, **kwargs)

    def predict(self, inputs: Tensor, data_samples: list | None = None, **kwargs) -> list:
        """See ``ImageClassifier.predict``."""
        return self.classifier.predict(inputs, data_samples, **kwargs)

    def merge(self) -> nn.Module:
        """Merge all low-rank parts, in place.

        Returns:
            nn.Module: The plain classifier, which has this model's parts.
        """
        merge(self.classifier)
        return self.classifier

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The classifier's losses and the penalty.

        Args:
            inputs (Tensor): Images, (N, 3, H, W).
            data_samples (list[DataSample]): With labels.

        Returns:
            dict[str, Tensor]: The classifier's, and ``loss_more``.
        """
        if self.peak == 0:
            return self._full_loss(inputs, data_samples)[0]
        if self.alpha is None:
            raise InputError("MORE's alpha was never set: add dict(type='mmlt.MOREHook') to custom_hooks.")
        general = self._general_logits(inputs)
        losses, calls = self._full_loss(inputs, data_samples)
        full, general = self._checked(calls), self._checked(general)
        with torch.autocast(full.device.type, enabled=False):
            dtype = torch.promote_types(full.dtype, torch.float32)
            full, general = full.to(dtype), general.to(dtype)
            targets = self._targets(data_samples, full)
            self._prior = self._prior.to(full.device)
            differences = class_discrepancy(full, general, self.discrepancy, self.is_multi_label)
            per_class = self.is_multi_label and self.multi_label == 'class'
            penalty = prior_weighted(differences, targets, self._prior.to(dtype), per_class)
        self.last = differences.detach(), targets
        losses['loss_more'] = self.alpha * penalty
        return losses

    def _general_logits(self, inputs: Tensor) -> Tensor:
        """Logits of W_g; random numbers and running statistics are as if this pass had not been."""
        device = next(self.parameters()).device
        with (
            torch.random.fork_rng([device] if device.type == 'cuda' else []),
            torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_general),
            _statistics_kept(self.classifier),
            self.split.general_only(),
        ):
            return self.classifier(inputs, mode='tensor')

    def _full_loss(self, inputs: Tensor, data_samples: list) -> tuple[dict, list]:
        """The classifier's losses and the calls of its head in which they were computed."""
        calls = []
        handle = self._logits_of().register_forward_hook(lambda _, args, output: calls.append((args, output)))
        try:
            if self._recomputes:
                return self.classifier.loss(inputs, data_samples), calls
            with self.split.computed_once():
                return self.classifier.loss(inputs, data_samples), calls
        finally:
            handle.remove()

    def _logits_of(self) -> nn.Module:
        """The module whose output the logits are: the head, or the whole network of a timm classifier."""
        for name in ('head', 'model'):
            if isinstance(module := getattr(self.classifier, name, None), nn.Module):
                return module
        raise InputError(f'MORE compares logits, but this {type(self.classifier).__name__} has no head: give it one.')

    def _checked(self, logits: Tensor | list) -> Tensor:
        """Logits of a pass, or an error for heads that do not compute such."""
        name = type(self._logits_of()).__name__
        if isinstance(logits, list):
            if len(logits) != 1 or len(logits[0][0]) != 1:
                raise InputError(
                    f'MORE compares the logits of the training loss, but {name} makes its loss in another way (labels '
                    'in its forward, or several calls): use a head whose loss is of head(feats), as LinearClsHead.'
                )
            logits = logits[0][1]
        classes = len(self._known_counts())
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            what = f'of shape {tuple(logits.shape)}' if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f'MORE needs logits of shape (N, C) from {name}, but got {what}: use one such head.')
        if logits.shape[1] != classes:
            raise InputError(
                f'The head gives {logits.shape[1]} logits, but the training counts are of {classes} classes: set its '
                'num_classes.'
            )
        return logits

    def _targets(self, data_samples: list, logits: Tensor) -> Tensor:
        """Labels as one-hot, soft or multi-hot vectors, (N, C), zero of what is not to be scored."""
        if 'gt_score' in data_samples[0]:
            _, targets = scored(torch.stack([s.gt_score for s in data_samples]))
        elif self.is_multi_label:
            targets = torch.stack([label_to_onehot(s.gt_label, logits.shape[1]) for s in data_samples])
        else:
            known, labels = scored(torch.cat([s.gt_label for s in data_samples]))
            targets = F.one_hot(labels, logits.shape[1]) * known[:, None]
        return targets.to(logits)


@contextmanager
def _statistics_kept(root: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm in training uses the batch's statistics without updating the running ones."""
    norms = [
        m
        for m in root.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training and m.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _recomputing(root: nn.Module) -> str | None:
    """Name of the first module with activation checkpointing, or None."""
    flags = ('grad_checkpointing', 'gradient_checkpointing', 'with_cp')
    return next(
        (n or type(m).__name__ for n, m in root.named_modules() if any(getattr(m, f, 0) is True for f in flags)), None
    )
