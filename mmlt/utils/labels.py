"""Labels of any dataset, as it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmpretrain.datasets import MultiLabelDataset

from mmlt.errors import InputError

# What datasets say of their train list in the metainfo.
_COUNT_KEYS = ('class_counts', 'num_train_images')


@dataclass(frozen=True)
class LabelTable:
    """Labels of all entries of a dataset.

    Args:
        entries (np.ndarray): Which entry has it, of all P labels in order, (P, ).
        labels (np.ndarray): The labels, (P, ).
        number (int): Entries, with or without labels.
        several (bool): Whether an entry may have none or several labels.
    """

    entries: np.ndarray
    labels: np.ndarray
    number: int
    several: bool

    def take(self, where: np.ndarray) -> LabelTable:
        """The table of a dataset whose entries are those of this one at ``where``, (N, )."""
        number = np.bincount(self.entries, minlength=self.number)
        lengths = number[where]
        first = np.repeat((np.cumsum(number) - number)[where], lengths)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        entries = np.repeat(np.arange(len(where)), lengths)
        return LabelTable(entries, self.labels[first + within], len(where), self.several)


def read_labels(dataset) -> LabelTable:
    """Labels of any mm dataset as it is built, through its wrappers.

    Args:
        dataset (Dataset): Any that tells its labels by ``get_gt_labels``,
            ``get_cat_ids`` or ``get_data_info``, or Concat, Repeat,
            ClassBalanced (MMEngine), KFold (MMPretrain), Subset (PyTorch) or
            another wrapper of such.

    Returns:
        LabelTable: Of its entries.

    Raises:
        InputError: It tells no labels.
    """
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if isinstance(parts := getattr(dataset, 'datasets', None), (list, tuple)) and parts:
        tables = [read_labels(part) for part in parts]
        ends = np.cumsum([t.number for t in tables])
        entries = np.concatenate([t.entries + end - t.number for t, end in zip(tables, ends)])
        labels = np.concatenate([t.labels for t in tables])
        return LabelTable(entries, labels, int(ends[-1]), any(t.several for t in tables))
    if (inner := getattr(dataset, 'dataset', None)) is not None:
        table = read_labels(inner)
        if (where := _inner_entries(dataset, table.number)) is not None:
            return table.take(where)
    lists, several = _own_labels(dataset)
    entries = np.repeat(np.arange(len(lists)), [len(own) for own in lists])
    labels = np.concatenate([*lists, np.empty(0, np.int64)])
    return LabelTable(entries, labels, len(lists), several)


def _inner_entries(dataset, number: int) -> np.ndarray | None:
    """Which entry of the wrapped dataset every entry of a wrapper is; None where it does not tell."""
    for name in ('repeat_indices', 'indices'):
        if getattr(dataset, name, None) is not None:
            return np.asarray(getattr(dataset, name), dtype=np.int64)
    if hasattr(dataset, 'times'):
        return np.arange(len(dataset)) % number
    # KFoldDataset takes its part out of the wrapped dataset itself.
    return np.arange(number) if len(dataset) == number else None


def _own_labels(dataset) -> tuple[list[np.ndarray] | np.ndarray, bool]:
    """Labels of every entry, each an array, and whether there may be several."""
    several = isinstance(dataset, MultiLabelDataset)
    try:
        if not several and hasattr(dataset, 'get_gt_labels'):
            labels = np.asarray(dataset.get_gt_labels())
            if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
                return labels.astype(np.int64)[:, None], False
    except (KeyError, TypeError, ValueError):
        pass  # several labels an entry, or told by another method
    try:
        lists = [_entry_labels(dataset, i) for i in range(len(dataset))]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, NotImplementedError) as e:
        raise _no_labels(dataset) from e
    return lists, several or any(len(own) != 1 for own in lists)


def _entry_labels(dataset, i: int) -> np.ndarray:
    if hasattr(dataset, 'get_cat_ids'):
        try:
            return np.atleast_1d(np.asarray(dataset.get_cat_ids(i), dtype=np.int64))
        except (KeyError, NotImplementedError):
            if not hasattr(dataset, 'get_data_info'):
                raise
    info = dataset.get_data_info(i)
    if info.get('gt_label') is not None:
        return np.atleast_1d(np.asarray(info['gt_label'], dtype=np.int64))
    return np.flatnonzero(np.asarray(info['gt_score'], dtype=float) > 0.5)


def dataset_labels(dataset) -> np.ndarray:
    """The label of every entry of a single-label dataset.

    Args:
        dataset (Dataset): What :func:`read_labels` takes.

    Returns:
        np.ndarray: Shape (len(dataset), ).

    Raises:
        InputError: The dataset tells no single label per sample.
    """
    table = read_labels(dataset)
    if table.several:
        raise _no_labels(dataset)
    return table.labels


def dataset_positives(dataset) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of entry and label of a single- or multi-label dataset.

    Args:
        dataset (Dataset): What :func:`read_labels` takes.

    Returns:
        tuple: P entries and their P labels, ordered by entry; negative labels,
        which mark what is not to be scored, are left out.

    Raises:
        InputError: The dataset tells no labels.
    """
    table = read_labels(dataset)
    known = table.labels >= 0
    return table.entries[known], table.labels[known]


def build_dataset(cfg: dict):
    """Build a dataset; a ConcatDataset may join lists of different counts, which are counted anew.

    Args:
        cfg (dict): Its config.

    Returns:
        Dataset: The dataset.

    Raises:
        InputError: Joined datasets have different classes.
    """
    try:
        return ROOT_DATASETS.build(_joinable(cfg))
    except (TypeError, ValueError) as e:
        if isinstance(e, InputError) or 'meta information' not in str(e):
            raise
        raise InputError(f'The joined datasets differ: {e}. Give all of them the same classes=...') from e


def _joinable(cfg):
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(_joinable(c) for c in cfg)
    if not isinstance(cfg, dict):
        return cfg
    cfg = type(cfg)({key: _joinable(value) for key, value in cfg.items()})
    kind = cfg.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    if name.rpartition('.')[2] == 'ConcatDataset':
        ignored = cfg.get('ignore_keys') or []
        cfg['ignore_keys'] = [*([ignored] if isinstance(ignored, str) else ignored), *_COUNT_KEYS]
    return cfg


def check_label_lists(labels: Sequence[np.ndarray], classes: Sequence[str], where: str) -> None:
    """Raise an InputError for an image with a label outside [0, C)."""
    top = len(classes)
    for i, own in enumerate(labels, 1):
        if wrong := [c for c in own if not 0 <= c < top]:
            every = np.concatenate(labels)
            hint = ''
            if every.min() >= 1 and every.max() == top:
                hint = ' The labels seem to start at 1; they must start at 0.'
            raise InputError(f'{where}, image {i}: label {wrong[0]} is outside [0, {top}).{hint}')


def check_labels(labels: np.ndarray, classes: Sequence[str] | None, where: str) -> None:
    """Raise an InputError for a label outside [0, C)."""
    top = len(classes) if classes is not None else np.inf
    wrong = np.flatnonzero((labels < 0) | (labels >= top))
    if len(wrong):
        i = int(wrong[0])
        limit = f'[0, {top})' if classes is not None else '[0, ...)'
        hint = ''
        if classes is not None and labels.min() >= 1 and labels.max() == top:
            hint = ' The labels seem to start at 1; they must start at 0.'
        elif classes is not None and labels.max() >= top:
            hint = f' The class list has {top} names, the labels go up to {labels.max()}: one of them is wrong.'
        raise InputError(f'{where}, entry {i + 1}: label {labels[i]} is outside {limit}.{hint}')


def _no_labels(dataset) -> InputError:
    return InputError(
        f'{type(dataset).__name__} tells no labels, one per image: class-aware sampling and shot metrics need a '
        'dataset with get_gt_labels(), as every single-label dataset of MMPretrain has.'
    )
