"""Anchor sentences of a pretrained model: selected, written, and compared with the corpus of who uses them."""

from __future__ import annotations

import copy
import csv
import os
import os.path as osp
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from mmpretrain.registry import MODELS
from torch.utils.data import Subset

from mmlt.checkpoints import whole_file, write_text
from mmlt.checkpoints.comparison import plain
from mmlt.checkpoints.weights import load_weights
from mmlt.datasets.transforms import compose_like
from mmlt.engine.features import compute_features
from mmlt.engine.workers import num_workers
from mmlt.errors import InputError
from mmlt.models import CVLP
from mmlt.models.anchors import Anchors, check_selection, select_sentences, sentence_scores
from mmlt.models.heads.anchor_head import AnchorHead
from mmlt.models.text.token_table import encode_table
from mmlt.registry import HOOKS
from mmlt.utils import show_progress, tensors_fingerprint, texts_fingerprint, unwrap
from mmlt.utils.class_info import class_info
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
        corpus_files=getattr(model.corpus, 'files', None),
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
        progress=lambda tiles: show_progress(tiles, 'Scoring sentences'),
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
    check_selection(num_anchors, method, images_per_class)
    labels = _scoring_labels(dataset, model.head.classes)
    chosen = few_of_each(labels, images_per_class, seed).tolist()
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


def write_anchors(
    anchors: Anchors, scores: torch.Tensor, sentences: list[list[str]], path: str, say: Callable[[str], None]
) -> None:
    """Write the anchor file and its listing, and say what was selected."""
    anchors.save(path)
    text = Path(path).with_suffix('.txt')
    write_text(text, anchor_list(anchors.facts['classes'], sentences, scores))
    number = anchors.features.shape[1]
    fewer = int((anchors.counts < number).sum())
    say(
        f'{int(anchors.counts.sum())} of {len(scores)} sentences are anchors, {number} a class'
        + (f' ({fewer} of {len(anchors.counts)} classes have fewer and are padded)' if fewer else '')
        + f': {path}\nBest and worst sentences of every class: {text}'
    )


def write_csv(path: str, classes: list[str], sentences: list[list[str]], scores: torch.Tensor) -> None:
    """Write every sentence with its class, rank and score, best first in their class."""
    with whole_file(path) as part, open(part, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['class', 'rank', 'score', 'sentence'])
        for name, own, values in zip(classes, sentences, scores.split([len(s) for s in sentences])):
            for rank, (score, sentence) in enumerate(sorted(zip(values.tolist(), own)), 1):
                writer.writerow([name, rank, f'{score:.4f}', sentence])


def select_for_config(
    cfg: Config, name: str, checkpoint: str | None, out: str, csv_file: str | None = None, seed: int = 0, **settings
) -> None:
    """Select anchors for a CVLP training's checkpoint, or for its pretrained weights, and write them.

    Args:
        cfg (Config): Of the training; its AnchorSelectionHook says what
            ``settings`` leaves open.
        name (str): The config's name, for errors.
        checkpoint (str, optional): None for the pretrained weights.
        out (str): Anchor file to write.
        csv_file (str, optional): File of all sentences. Defaults to None.
        seed (int): Which images are drawn. Defaults to 0.
        **settings: num_anchors, images_per_class and method of
            :func:`select_anchors`; None for the config's.

    Raises:
        InputError: The config is of another model; see
            :func:`select_anchors`.
    """
    model = MODELS.build(cfg.model)
    if not isinstance(model, CVLP):
        raise InputError(f"'{name}' is no config of a CVLP training: its model is {cfg.model.type}.")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    model.set_class_info(class_info(dataset, trains=False))
    model.init_weights()
    if checkpoint:
        load_weights(model, checkpoint)
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    hook = cfg.get('default_hooks', {}).get('anchors') or {}
    given = {key: value for key, value in settings.items() if value is not None}
    evaluated = cfg.get('test_dataloader') or cfg.get('val_dataloader') or cfg.train_dataloader
    anchors, scores = select_anchors(
        model,
        dataset,
        evaluated.dataset.pipeline,
        **{key: hook[key] for key in settings if key in hook} | given,
        seed=seed,
        batch_size=cfg.train_dataloader.batch_size,
        num_workers=num_workers(cfg.train_dataloader.num_workers),
    )
    os.makedirs(osp.dirname(osp.abspath(out)), exist_ok=True)
    write_anchors(anchors, scores, model.table.sentences, out, print)
    if csv_file:
        write_csv(csv_file, model.head.classes, model.table.sentences, scores)


def check_corpus(head: AnchorHead) -> None:
    """Compare the corpus that a head's anchors are of with the dataset's class texts; called before a training.

    Texts are read only where their files are not, by size and time, those of
    which the anchors were selected.

    Args:
        head (AnchorHead): Has read its anchors.

    Raises:
        InputError: It is another one.
    """
    facts = head.bank.facts
    texts = facts.get('texts') or {}
    if head.classes is None or not facts.get('corpus') or texts.get('type') != 'mmlt.ClassTexts':
        return
    corpus = DATASETS.build(texts)
    files = corpus.files_fingerprint(head.class_texts)
    if files is not None and files == facts.get('corpus_files'):
        return
    if corpus.fingerprint(head.classes, head.class_texts) != facts['corpus']:
        raise InputError(
            f"The anchors in '{head.anchors}' were selected from another corpus than the dataset's class texts are "
            'now: train the pretraining stage anew (--restart), or select them anew.'
        )


@HOOKS.register_module()
class AnchorSelectionHook(Hook):
    """After CVLP's training, select the anchor sentences of every class (AnSS; VL-LTR, section 3.3).

    At most ``images_per_class`` training images of every class, seen through
    the test pipeline, score all sentences; the ``num_anchors`` best of each
    class are written with their embeddings, scores and texts. Beside the file
    stands a text file with the best and worst sentences of every class.

    Args:
        num_anchors (int): M; classes with fewer sentences are padded and
            masked. Defaults to 64.
        images_per_class (int): Defaults to 50.
        method (str): 'anss'; for ablations 'cutoff' (the first M) or 'random'.
            Defaults to 'anss'.
        filename (str): Name in the work directory.
            Defaults to 'anchors.safetensors'.

    Raises:
        InputError: Another method; a model that is no CVLP; a
            CheckpointHook with ``save_best``.
    """

    # After the checkpoint hook: the checkpoint is there even if this fails, and a resume comes straight back here.
    priority = 'LOWEST'

    def __init__(
        self,
        num_anchors: int = 64,
        images_per_class: int = 50,
        method: str = 'anss',
        filename: str = 'anchors.safetensors',
    ):
        check_selection(num_anchors, method, images_per_class)
        self.num_anchors, self.images_per_class = num_anchors, images_per_class
        self.method, self.filename = method, filename

    def before_train(self, runner) -> None:
        """A model without sentences is an error before the training, not after it."""
        if not isinstance(model := unwrap(runner.model), CVLP):
            raise InputError(f'AnchorSelectionHook selects sentences of mmlt.CVLP, not of {type(model).__name__}.')
        if any(isinstance(hook, CheckpointHook) and hook.save_best for hook in runner.hooks):
            raise InputError(
                'AnchorSelectionHook selects sentences by the last weights, but with save_best the next stage would '
                'take the best ones: remove save_best from the CheckpointHook of this training.'
            )

    def after_train(self, runner) -> None:
        """Select and write the anchors."""
        model: BaseModel = unwrap(runner.model)
        loader = runner.train_dataloader
        evaluated = runner.cfg.get('test_dataloader') or runner.cfg.get('val_dataloader') or runner.cfg.train_dataloader
        averaged = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        for hook in averaged:
            hook._swap_ema_parameters()  # the checkpoint holds the averaged weights
        try:
            anchors, scores = select_anchors(
                model,
                loader.dataset,
                evaluated.dataset.pipeline,
                self.num_anchors,
                self.images_per_class,
                self.method,
                seed=runner.seed or 0,
                batch_size=loader.batch_size,
                num_workers=loader.num_workers,
            )
        finally:
            for hook in averaged:
                hook._swap_ema_parameters()
        if is_main_process():
            write_anchors(
                anchors, scores, model.table.sentences, osp.join(runner.work_dir, self.filename), runner.logger.info
            )
