"""Anchor sentences, and the file that hands them from stage to stage."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmlt.checkpoints import whole_file
from mmlt.errors import InputError
from mmlt.utils.text_tensor import tensor_to_text, text_to_tensor


@dataclass
class Anchors:
    """Anchor sentences of all classes, padded to one number.

    Args:
        features (Tensor): Sentence embeddings, not normalised, (C, M, D);
            zero where padded.
        counts (Tensor): Sentences of every class, (C, ), at least 1.
        scores (Tensor): Their scores, (C, M); NaN where padded or not scored.
        sentences (list[list[str]]): Their texts.
        logit_scale (float): 1 / temperature of the model that made them.
        facts (dict): Where they come from: ``classes``, and fingerprints
            ``corpus`` and ``image_tower``. Defaults to {}.
    """

    features: Tensor
    counts: Tensor
    scores: Tensor
    sentences: list[list[str]]
    logit_scale: float
    facts: dict = field(default_factory=dict)

    @classmethod
    def gather(
        cls,
        chosen: Sequence[Tensor],
        features: Tensor,
        scores: Tensor,
        sentences: Sequence[str],
        num_anchors: int,
        logit_scale: float,
        facts: dict,
    ) -> Anchors:
        """Collect chosen sentences and pad every class to ``num_anchors``.

        Args:
            chosen (Sequence[Tensor]): C index tensors, see
                :func:`select_sentences`.
            features (Tensor): Embeddings of all sentences, (T, D).
            scores (Tensor): Shape (T, ).
            sentences (Sequence[str]): T sentences.
            num_anchors (int): M.
            logit_scale (float): See the class.
            facts (dict): See the class.

        Returns:
            Anchors: Those of the C classes.
        """
        padded = features.new_zeros(len(chosen), num_anchors, features.shape[1])
        own_scores = scores.new_full((len(chosen), num_anchors), torch.nan)
        for c, rows in enumerate(chosen):
            padded[c, : len(rows)] = features[rows]
            own_scores[c, : len(rows)] = scores[rows]
        counts = torch.tensor([len(rows) for rows in chosen])
        texts = [[sentences[int(i)] for i in rows] for rows in chosen]
        return cls(padded, counts, own_scores, texts, logit_scale, facts)

    @classmethod
    def stand_in(cls, num_classes: int, num_anchors: int, width: int) -> Anchors:
        """Random ones of the right shape, where a model is only tried or timed.

        Args:
            num_classes (int): C.
            num_anchors (int): M.
            width (int): D.

        Returns:
            Anchors: Of a model that never was.
        """
        shape = (num_classes, num_anchors)
        texts = [[f'{c} {m}' for m in range(num_anchors)] for c in range(num_classes)]
        counts = torch.full((num_classes,), num_anchors)
        return cls(torch.randn(*shape, width), counts, torch.rand(shape), texts, 100.0)

    def save(self, path: str) -> None:
        """Write a ``.safetensors`` file, whole or not at all."""
        texts = json.dumps(dict(sentences=self.sentences, facts=self.facts))
        tensors = dict(
            features=self.features.contiguous(),
            counts=self.counts,
            scores=self.scores,
            logit_scale=torch.tensor(self.logit_scale),
            texts=text_to_tensor(texts),
        )
        with whole_file(path) as part:
            save_file(tensors, part)

    @classmethod
    def load(cls, path: str) -> Anchors:
        """Read a file that :meth:`save` wrote.

        Raises:
            InputError: It is missing, damaged or another kind of file.
        """
        if not os.path.isfile(path):
            raise InputError(
                f"The anchor file '{path}' does not exist: it is written at the end of a CVLP training; for a "
                'checkpoint, mmlt anchors writes it.'
            )
        try:
            tensors = load_file(path)
            texts = json.loads(tensor_to_text(tensors['texts']))
            return cls(
                tensors['features'],
                tensors['counts'],
                tensors['scores'],
                texts['sentences'],
                tensors['logit_scale'].item(),
                texts['facts'],
            )
        except (SafetensorError, KeyError, TypeError, ValueError) as e:
            raise InputError(
                f"'{path}' is no anchor file, or a damaged one ({type(e).__name__}: {e}): make it anew with "
                'mmlt anchors.'
            ) from e
