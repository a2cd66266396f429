"""A short name of a training set, wherever it lies."""

from __future__ import annotations

import os
import os.path as osp
import re
from collections.abc import Iterator

import numpy as np

from mmlt.checkpoints.comparison import plain
from mmlt.utils import digest


def data_digest(dataset) -> str | None:
    """A short name of a training set, wherever it lies.

    Another picture (by folder and file name), label, class name, or text of a
    class anywhere would change it.

    Args:
        dataset (Dataset): A built one of any mm project.

    Returns:
        str | None: Hexadecimal digits; None where it does not tell its samples.
    """
    if not hasattr(dataset, 'get_data_info'):
        return None
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    meta = getattr(dataset, 'metainfo', None) or {}
    return digest(repr(plain(meta.get('classes'))), _samples(dataset), _texts(meta.get('class_texts')))


def _samples(dataset) -> Iterator[str | np.ndarray]:
    for i in range(len(dataset)):
        for key, value in sorted(dataset.get_data_info(i).items()):
            if isinstance(value, np.ndarray):
                yield value
            else:
                # A path counts by its end; ids are where a sample lies in the list.
                text = '/'.join(re.split(r'[\\/]', value)[-2:]) if isinstance(value, str) else repr(plain(value))
                yield f'{key} {text}\0'


def _texts(texts) -> Iterator[str | bytes]:
    if not isinstance(texts, str):
        yield repr(plain(texts))
    elif osp.exists(texts):
        for path in sorted(_files(texts)):
            with open(path, 'rb') as f:
                yield osp.relpath(path, texts) + '\0'
                yield f.read()


def _files(path: str) -> list[str]:
    if osp.isfile(path):
        return [path]
    return [osp.join(folder, name) for folder, _, names in os.walk(path) for name in names]
