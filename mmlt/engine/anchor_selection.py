"""Anchor sentence selection for a pretrained model and its training images."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import is_main_process
from torch.utils.data import Subset
from tqdm import tqdm

from mmlt.checkpoints.comparison import plain
from mmlt.datasets.transforms import compose_like
from mmlt.engine.features import compute_features
from mmlt.errors import InputError
from mmlt.models.text.anchors import METHODS, Anchors, select_sentences, sentence_scores
from mmlt.models.text.token_table import encode_table
from mmlt.utils import tensors_fingerprint, texts_fingerprint
from mmlt.utils.labels import dataset_labels


def few_of_each(labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """At most ``number`` samples of every class, drawn without replacement.

    Args:
        labels (np.ndarray): Shape (N, ).
        number (int): Samples a class.
        seed (int): The same seed draws the same samples.

    Returns:
        np.ndarray: Sorted indices.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind='stable')]
    _, start, counts = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.arange(len(labels)) - np.repeat(start, counts)
    return np.sort(order[place < number])


def check_selection(num_anchors: int, images_per_class: int, method: str) -> None:
    """Raise an InputError for settings of :func:`select_anchors` that cannot be."""
    if method not in METHODS:
        raise InputError(f"Anchor selection: method '{method}' is unknown; choose one of {', '.join(METHODS)}.")
    for name, value in dict(num_anchors=num_anchors, images_per_class=images_per_class).items():
        if value < 1:
            raise InputError(f'Anchor selection: {name} is {value}; it must be at least 1.')


def _scoring_labels(dataset, classes) -> np.ndarray:
    """Labels of the images that score sentences; every class has one."""
    if not hasattr(dataset, 'pipeline'):
        raise InputError(
            f'{type(dataset).__name__} has no pipeline of its own: anchor selection needs a plain training dataset.'
        )
    labels = dataset_labels(dataset)
    if missing := sorted(set(range(len(classes))) - set(labels.tolist())):
        raise InputError(
            f"Class {missing[0]} ('{classes[missing[0]]}') has sentences but no training image to score them with: "
            'give it at least one, or remove the class.'
        )
    return labels


def _origin(model) -> dict:
    """What anchors are made of."""
    return dict(
        classes=list(model.head.classes),
        texts=plain(model.texts),
        corpus=texts_fingerprint(model.table.sentences),
        image_tower=tensors_fingerprint(model.backbone.state_dict()),
    )


def _score(model, texts: torch.Tensor, images: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
    """Scores of all sentences on the model's device, (T, )."""
    device = next(model.parameters()).device
    return sentence_scores(
        F.normalize(texts, dim=-1).to(device),
        model.table.labels.to(device),
        F.normalize(images, dim=-1).to(device),
        labels.to(device),
        scale,
        progress=lambda tiles: tqdm(tiles, desc='Scoring sentences', mininterval=1, disable=not is_main_process()),
    ).cpu()


def select_anchors(
    model,
    dataset,
    pipeline: list[dict],
    num_anchors: int = 64,
    images_per_class: int = 50,
    method: str = 'anss',
    seed: int = 0,
    batch_size: int = 256,
    num_workers: int = 0,
) -> tuple[Anchors, torch.Tensor]:
    """Score all sentences of a pretrained model's corpus and choose the anchors (VL-LTR, section 3.3).

    Args:
        model (CVLP): Knows its classes and their texts.
        dataset (BaseDataset): The training set.
        pipeline (list[dict]): Transforms for the images, those of a test.
        num_anchors (int): M. Defaults to 64.
        images_per_class (int): Images that score a sentence, at most so many
            of each class. Defaults to 50.
        method (str): See :func:`select_sentences`. Defaults to 'anss'.
        seed (int): Which images are drawn. Defaults to 0.
        batch_size (int): Images a forward pass. Defaults to 256.
        num_workers (int): Processes that load images. Defaults to 0.

    Returns:
        tuple[Anchors, Tensor]: The anchors, and the scores of all sentences,
        (T, ), in the order of ``model.table``.

    Raises:
        InputError: Settings that cannot be; the dataset has no pipeline to replace; a class without
            images.
    """
    check_selection(num_anchors, images_per_class, method)
    labels = _scoring_labels(dataset, model.head.classes)
    chosen = few_of_each(labels, images_per_class, seed)
    viewed = copy.copy(dataset)
    viewed.pipeline = compose_like(dataset, pipeline)
    was_training = model.training
    model.eval()
    images = compute_features(model, Subset(viewed, chosen), batch_size, num_workers, 'Images to score sentences')
    texts = encode_table(model.text, model.table, 'Sentences')
    model.train(was_training)
    scale = model.text.logit_scale.item()
    scores = _score(model, texts, images, torch.from_numpy(labels[chosen]), scale)
    counts = model.table.counts.tolist()
    facts = dict(method=method, images_per_class=images_per_class, num_sentences=sum(counts), **_origin(model))
    anchors = Anchors.gather(
        select_sentences(scores, counts, num_anchors, method, seed),
        texts,
        scores,
        [s for own in model.table.sentences for s in own],
        num_anchors,
        scale,
        facts,
    )
    return anchors, scores


def anchor_list(classes: list[str], sentences: list[list[str]], scores: torch.Tensor, number: int = 8) -> str:
    """The best and the worst sentences of every class, to be read.

    Args:
        classes (list[str]): C class names.
        sentences (list[list[str]]): All sentences of every class, T in all.
        scores (Tensor): Their scores, (T, ).
        number (int): Sentences of each kind. Defaults to 8.

    Returns:
        str: Lines of text.
    """
    lines = ['Scores of sentences: the cross entropy against the images of the class, lower is more telling.']
    for name, own, values in zip(classes, sentences, scores.split([len(s) for s in sentences])):
        ranked = sorted(zip(values.tolist(), own))
        lines += ['', f'{name} ({len(own)} sentences)']
        if len(ranked) <= 2 * number:
            lines += [f'  {score:7.3f}  {text}' for score, text in ranked]
        else:
            lines += [f'  {score:7.3f}  {text}' for score, text in ranked[:number]]
            lines += ['      ...'] + [f'  {score:7.3f}  {text}' for score, text in ranked[-number:]]
    return '\n'.join(lines) + '\n'
