"""Heads that compare an image with anchor sentences: VL-LTR's LGR head, and nearest neighbours."""

from __future__ import annotations

import json
import os

import torch
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmpretrain.models.heads import ClsHead
from torch import Tensor

from mmlt.errors import InputError
from mmlt.models.text.anchors import Anchors
from mmlt.utils import tensors_fingerprint
from mmlt.utils.class_info import ClassInfo
from mmlt.utils.text_tensor import tensor_to_text, text_to_tensor


class AnchorHead(ClsHead):
    """What heads with anchor sentences share: reading, checking and keeping them.

    The anchors are read from their file when a training starts, and travel in
    the checkpoint from then on, with their texts.

    Args:
        num_classes (int): C.
        in_channels (int): Width of the joint image-text space, D.
        anchors (str, optional): File that :class:`AnchorSelectionHook` wrote.
            Defaults to None, for a model that is only loaded from a
            checkpoint.
        num_anchors (int, optional): M; the file must have as many. Defaults
            to None, whatever it has.
        **kwargs: See MMPretrain's ``ClsHead``.

    Raises:
        InputError: The file is missing, was made from other weights, texts or
            classes, or its shape disagrees with the head's.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchors: str | None = None,
        num_anchors: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_classes, self.in_channels = num_classes, in_channels
        self.anchors, self.num_anchors = anchors, num_anchors
        self.classes: tuple[str, ...] | None = None
        self.facts: dict = {}
        self._sentences: list[list[str]] | None = None
        self.register_buffer('anchor_features', torch.zeros(num_classes, 0, in_channels))
        self.register_buffer('anchor_counts', torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer('anchor_scale', torch.zeros(()))
        self.register_buffer('anchor_texts', torch.zeros(0, dtype=torch.uint8))  # JSON in UTF-8

    def set_class_info(self, info: ClassInfo) -> None:
        """Remember the classes, to compare them with those of the anchors; :class:`ClassInfoHook` calls it.

        Args:
            info (ClassInfo): Its texts, the corpus, are compared with those of
                the anchors when they are read.
        """
        info.check_number(self.num_classes)
        self.classes, self.class_texts = info.classes, info.texts

    def init_weights(self) -> None:
        """Read the anchors; called before a training."""
        super().init_weights()
        if self.anchors is None:
            raise InputError(
                f'{type(self).__name__} has no anchor sentences: give model.head.anchors=<file>, which a CVLP training '
                'writes at its end.'
            )
        anchors = Anchors.load(self.anchors)
        classes, number, width = anchors.features.shape
        for name, own, theirs in (
            ('num_classes (C)', self.num_classes, classes),
            ('num_anchors (M)', number if self.num_anchors is None else self.num_anchors, number),
            ('in_channels (D)', self.in_channels, width),
        ):
            if own != theirs:
                raise InputError(
                    f"'{self.anchors}' disagrees with the head: {name} is {theirs} in the file and {own} in the "
                    'config. Select the anchors anew, or correct the config.'
                )
        self._check_origin(anchors.facts)
        self.facts = anchors.facts
        self._take(anchors)

    def _check_origin(self, facts: dict) -> None:
        theirs = facts.get('classes')
        if self.classes is not None and theirs is not None and tuple(theirs) != self.classes:
            i, a, b = next((i, a, b) for i, (a, b) in enumerate(zip(theirs, self.classes)) if a != b)
            raise InputError(
                f"The anchors in '{self.anchors}' are of another class list: class {i} is '{a}' there and '{b}' in the "
                'dataset. Select them anew with this class list.'
            )
        ours = (facts.get('texts') or {}).get('type') == 'mmlt.ClassTexts'
        if self.classes is not None and facts.get('corpus') and ours:
            corpus = ROOT_DATASETS.build(facts['texts'])
            if corpus.fingerprint(self.classes, self.class_texts) != facts['corpus']:
                raise InputError(
                    f"The anchors in '{self.anchors}' were selected from another corpus than the dataset's class texts "
                    'are now: train the pretraining stage anew (--restart), or select them anew.'
                )

    def check_checkpoint(self, state: dict[str, Tensor], source: str) -> None:
        """Compare a checkpoint that a training starts from with the weights that made the anchors.

        Args:
            state (dict[str, Tensor]): The checkpoint's state dict.
            source (str): Its name.

        Raises:
            InputError: Its image tower is not the one that the anchors fit.
        """
        own = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
        expected = self.facts.get('image_tower')
        if expected is not None and own and tensors_fingerprint(own) != expected:
            raise InputError(
                f"The anchors in '{self.anchors}' were made with other weights than those of '{source}': take both "
                'from one training, or select anchors for this checkpoint with tools/select_anchors.py.'
            )

    def _take(self, anchors: Anchors) -> None:
        device = self.anchor_counts.device
        self.anchor_features = anchors.features.to(device, torch.float32)
        self.anchor_counts = anchors.counts.to(device)
        self.anchor_scale = torch.tensor(anchors.logit_scale, device=device)
        self.anchor_texts = text_to_tensor(json.dumps(anchors.sentences)).to(device)
        self.forget_tables()

    def _preload(self) -> None:
        """Take the anchors of a file that is there already, so that copies of the model have the right shapes."""
        if self.anchors is not None and os.path.isfile(self.anchors):
            self._take(Anchors.load(self.anchors))

    def forget_tables(self) -> None:
        """Called where the anchors changed."""
        self._sentences = None

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in ('anchor_features', 'anchor_texts'):
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.shape != own.shape:
                setattr(self, name, own.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.forget_tables()

    @property
    def sentences(self) -> list[list[str]]:
        """Texts of the anchor sentences of every class."""
        if self._sentences is None:
            self._sentences = json.loads(tensor_to_text(self.anchor_texts))
        return self._sentences

    def _image(self, feats: tuple[Tensor, ...]) -> Tensor:
        image = feats[-1].to(torch.promote_types(feats[-1].dtype, torch.float32))
        if image.shape[-1] != self.in_channels:
            raise InputError(
                f'The image features are {image.shape[-1]} wide and the head expects {self.in_channels}: set '
                f'model.head.in_channels={image.shape[-1]}.'
            )
        self.check_anchors()
        return image

    def check_anchors(self) -> None:
        """Raise an :class:`InputError` if there are no anchors yet."""
        if not self.anchor_features.shape[1]:
            raise InputError(
                f'{type(self).__name__} has no anchor sentences yet: train it with model.head.anchors=<file>, or load '
                'a trained checkpoint.'
            )


def _check_scale(logit_scale: float | None) -> None:
    if logit_scale is not None and not logit_scale > 0:
        raise InputError(f'logit_scale is {logit_scale}; it is 1 / tau, so positive, or None for that of the anchors.')
