"""Pictures that come in the folders of their splits, train/ and test/ and perhaps val/, each with its class folders."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Callable, Sequence

from mmlt.errors import InputError

SPLIT_NAMES = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'dev'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}


def split_folders(folder: str, names: Sequence[str], is_picture: Callable[[str], bool]) -> dict[str, str] | None:
    """Which of a folder's sub-folders are splits.

    A folder ``train`` alone may be a class, as ``train`` beside ``car`` is; so
    may both, where pictures lie in them and not in folders of classes.

    Args:
        folder (str): The folder.
        names (Sequence[str]): Its sub-folders.
        is_picture (Callable): Whether a name is that of a picture.

    Returns:
        dict[str, str] | None: 'train', and 'val', 'test' or both, with the
        sub-folders' names; None where they are classes.

    Raises:
        InputError: Splits without one to train on or to test on; two folders
            of one split; folders of pictures beside splits.
    """
    splits = {name: SPLIT_NAMES[name.lower()] for name in names if name.lower() in SPLIT_NAMES}
    others = [name for name in names if name not in splits]
    kinds = set(splits.values())
    if 'train' not in kinds or len(kinds) < 2:
        if others or not names:
            return None
        raise InputError(
            f"'{folder}' has {_quoted(names)} alone, the name of a split and not of a class: a split needs train/ and "
            f"test/ (or val/) beside it. To split it here, give '{osp.join(folder, names[0])}', whose sub-folders are "
            'the classes.'
        )
    if others and not all(_has_class_folders(osp.join(folder, name), is_picture) for name in splits):
        return None
    if len(splits) > len(kinds):
        raise InputError(f"'{folder}' has two folders of one split among {_quoted(sorted(splits))}: remove one.")
    if full := [name for name in others if _has_pictures(osp.join(folder, name), is_picture)]:
        raise InputError(
            f"'{folder}' has splits, {_quoted(sorted(splits))}, and beside them {_quoted(full)} with pictures: give a "
            'folder with splits alone, or with classes alone.'
        )
    return {kind: name for name, kind in splits.items()}


def _quoted(names: Sequence[str]) -> str:
    return ', '.join(f"'{name}'" for name in names)


def _has_class_folders(folder: str, is_picture: Callable[[str], bool]) -> bool:
    entries = list(os.scandir(folder))
    return any(e.is_dir() for e in entries) and not any(is_picture(e.name) for e in entries)


def _has_pictures(folder: str, is_picture: Callable[[str], bool]) -> bool:
    return any(is_picture(name) for _, _, names in os.walk(folder) for name in names)


def check_doubled(folder: str, names: Sequence[str], is_picture: Callable[[str], bool]) -> None:
    """Raise an InputError if a split's folder has splits once more, as some archives do (train/train/cat)."""
    if all(n.lower() in SPLIT_NAMES and _has_class_folders(osp.join(folder, n), is_picture) for n in names):
        raise InputError(
            f"'{folder}' has {_quoted(names)} in place of classes: move what lies there a folder up, or give one of "
            'them alone.'
        )


def compare_classes(folder: str, classes: dict[str, Sequence[str]]) -> list[str]:
    """Compare the classes of splits.

    Args:
        folder (str): Where they lie, for errors.
        classes (dict[str, Sequence[str]]): Of every split's folder, that of
            'train' first.

    Returns:
        list[str]: Notes on classes that a split has no pictures of.

    Raises:
        InputError: A class that is not trained; names it.
    """
    (train, known), *others = classes.items()
    notes = []
    for name, own in others:
        if unknown := [c for c in own if c not in known]:
            near = [c for c in known if c.casefold() == unknown[0].casefold()]
            hint = f" ('{near[0]}' is there: name them the same)" if near else ''
            raise InputError(
                f"'{osp.join(folder, name)}' has {len(unknown)} classes that '{train}' has not, the first is "
                f"'{unknown[0]}'{hint}: nothing can be trained for them; add pictures to '{train}', or remove them."
            )
        if missing := [c for c in known if c not in own]:
            more = f' and {len(missing) - 5} more' if len(missing) > 5 else ''
            notes.append(
                f"{len(missing)} of the {len(known)} classes of '{train}' have no pictures in '{name}': "
                f'{_quoted(missing[:5])}{more}.'
            )
    return notes


def sibling_splits(folder: str) -> list[str]:
    """Splits beside a folder that has the name of one itself."""
    folder = osp.abspath(folder)
    own, above = osp.basename(folder), osp.dirname(folder)
    if own.lower() not in SPLIT_NAMES:
        return []
    return sorted(e.name for e in os.scandir(above) if e.is_dir() and e.name.lower() in SPLIT_NAMES and e.name != own)
