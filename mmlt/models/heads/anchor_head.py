"""Heads that compare an image with anchor sentences: VL-LTR's LGR head, and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.models.heads import ClsHead
from torch import Tensor

from mmlt.errors import InputError
from mmlt.models.anchors import AnchorBank, Anchors
from mmlt.utils.class_info import ClassInfo


class AnchorHead(ClsHead):
    """What heads with anchor sentences share: an :class:`AnchorBank`, the classes, and the image embedding.

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
        InputError: The file is missing, was made from other weights or
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
        self.anchors = anchors
        self.bank = AnchorBank(num_classes, in_channels, anchors, num_anchors)
        self.classes: Sequence[str] | None = None

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
        self.bank.read(self.anchors)
        self.bank.check(self.classes)

    def take(self, anchors: Anchors) -> None:
        """Compare images with these anchors from now on."""
        self.bank.take(anchors)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        self.bank.to_own_names(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

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
        if not self.bank.features.shape[1]:
            raise InputError(
                f'{type(self).__name__} has no anchor sentences yet: train it with model.head.anchors=<file>, or load '
                'a trained checkpoint.'
            )


def _check_scale(logit_scale: float | None) -> None:
    if logit_scale is not None and not logit_scale > 0:
        raise InputError(f'logit_scale is {logit_scale}; it is 1 / tau, so positive, or None for that of the anchors.')
