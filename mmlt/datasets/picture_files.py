"""Where listed pictures are: on the disk, or in a store that a file backend of MMEngine reads."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import numpy as np
from mmengine.fileio import BaseStorageBackend, FileClient, LocalBackend, get_file_backend, join_path
from mmengine.logging import print_log

from mmlt.errors import InputError

# Asking a store on the network takes milliseconds a picture: of longer lists as many, evenly spread, are asked for.
MOST_ASKED = 10_000
# A folder is listed where so many of its pictures are wanted, and up to so many entries for each of them.
FEWEST_LISTED = 16
MOST_UNWANTED = 20


def picture_backend(dataset, enable_singleton: bool = False) -> BaseStorageBackend | None:
    """What a dataset's pipeline reads its pictures with.

    Args:
        dataset (BaseDataset): With a pipeline, or none yet.
        enable_singleton (bool): Take the one that the pipeline uses in this
            process. Defaults to False, one that is closed after use: an open
            LMDB must not be forked into the workers.

    Returns:
        BaseStorageBackend | None: None where the address of a picture decides.

    Raises:
        InputError: It cannot be made.
    """
    for transform in _transforms(getattr(dataset, 'pipeline', None)):
        old, new = (getattr(transform, key, None) for key in ('file_client_args', 'backend_args'))
        try:
            if old:
                return FileClient(**old).client
            if new and 'backend' in new:
                return get_file_backend(backend_args=dict(new), enable_singleton=enable_singleton)
        except Exception as e:
            raise InputError(
                f'{type(transform).__name__}: the pictures cannot be read with backend_args={old or new} '
                f'({type(e).__name__}: {e}).'
            ) from e
    return None


def _transforms(pipeline):
    """All transforms of a pipeline, those inside others, too."""
    for transform in getattr(pipeline, 'transforms', pipeline) or ():
        yield transform
        if hasattr(transform, 'transforms'):
            yield from _transforms(transform)


def existing(name: str, exists: Callable[[str], bool]) -> str | None:
    """A listed name as it exists: as it is, or with ``/`` for the backslashes of Windows; None if it does not."""
    if exists(name):
        return name
    slashed = name.replace('\\', '/')
    return slashed if slashed != name and exists(slashed) else None


def image_paths(
    prefix: str,
    files: Sequence[str],
    ann_file: str,
    backend: BaseStorageBackend | None = None,
    lines: Sequence[int] | None = None,
) -> list[str]:
    r"""Full paths of the listed images, which are there.

    The disk, or the backend, is asked for each; of more than ``MOST_ASKED``
    in a backend, for as many. One that cannot be asked (LMDB, HTTP) has to
    give the first image. ``folder\a.jpg`` is ``folder/a.jpg`` where that exists.

    Args:
        prefix (str): Folder of the images, or ''.
        files (Sequence[str]): Paths, keys or addresses below it.
        ann_file (str): What to name in an error.
        backend (BaseStorageBackend, optional): Of :func:`picture_backend`.
            Defaults to None: the address decides, without one it is the disk.
        lines (Sequence[int], optional): Where they stand in ``ann_file``, to
            be named. Defaults to None.

    Returns:
        list[str]: As many as ``files``.

    Raises:
        InputError: The folder or an image is missing; the backend fails.
    """
    stay_below(files, ann_file, lines)
    if isinstance(backend, LocalBackend):
        backend = None
    if backend is None and prefix and '://' not in prefix and not os.path.isdir(prefix):
        raise InputError(
            f"The image folder '{prefix}' does not exist: set data_root (and data_prefix) to where the images are, or "
            'backend_args of LoadImageFromFile to what reads them.'
        )
    join = partial(os.path.join if '://' not in prefix else _join, prefix)
    paths = [join(f) if prefix and '://' not in f else f for f in files]
    stored = [i for i, p in enumerate(paths) if backend is not None or '://' in p]
    missing = [] if len(stored) == len(paths) else _replace(paths, set(stored))
    if stored:
        missing += _ask(backend or get_file_backend(paths[stored[0]]), paths, stored, ann_file)
    if missing:
        first, number = min(missing), len(missing)
        where = f' in {"the store of " + type(backend).__name__ if backend else "its place"}' if stored else ''
        if lines is not None:
            more = f' (nor do {number - 1} more of the {len(paths)})' if number > 1 else ''
            raise InputError(
                f"'{ann_file}', line {lines[first]}: the image '{paths[first]}' does not exist{where}{more}: check "
                'data_prefix, or complete the download.'
            )
        raise InputError(
            f"{number} of the {len(paths)} images of '{ann_file}' do not exist{where}, the first is "
            f"'{paths[first]}': check data_prefix, or complete the download."
        )
    return paths


def stay_below(files: Sequence[str], source: str, lines: Sequence[int] | None = None) -> None:
    """Refuse paths that leave their folder; absolute ones and addresses say openly where they lead.

    Args:
        files (Sequence[str]): Paths of a list.
        source (str): The list.
        lines (Sequence[int], optional): Where they stand in it.
            Defaults to None.

    Raises:
        InputError: One has a part '..'.
    """
    for i, file in enumerate(files):
        if '..' in file and '..' in re.split(r'[/\\]', file) and not os.path.isabs(file) and '://' not in file:
            line = f', line {lines[i]}' if lines is not None else ''
            raise InputError(
                f"'{source}'{line}: '{file}' leaves the folder of the images by '..': give a path below it, or an "
                'absolute one.'
            )


def _join(address: str, file: str) -> str:
    # A backend of one's own may read alone.
    known = hasattr(get_file_backend(address, enable_singleton=True), 'join_path')
    return join_path(address, file) if known else f'{address.rstrip("/")}/{file}'


def _replace(paths: list[str], others: set[int]) -> list[int]:
    """Put the names that exist on the disk in place; return the indices of those that do not."""
    own = [i for i in range(len(paths)) if i not in others]
    there = _listed([paths[i] for i in own])
    missing = []
    for i in own:
        if paths[i] in there:
            continue
        found = existing(paths[i], os.path.isfile)
        if found is None:
            missing.append(i)
        else:
            paths[i] = found
    return missing


def _listed(paths: Sequence[str]) -> set[str]:
    """Those of the paths that their folders list.

    To list a folder takes a disk on the network a few requests, to ask for each of its pictures one each. Folders of
    which little is wanted, and links, which may point nowhere, are not looked at: what is not found here may exist.
    """
    wanted: dict[str, set[str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        wanted.setdefault(folder, set()).add(name)
    there = set()
    for folder, names in wanted.items():
        if len(names) < FEWEST_LISTED:
            continue
        try:
            with os.scandir(folder or '.') as entries:
                for entry in islice(entries, MOST_UNWANTED * len(names)):
                    if entry.name in names and entry.is_file(follow_symlinks=False):
                        there.add(os.path.join(folder, entry.name))
        except OSError:
            continue  # each is asked for, and named
    return there


def _ask(backend: BaseStorageBackend, paths: list[str], stored: list[int], ann_file: str) -> list[int]:
    """The same for a backend."""
    name = type(backend).__name__

    def failed(i: int, why: str) -> InputError:
        return InputError(
            f"The image '{paths[i]}' of '{ann_file}' cannot be read by {name} ({why}): check data_root and data_prefix "
            '(they stand before the names of the list), and backend_args.'
        )

    asked = stored
    if len(stored) > MOST_ASKED:
        asked = [stored[i] for i in np.linspace(0, len(stored) - 1, MOST_ASKED).astype(int)]
    missing = []
    if callable(getattr(backend, 'exists', None)):
        try:
            for i in asked:
                found = existing(paths[i], backend.exists)
                if found is None:
                    missing.append(i)
                else:
                    paths[i] = found
        except NotImplementedError:
            pass  # as if it had no such method: the first is read below
        except Exception as e:
            raise failed(i, f'{type(e).__name__}: {e}') from e
        else:
            if len(asked) < len(stored):
                print_log(
                    f"'{ann_file}': {len(asked):,} of {len(stored):,} images were looked for in {name}; others that "
                    'are missing are named when they are read.',
                    logger='current',
                )
            return missing
    try:
        data = backend.get(paths[stored[0]])
    except Exception as e:
        raise failed(stored[0], f'{type(e).__name__}: {e}') from e
    if data is None:
        raise failed(stored[0], 'there is nothing of this name')
    return []


def files_below(folder: str, name: str = '') -> tuple[list[str], list[str]]:
    """All files of a folder and its sub-folders.

    Links to folders are followed, unless they lead back to where they are.

    Args:
        folder (str): What the paths are relative to.
        name (str): Below it, where to look. Defaults to '', all of it.

    Returns:
        tuple[list[str], list[str]]: Sorted paths of files, links to nothing
        among them, and of what must not be read as one: pipes, devices.

    Raises:
        InputError: A folder cannot be listed.
    """
    files, special, to_do = list[str](), list[str](), [name]
    while to_do:
        below = to_do.pop()
        place = os.path.join(folder, below)
        try:
            entries = list(os.scandir(place))
        except OSError as e:
            raise InputError(f"The folder '{place}' cannot be listed ({type(e).__name__}: {e.strerror}).") from e
        for entry in entries:
            own = os.path.join(below, entry.name)
            if entry.is_dir():
                if not (entry.is_symlink() and _leads_back(entry.path, place)):
                    to_do.append(own)
            else:
                (files if entry.is_file() or not os.path.exists(entry.path) else special).append(own)
    return sorted(files), sorted(special)


def _leads_back(link: str, place: str) -> bool:
    return os.path.join(os.path.realpath(place), '').startswith(os.path.join(os.path.realpath(link), ''))
