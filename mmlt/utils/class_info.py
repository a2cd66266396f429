"""What is known of the classes of a dataset, in one piece for all that need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmlt.errors import InputError
from mmlt.utils.labels import check_labels, read_labels


@dataclass(frozen=True)
class ClassInfo:
    """Classes and what belongs to them.

    Modules that ask for it have a method ``set_class_info(info)``, see
    :class:`ClassInfoHook`.

    Args:
        classes (Sequence[str]): C class names; none where the dataset tells
            none.
        counts (Sequence[int], optional): Training images of every class.
            Defaults to None, not known.
        texts (str | Sequence[Sequence[str]], optional): Sentences of every
            class, or where they are, see :class:`ClassTexts`.
            Defaults to None.
        num_images (int, optional): Training images. Defaults to None, not
            known.

    Raises:
        InputError: Not one count a class.

    Examples:
        >>> from mmlt.utils.class_info import ClassInfo
        >>> ClassInfo(['cat', 'dog'], [90, 10]).counts
        (90, 10)
    """

    classes: Sequence[str]
    counts: Sequence[int] | None = None
    texts: str | Sequence[Sequence[str]] | None = None
    num_images: int | None = None

    def __post_init__(self):
        object.__setattr__(self, 'classes', tuple(str(name) for name in self.classes))
        if self.counts is None:
            return
        object.__setattr__(self, 'counts', tuple(int(n) for n in self.counts))
        self.check_counts(self.counts, 'The dataset')

    def check_counts(self, counts: Sequence[int], whose: str) -> None:
        """Raise an InputError if there is not one count a class."""
        if self.classes and len(counts) != len(self.classes):
            raise InputError(
                f'{whose} has {len(counts)} class counts, but there are {len(self.classes)} classes: give one count a '
                'class.'
            )

    def check_number(self, num_classes: int) -> None:
        """Raise an InputError if a head is of another number of classes."""
        if num_classes != len(self.classes):
            raise InputError(
                f'The head has num_classes={num_classes}, but the dataset has {len(self.classes)} classes: set '
                f'model.head.num_classes={len(self.classes)}.'
            )


def check_no_empty_class(counts: Sequence[int], who: str, classes: Sequence[str] = ()) -> None:
    """Raise an InputError for a class without training images, where ``who`` divides by its count."""
    if (empty := next((c for c, n in enumerate(counts) if n < 1), None)) is not None:
        name = f" ('{classes[empty]}')" if classes else ''
        raise InputError(
            f'{who}: class {empty}{name} has no training images; give every class at least one, or remove it from the '
            'class list.'
        )


def not_told(who: str, what: str, otherwise: str) -> InputError:
    """The error of a module that needs what :class:`ClassInfoHook` brings, and that nobody told.

    Args:
        who (str): The module.
        what (str): What it does not know.
        otherwise (str): What can be done instead of adding the hook.

    Returns:
        InputError: To be raised.
    """
    return InputError(
        f"{who} does not know {what}: add dict(type='mmlt.ClassInfoHook') to custom_hooks, or {otherwise}."
    )


def class_info(dataset, trains: bool = True) -> ClassInfo:
    """What a dataset tells of its classes.

    What losses, metrics, heads, reports and :class:`MORE` know of a train
    split comes from here. Every entry of the dataset as it is built counts:
    folds and subsets have fewer images than their list, and wrappers that
    repeat images have more.

    Args:
        dataset (Dataset): What :func:`read_labels` takes. One that tells no
            labels may tell ``class_counts`` (and ``num_train_images``) in its
            metainfo; a ``declared_counts`` of both, which is not None, wins.
        trains (bool): Whether it is the train dataset. Of another the counts
            are those that it knows of its train list. Defaults to True.

    Returns:
        ClassInfo: A class without images has the count 0.

    Raises:
        InputError: A label outside [0, C), or no images.
    """
    meta = getattr(dataset, 'metainfo', None) or {}
    classes = meta.get('classes') or ()
    counts, number = _count(dataset, classes) if trains else (None, None)
    if counts is None:
        counts, number = meta.get('class_counts'), meta.get('num_train_images')
    return ClassInfo(classes, counts, meta.get('class_texts'), number)


def _count(dataset, classes: Sequence[str]) -> tuple[Sequence[int] | None, int | None]:
    if (declared := getattr(dataset, 'declared_counts', None)) is not None:
        return declared
    try:
        table = read_labels(dataset)
    except InputError:
        return None, None
    name = type(dataset).__name__
    if not table.number:
        raise InputError(f'{name} lists no images.')
    labels = table.labels[table.labels >= 0]
    check_labels(labels, classes or None, name)
    number = len(classes) or int(labels.max(initial=-1)) + 1
    return np.bincount(labels, minlength=number).tolist(), table.number
