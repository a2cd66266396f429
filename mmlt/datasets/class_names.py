"""Class names without a whole data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmpretrain.registry import DATASETS as MMPRETRAIN_DATASETS

from mmlt.datasets.long_tailed_dataset import NAMED_CLASS_LISTS, is_published, read_class_names
from mmlt.errors import InputError

__all__ = ['check_same_classes', 'class_list', 'config_classes', 'is_published']

_SAME = 'Give all of them the same classes=...'


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


def check_same_classes(lists: Mapping[str, Sequence[str] | None], remedy: str = _SAME) -> None:
    """Refuse class lists that differ in a name or in the order.

    Args:
        lists (Mapping[str, Sequence[str] | None]): Class names by whose they
            are; None and empty ones, which tell nothing, are left out.
        remedy (str): Ends the sentence. Defaults to giving all the same.

    Raises:
        InputError: Names the first difference.
    """
    known = {name: [str(c) for c in classes] for name, classes in lists.items() if classes}
    # The labels' numbers stand for names where nobody gave any.
    named = [sorted(c) for c in known.values() if c != [str(i) for i in range(len(c))]]
    if any(sorted(c) not in named for c in known.values()) and len({len(c) for c in known.values()}) == 1 and named:
        known = {name: c for name, c in known.items() if sorted(c) in named}
    if len({len(classes) for classes in known.values()}) > 1:
        sizes = ', '.join(f'{name} {len(classes)}' for name, classes in known.items())
        raise InputError(f'There are different class lists: {sizes} classes. {remedy}')
    for name, classes in list(known.items())[1:]:
        first, reference = next(iter(known.items()))
        for i, (a, b) in enumerate(zip(reference, classes)):
            if a != b:
                raise InputError(
                    f"There are different class lists: class {i} is '{a}' in {first} and '{b}' in {name}. {remedy}"
                )


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
