"""Class names: lists by name or in files, and those of a config's data."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import open_clip
from mmengine.fileio import join_path
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS

from mmlt.errors import InputError
from mmlt.utils.text_files import is_file, read_lines

# A line of Places365's class list: the folder with its letter, the label.
PLACE = re.compile(r'/(\w)/(\S+) (\d+)')

NAMED_CLASS_LISTS = {'imagenet': lambda: tuple(open_clip.IMAGENET_CLASSNAMES)}


def read_class_names(path: str) -> tuple[str, ...]:
    """Read a class list: a name a line, or Places365's ``/a/airplane_cabin 1``.

    Args:
        path (str): Text file.

    Returns:
        tuple[str, ...]: Class names in the order of labels.

    Raises:
        InputError: The file is missing or no text; a line begins as one of
            Places365 and goes on otherwise.
    """
    if not is_file(path):
        raise InputError(f"The class list '{path}' does not exist: give a text file with one class name a line.")
    names = []
    for i, line in enumerate(read_lines(path), 1):
        line = line.strip()
        if not line:
            continue
        if place := PLACE.fullmatch(line):
            line = place[2].replace('/', ' ').replace('_', ' ')
        elif re.match(r'/\w/', line):
            raise InputError(f"'{path}', line {i}: '{line[:80]}' is not of the form '/a/airfield 0'.")
        names.append(line)
    return tuple(names)


def class_list(name: str) -> tuple[str, ...]:
    """A class list by its name (``'imagenet'``) or its file.

    Args:
        name (str): The name, or the path of a text file.

    Returns:
        tuple[str, ...]: Class names in the order of labels.

    Raises:
        InputError: There is no such file.
    """
    return NAMED_CLASS_LISTS[name]() if name in NAMED_CLASS_LISTS else read_class_names(name)


def resolve_classes(classes: str | Sequence[str] | None, data_root: str) -> Sequence[str] | None:
    """Class names of a dataset's argument ``classes``.

    Args:
        classes (str | Sequence[str], optional): Names, a named list, or a
            text file.
        data_root (str): Where the file is if its path is relative.

    Returns:
        Sequence[str] | None: Names, or None for None.
    """
    if not isinstance(classes, str):
        return classes
    if classes in NAMED_CLASS_LISTS:
        return NAMED_CLASS_LISTS[classes]()
    return read_class_names(classes if os.path.isabs(classes) else join_path(data_root, classes))


def is_published(classes: Sequence[str], dataset=None) -> bool:
    """Whether a class list is one that a benchmark comes with, not somebody's own.

    Args:
        classes (Sequence[str]): C class names.
        dataset (Dataset, optional): Whose they are. Defaults to None.
    """
    own = getattr(type(dataset), 'METAINFO', {}).get('classes') or ()
    return tuple(classes) in {tuple(own), *(tuple(names()) for names in NAMED_CLASS_LISTS.values())}


def config_classes(cfg) -> tuple[str, ...] | None:
    """Class names that a config's test set knows before its pictures are there.

    Args:
        cfg (Config): A config.

    Returns:
        tuple[str, ...] | None: None where the names are in files that are not
        there, or nowhere.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if dataset is None:
        return None
    known = (dataset.get('metainfo') or {}).get('classes')
    if known is None:
        registry = ROOT_DATASETS if '.' in dataset.type else MMPRETRAIN_DATASETS
        try:
            built = registry.build({**dataset, 'lazy_init': True, 'pipeline': []})
        except (InputError, FileNotFoundError):
            return None
        known = built.metainfo.get('classes')
    if isinstance(known, str):
        known = read_class_names(known) if Path(known).is_file() else None
    return None if known is None else tuple(str(c) for c in known)
