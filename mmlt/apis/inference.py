"""Predictions for picture files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.dataset import default_collate
from mmpretrain.apis import ImageClassificationInferencer
from PIL import Image
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
                if image is None:
                    Image.open(source)  # says what is wrong with it
                    raise ValueError('not a picture')
            except Exception as e:
                raise InputError(f"The picture '{source}' cannot be read ({type(e).__name__}: {e}).") from e
        else:
            image = source
        return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])


@torch.no_grad()
def inference(
    model: nn.Module, images: str | Sequence[str | np.ndarray], top: int = 5, explain: int = 0, batch_size: int = 32
) -> list[dict]:
    """Classify pictures.

    Args:
        model (nn.Module): From :func:`get_model`.
        images (str | Sequence[str | np.ndarray]): A file or folder, several,
            or pictures as arrays (H, W, 3) in BGR, as ``mmcv.imread`` gives.
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
            has no anchor sentences.

    Examples:
        >>> from mmlt.apis import get_model, inference
        >>> model = get_model('vlltr_rn50_imagenet-lt', 'epoch_50.pth')  # doctest: +SKIP
        >>> inference(model, 'fox.jpg', explain=3)[0]['top'][0]  # doctest: +SKIP
        ('red fox', 0.93)
    """
    if explain and not isinstance(model.head, LGRHead):
        raise InputError(
            f'Only a model with LGRHead has anchor sentences to explain by; this one has {type(model.head).__name__}.'
        )
    images = [images] if isinstance(images, str) else list(images)
    sources = [i for image in images for i in (find_pictures([image]) if isinstance(image, str) else [image])]
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
