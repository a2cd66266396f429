"""The anchor sentences of a model: read once, checked, and kept in its checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.anchors.file import Anchors
from mmlt.utils import tensors_fingerprint
from mmlt.utils.text_tensor import tensor_to_text, text_to_tensor


class AnchorBank(nn.Module):
    """Anchor sentences that the images of a head are compared with.

    They are read from their file when a training starts, and travel in the
    checkpoint from then on, with their texts. There, those of a head's
    ``bank`` are called ``anchor_features`` and so on beside the head's other
    weights (:meth:`to_own_names`).

    Args:
        num_classes (int): C.
        width (int): Width of the joint image-text space, D.
        file (str, optional): See :class:`AnchorHead`. Defaults to None.
        number (int, optional): M, see :class:`AnchorHead`. Defaults to None.
    """

    features: Tensor
    counts: Tensor
    scale: Tensor
    texts: Tensor

    def __init__(self, num_classes: int, width: int, file: str | None = None, number: int | None = None):
        super().__init__()
        self.num_classes, self.width, self.file, self.number = num_classes, width, file, number
        self.facts: dict = {}
        self.derived: dict = {}  # what was computed of these anchors, by name
        self._read: tuple[int, int] | None = None  # time and size of the file, as long as its anchors are here
        self.register_buffer('features', torch.zeros(num_classes, 0, width))
        self.register_buffer('counts', torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer('scale', torch.zeros(()))
        self.register_buffer('texts', torch.zeros(0, dtype=torch.uint8))  # JSON in UTF-8
        if file is not None and os.path.isfile(file):
            self.read(file)  # now, so that copies of the model have the right shapes

    def take(self, anchors: Anchors) -> None:
        """Have these anchors, whatever their number, in place of those that are here."""
        device = self.counts.device
        self.features = anchors.features.to(device, torch.float32)
        self.counts = anchors.counts.to(device)
        self.scale = torch.tensor(anchors.logit_scale, device=device)
        self.texts = text_to_tensor(json.dumps(anchors.sentences)).to(device)
        self.facts = anchors.facts
        self._forget()

    def read(self, file: str) -> None:
        """Read a file, unless its anchors are here already.

        Args:
            file (str): That of the bank.

        Raises:
            InputError: See :meth:`Anchors.load`.
        """
        now = None
        if os.path.isfile(file):
            state = os.stat(file)
            now = state.st_mtime_ns, state.st_size
        if now is None or now != self._read:
            self.take(Anchors.load(file))
            self._read = now

    def check(self, classes: Sequence[str] | None) -> None:
        """Compare what was read with what the head expects.

        Args:
            classes (Sequence[str], optional): The dataset's class names, where
                they are known.

        Raises:
            InputError: Shapes or class lists disagree.
        """
        num_classes, number, width = self.features.shape
        for name, own, theirs in (
            ('num_classes (C)', self.num_classes, num_classes),
            ('num_anchors (M)', number if self.number is None else self.number, number),
            ('in_channels (D)', self.width, width),
        ):
            if own != theirs:
                raise InputError(
                    f"'{self.file}' disagrees with the head: {name} is {theirs} in the file and {own} in the "
                    'config. Select the anchors anew, or correct the config.'
                )
        selected = self.facts.get('classes')
        if classes is not None and selected is not None and tuple(selected) != tuple(classes):
            i, a, b = next((i, a, b) for i, (a, b) in enumerate(zip(selected, classes)) if a != b)
            raise InputError(
                f"The anchors in '{self.file}' are of another class list: class {i} is '{a}' there and '{b}' in the "
                'dataset. Select them anew with this class list.'
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
                f"The anchors in '{self.file}' were made with other weights than those of '{source}': take both "
                'from one training, or select anchors for this checkpoint with mmlt anchors.'
            )

    @property
    def sentences(self) -> list[list[str]]:
        """Texts of the anchor sentences of every class."""
        if 'sentences' not in self.derived:
            self.derived['sentences'] = json.loads(tensor_to_text(self.texts))
        return self.derived['sentences']

    def _forget(self) -> None:
        self._read = None
        self.derived.clear()

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, f'{prefix.removesuffix("bank.")}anchor_', keep_vars)

    def to_own_names(self, state_dict: dict, prefix: str) -> None:
        """Rename what a state dict calls ``{prefix}anchor_*``; a head does so before its parts are loaded."""
        for name in self._buffers:
            if (stored := f'{prefix}anchor_{name}') in state_dict:
                state_dict[f'{prefix}bank.{name}'] = state_dict.pop(stored)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in ('features', 'texts'):
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.shape != own.shape:
                setattr(self, name, own.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._forget()
