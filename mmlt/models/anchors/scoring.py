"""Scores of sentences, and the choice of anchors by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from mmlt.choices import ANCHOR_METHODS as METHODS
from mmlt.errors import InputError


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


def check_selection(num_anchors: int, method: str, images_per_class: int = 1) -> None:
    """Raise an :class:`InputError` for settings of a selection that cannot be."""
    if method not in METHODS:
        raise InputError(f"Anchor selection: method '{method}' is unknown; choose one of {', '.join(METHODS)}.")
    for name, value in dict(num_anchors=num_anchors, images_per_class=images_per_class).items():
        if value < 1:
            raise InputError(f'Anchor selection: {name} is {value}; it must be at least 1.')


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
    check_selection(num_anchors, method)
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
