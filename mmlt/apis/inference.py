"""Predictions for picture files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.dataset import default_collate
from mmpretrain.apis import ImageClassificationInferencer
from torch import nn

from mmlt.errors import InputError
from mmlt.models import LGRHead

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.gif')


def find_pictures(paths: Sequence[str]) -> list[str]:
    """Files of pictures: those given, and all in given folders and below.

    Args:
        paths (Sequence[str]): Files and folders.

    Returns:
        list[str]: Paths; those of a folder are sorted.

    Raises:
        InputError: A path does not exist, or a folder has no picture.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(str(p) for p in path.rglob('*') if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise InputError(f"The folder '{path}' has no pictures ({', '.join(SUFFIXES)}).")
            found += inside
        elif path.is_file():
            found.append(str(path))
        else:
            raise InputError(f"The picture '{path}' does not exist.")
    return found


def check_numbers(top: int, explain: int | None) -> None:
    """Whether as many classes and sentences can be told.

    Raises:
        InputError: They cannot.
    """
    if top < 1:
        raise InputError(f'top is {top}; it must be at least 1.')
    if explain is not None and explain < 0:
        raise InputError(f'explain is {explain}; give a number of sentences, or 0 for none.')


class Inferencer(ImageClassificationInferencer):
    """MMPretrain's inferencer, which reads pictures as the config's test does and names what it cannot read.

    Args:
        model (nn.Module): From :func:`get_model`.
    """

    def __init__(self, model: nn.Module):
        super().__init__(model)
        load = self.config.test_dataloader.dataset.pipeline[0]
        self._backend = load.get('imdecode_backend', 'cv2') if load.type == 'LoadImageFromFile' else 'cv2'

    def preprocess(self, inputs: Sequence[str | np.ndarray], batch_size: int = 1) -> Iterator[dict]:
        """Read pictures and put them through the test's transforms, in batches."""
        samples = (self.pipeline(self._read(source)) for source in inputs)
        yield from map(default_collate, self._get_chunk_data(samples, batch_size))

    def _read(self, source: str | np.ndarray) -> dict:
        if isinstance(source, str):
            try:
                image = mmcv.imread(source, backend=self._backend)
            except Exception as e:  # decoders fail in many ways, and speak of buffers, not of files
                raise InputError(f"The picture '{source}' cannot be read: {self._problem(source, e)}.") from e
            if image is None:  # so cv2 says it
                raise InputError(f"The picture '{source}' cannot be read: {self._problem(source)}.")
        else:
            image = source
        return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])

    def _problem(self, source: str, error: Exception | None = None) -> str:
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        if not os.path.getsize(source):
            return 'the file is empty'
        return f'it is damaged, or of a format that {self._backend} does not know'


@torch.no_grad()
def inference(
    model: nn.Module,
    images: str | os.PathLike | Sequence[str | os.PathLike | np.ndarray],
    top: int = 5,
    explain: int = 0,
    batch_size: int = 32,
) -> list[dict]:
    """Classify pictures.

    Args:
        model (nn.Module): From :func:`get_model`.
        images (str | os.PathLike | Sequence): A file or folder, several, or
            pictures as arrays (H, W, 3) in BGR, as ``mmcv.imread`` gives.
        top (int): How many classes to tell. Defaults to 5.
        explain (int): How many anchor sentences to tell for the predicted
            class, for models with :class:`LGRHead`. Defaults to 0.
        batch_size (int): Pictures at a time. Defaults to 32.

    Returns:
        list[dict]: For every picture ``image`` (its path, or None), ``top``
        (pairs of class name and probability, the likeliest first) and, if
        asked to explain, ``anchor_sentences`` (pairs of weight and sentence).

    Raises:
        InputError: A picture cannot be read; an explanation of a model that
            has no anchor sentences; less than one class, or less than no
            sentence to tell.

    Examples:
        >>> from mmlt.apis import get_model, inference
        >>> model = get_model('vlltr_rn50_imagenet-lt', 'epoch_50.pth')  # doctest: +SKIP
        >>> inference(model, 'fox.jpg', explain=3)[0]['top'][0]  # doctest: +SKIP
        ('red fox', 0.93)
    """
    check_numbers(top, explain)
    if explain and not isinstance(model.head, LGRHead):
        raise InputError(
            f'Only a model with LGRHead has anchor sentences to explain by; this one has {type(model.head).__name__}.'
        )
    images = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    sources = [i for image in images for i in ([image] if isinstance(image, np.ndarray) else find_pictures([image]))]
    inferencer, results = Inferencer(model), []
    before = getattr(model.head, 'explain', None)
    if explain:
        model.head.explain = explain
    try:
        for batch in inferencer.preprocess(sources, batch_size):
            for sample in inferencer.forward(batch):
                scores, labels = sample.pred_score.topk(min(top, len(sample.pred_score)))
                result = dict(image=None, top=[(inferencer.classes[int(c)], float(s)) for s, c in zip(scores, labels)])
                if explain:
                    result['anchor_sentences'] = sample.anchor_sentences
                results.append(result)
    finally:
        if explain:
            model.head.explain = before
    for result, source in zip(results, sources):
        result['image'] = source if isinstance(source, str) else None
    return results
