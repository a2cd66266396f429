"""Predictions for picture files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from mmlt.datasets.long_tailed_dataset import read_pipeline
from mmlt.datasets.picture_files import files_below
from mmlt.datasets.pictures import (
    PICTURE_SUFFIXES,
    array_to_8bit,
    is_picture,
    no_pictures,
    read_error,
    to_rgb,
    why_no_picture,
)
from mmlt.datasets.transforms import LoadPicture, is_loader, takes_and_gives_bgr
from mmlt.errors import InputError
from mmlt.models import LGRHead
from mmlt.preparation.picture_sources import is_hidden


def find_pictures(paths: Sequence[str | os.PathLike]) -> list[str]:
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
            files, special = ([str(path / f) for f in part] for part in files_below(str(path)))
            files = [f for f in files if not is_hidden(os.path.basename(f))]
            inside = [f for f in files if is_picture(f)]
            others = [f for f in files if not is_picture(f)] + special
            if not inside:
                reason = f': {no_pictures(others)}' if others else '.'
                raise InputError(f"The folder '{path}' has no pictures ({', '.join(PICTURE_SUFFIXES)}){reason}")
            if others:
                print_log(no_pictures(others), logger='current', level=logging.WARNING)
            found += inside
        elif path.is_file():
            found.append(str(path))
        else:
            raise InputError(f"The picture '{path}' does not exist: give a picture, or a folder of pictures.")
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
        model (BaseModel): From :func:`get_model`.
    """

    def _init_pipeline(self, cfg: Config) -> Compose:
        transforms = read_pipeline(cfg.test_dataloader.dataset)
        to_rgb = getattr(self.model.data_preprocessor, 'to_rgb', False)
        self._takes_bgr, _ = takes_and_gives_bgr(transforms, to_rgb)
        # A test that loads no files is of arrays.
        self._loader = TRANSFORMS.build(transforms.pop(0)) if is_loader(transforms[0]) else LoadPicture()
        return Compose([TRANSFORMS.build(transform) for transform in transforms])

    def preprocess(self, inputs: Sequence[str | np.ndarray | Image.Image], batch_size: int = 1) -> Iterator[dict]:
        """Read pictures and put them through the test's transforms, in batches."""
        samples = (self.pipeline(self._read(source, i)) for i, source in enumerate(inputs))
        yield from map(default_collate, self._get_chunk_data(samples, batch_size))

    def _read(self, source: str | np.ndarray | Image.Image, index: int) -> dict:
        """What the transforms behind the loading take."""
        if isinstance(source, str):
            results, bgr = self._load(source), True
        else:
            try:
                bgr = not isinstance(source, Image.Image)
                image = to_rgb(source) if isinstance(source, Image.Image) else array_to_8bit(source)
            except Exception as e:  # a picture of Pillow's is only decoded now
                raise InputError(f'Picture {index} of images cannot be read ({why_no_picture(e)}).') from e
            results = dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        if bgr != self._takes_bgr:
            results['img'] = results['img'][..., ::-1]
        return results

    def _load(self, path: str) -> dict:
        try:
            return self._loader(dict(img_path=path))
        except InputError:
            raise
        except Exception as e:  # MMPretrain's loader; decoders speak of buffers, not of files
            raise InputError(f"The picture '{path}' cannot be read ({read_error(path) or why_no_picture(e)}).") from e


def _sources(images) -> list[str | np.ndarray | Image.Image]:
    """What is given to :func:`inference` as a list of single pictures: paths, arrays, Pillow's."""
    single = isinstance(images, (str, os.PathLike, Image.Image, torch.Tensor))
    if single or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    sources: list[str | np.ndarray | Image.Image] = []
    for image in images if isinstance(images, Iterable) else [images]:
        if isinstance(image, (str, os.PathLike)):
            sources += find_pictures([image])
        elif isinstance(image, (np.ndarray, Image.Image)):
            sources.append(image)
        else:
            raise InputError(
                f'Picture {len(sources)} of images is a {type(image).__name__}: give the path of a file or folder, an '
                'array (H, W, C), or a picture of Pillow.'
            )
    return sources


@torch.no_grad()
def inference(
    model: BaseModel,
    images: str | os.PathLike | np.ndarray | Image.Image | Sequence[str | os.PathLike | np.ndarray | Image.Image],
    top: int = 5,
    explain: int = 0,
    batch_size: int = 32,
) -> list[dict]:
    """Classify pictures.

    Args:
        model (BaseModel): From :func:`get_model`.
        images (str | os.PathLike | np.ndarray | Image.Image | Sequence): A
            file or folder, a picture of Pillow in any mode, an array, or
            several of these. Arrays are (H, W), or (H, W, C) with 1 to 4
            channels: grey, grey and alpha, colours in BGR as ``mmcv.imread``
            gives, those and alpha; of uint8, uint16, bool, or floating point
            in [0, 1]. How they become 8 bits: :func:`mmlt.datasets.pictures.to_rgb`.
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
    sources = _sources(images)
    inferencer, results = Inferencer(model), []
    before = getattr(model.head, 'explain', None)
    if explain:
        model.head.explain = explain
    try:
        for batch in inferencer.preprocess(sources, batch_size):
            for sample in inferencer.forward(batch):
                scores, labels = sample.pred_score.topk(min(top, len(sample.pred_score)))
                result: dict = dict(image=None)
                result['top'] = [(inferencer.classes[int(c)], float(s)) for s, c in zip(scores, labels)]
                if explain:
                    result['anchor_sentences'] = sample.anchor_sentences
                results.append(result)
    finally:
        if explain:
            model.head.explain = before
    for result, source in zip(results, sources):
        result['image'] = source if isinstance(source, str) else None
    return results
