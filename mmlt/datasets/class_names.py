"""Class names without a whole data set."""

from __future__ import annotations

from pathlib import Path

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS

from mmlt.datasets.long_tailed_dataset import NAMED_CLASS_LISTS, read_class_names
from mmlt.errors import InputError


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
