"""Anchor sentences: scoring, selection and the file that hands them from stage to stage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmlt.checkpoints import whole_file
from mmlt.errors import InputError
from mmlt.utils.text_tensor import tensor_to_text, text_to_tensor

METHODS = ('anss', 'cutoff', 'random')


@torch.no_grad()
def sentence_scores(
    text: Tensor,
    text_labels: Tensor,
    image: Tensor,
    image_labels: Tensor,
    logit_scale: float,
    tile: tuple[int, int] = (512, 2048),
    progress: Callable[[Iterable], Iterable] = iter,
) -> Tensor:
    """Score every sentence by its loss against a batch of images (VL-LTR, section 3.3).

    The score is L_lin of Eq. 2 with the images as batch, the cross-entropy
    against the sentence's own class::

        score_i = logsumexp_j(s t_i . f_j) - s t_i . mean over the class's f

    It is computed tile by tile with a running maximum: no matrix of all
    sentences and images is made.

    Args:
        text (Tensor): Normalised sentence features, (T, D).
        text_labels (Tensor): Class of every sentence, (T, ).
        image (Tensor): Normalised image features, (N, D).
        image_labels (Tensor): Class of every image, (N, ).
        logit_scale (float): s, 1 / temperature.
        tile (tuple[int, int]): Sentences and images at a time.
            Defaults to (512, 2048).
        progress (Callable): Wraps the loop over tiles of sentences, for
            example ``tqdm``. Defaults to no progress bar.

    Returns:
        Tensor: Shape (T, ); lower is more telling.

    Raises:
        InputError: A class has sentences but no image; names its number.
    """
    num_classes = int(max(text_labels.max(), image_labels.max())) + 1
    counts = torch.bincount(image_labels, minlength=num_classes)
    if (empty := torch.bincount(text_labels, minlength=num_classes).bool() & (counts == 0)).any():
        raise InputError(
            f'Class {int(empty.nonzero()[0])} has sentences but no image to score them with: every class needs one '
            'training image at least.'
        )
    means = image.new_zeros(num_classes, image.shape[1]).index_add_(0, image_labels, image)
    means /= counts.clamp(min=1).to(means.dtype).unsqueeze(1)
    scores = text.new_empty(len(text))
    buffer = text.new_empty(tile[0] * tile[1])
    for start in progress(range(0, len(text), tile[0])):
        rows = slice(start, start + tile[0])
        part = text[rows] * logit_scale
        largest = part.new_full((len(part), 1), -torch.inf)
        total = part.new_zeros(len(part), 1)
        for keys in image.split(tile[1]):
            logits = torch.mm(part, keys.t(), out=buffer[: len(part) * len(keys)].view(len(part), len(keys)))
            new = torch.maximum(largest, logits.amax(1, keepdim=True))
            total = total * (largest - new).exp_() + logits.sub_(new).exp_().sum(1, keepdim=True)
            largest = new
        scores[rows] = (largest + total.log()).squeeze(1) - (part * means[text_labels[rows]]).sum(1)
    return scores


def select_sentences(
    scores: Tensor, counts: Sequence[int], num_anchors: int, method: str = 'anss', seed: int = 0
) -> list[Tensor]:
    """Choose the anchor sentences of every class.

    Args:
        scores (Tensor): Scores of all sentences, class after class, (T, ).
        counts (Sequence[int]): Sentences of every class, C of them.
        num_anchors (int): At most so many a class, M.
        method (str): 'anss': those of the lowest scores, the lowest first;
            'cutoff': the first M; 'random': M at random.
            Defaults to 'anss'.
        seed (int): Seed of 'random'. Defaults to 0.

    Returns:
        list[Tensor]: C index tensors into the sentences.

    Raises:
        InputError: Another method; M below 1.
    """
    if method not in METHODS:
        raise InputError(f"Anchor selection by '{method}' is unknown; choose one of {', '.join(METHODS)}.")
    if num_anchors < 1:
        raise InputError(f'The number of anchor sentences a class is {num_anchors}; it must be at least 1.')
    rng = np.random.default_rng(seed)
    chosen, start = [], 0
    for count in counts:
        count = int(count)
        if method == 'anss':
            order = scores[start : start + count].argsort(stable=True)
        elif method == 'cutoff':
            order = torch.arange(count)
        else:
            order = torch.from_numpy(rng.permutation(count))
        chosen.append(start + order[:num_anchors])
        start += count
    return chosen


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
                'checkpoint, tools/select_anchors.py writes it.'
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
                'tools/select_anchors.py.'
            ) from e
