"""One's own pictures: from a folder, table or list to a checked long-tailed split."""

from __future__ import annotations

import os
import os.path as osp
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmlt.datasets.pictures import listing, picture_error
from mmlt.datasets.texts.class_names import read_class_names
from mmlt.errors import InputError
from mmlt.preparation.picture_sources import Pictures
from mmlt.utils import digest
from mmlt.utils.long_tail import exponential_profile, select_long_tail


def _inspect(path: str) -> tuple[str | None, str]:
    """Why a picture cannot be read (None if it can), and a hash of its file."""
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        return f'{type(e).__name__}: {e}', ''
    return picture_error(data), digest(data, size=16)


def inspect_pictures(pictures: Pictures, skip_unreadable: bool = False) -> None:
    """Read every picture once; drop copies, in place.

    Files with the same bytes are copies. Of copies in one class the first
    stays, so that no picture is in training and test; the notes say how many
    were dropped.

    Args:
        pictures (Pictures): Whose files are read.
        skip_unreadable (bool): Leave out pictures that cannot be read, in
            place of an error. Defaults to False.

    Raises:
        InputError: A picture cannot be read; copies stand in two classes.
    """
    paths = [osp.join(pictures.root, f) for f in pictures.files]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        bar = tqdm(pool.map(_inspect, paths), total=len(paths), desc='Reading pictures', mininterval=2, disable=None)
        results = list(bar)
    broken = [(f, error) for f, (error, _) in zip(pictures.files, results) if error]
    if broken and not skip_unreadable:
        raise InputError(
            f'{len(broken):,} of the {len(paths):,} pictures cannot be read, the first is '
            f"'{osp.join(pictures.root, broken[0][0])}' ({broken[0][1]}): download them again, or leave them out by "
            '--skip-unreadable.'
        )
    first: dict[str, int] = {}
    copies = []
    for i, (error, content) in enumerate(results):
        if error:
            continue
        j = first.setdefault(content, i)
        if pictures.labels[i] != pictures.labels[j]:
            a, b = (pictures.classes[pictures.labels[k]] for k in (j, i))
            raise InputError(
                f"The same picture stands in two classes: '{pictures.files[j]}' in '{a}' and '{pictures.files[i]}' in "
                f"'{b}'. Remove one of them."
            )
        if i != j:
            copies.append(pictures.files[i])
    if broken:
        names = [f for f, _ in broken]
        pictures.notes.append(f'{len(broken):,} pictures cannot be read and are left out: {listing(names)}.')
    if copies:
        pictures.notes.append(f'{len(copies):,} copies of other pictures are left out: {listing(copies)}.')
    pictures.keep(sorted(first.values()))
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))
    if not counts.all():
        raise InputError(f"Class '{pictures.classes[int(counts.argmin())]}' has no picture that can be read.")


def prompt_names(keys: Sequence[str], names_file: str | None = None) -> tuple[str, ...]:
    """Class names as they stand in prompts: spaces for underscores.

    Args:
        keys (Sequence[str]): C classes as the source names them.
        names_file (str, optional): Text file with a name a line, in the order
            of ``keys``, in their place. Defaults to None.

    Returns:
        tuple[str, ...]: C names.

    Raises:
        InputError: Fewer than two classes, another number of names, an empty
            name, or two of the same.
    """
    if len(keys) < 2:
        raise InputError(f"There is one class only, '{keys[0]}': a classifier needs at least two.")
    given = keys if names_file is None else read_class_names(names_file)
    if len(given) != len(keys):
        raise InputError(
            f"'{names_file}' has {len(given)} names, but there are {len(keys)} classes, {listing(keys, 3)}: write one "
            'name a line, in this order.'
        )
    # NFC: macOS writes an accented letter of a folder's name as two characters, which a tokenizer takes for others.
    names = tuple(' '.join(unicodedata.normalize('NFC', name).replace('_', ' ').split()) for name in given)
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if not name:
            raise InputError(f"The class '{given[i]}' has no letters in its name: rename it, or give --class-names.")
        if (j := seen.setdefault(name.casefold(), i)) != i:
            raise InputError(
                f"Two classes have the same name '{name}': '{keys[j]}' and '{keys[i]}'. Merge them, or give them "
                'different names by --class-names.'
            )
    return names


def default_test_size(counts: np.ndarray | Sequence[int]) -> int:
    """Test pictures a class: a fifth of the middle class, from 1 to 100."""
    return int(np.clip(np.median(counts) / 5, 1, 100))


def balanced_split(labels: np.ndarray, test: int, val: int, seed: int) -> dict[str, np.ndarray]:
    """Split pictures at random, with equally many of every class in test and val.

    At least half of the pictures of a class stay in training: a class of n
    pictures gives at most n // 2 to the test split, and of the rest at most
    half to the val split. A single picture is trained on and not tested.

    Args:
        labels (np.ndarray): Shape (N, ).
        test (int): Test pictures a class.
        val (int): Validation pictures a class.
        seed (int): The same seed gives the same split.

    Returns:
        dict[str, np.ndarray]: Sorted indices of 'train', 'val', 'test'.
    """
    parts: dict[str, list[np.ndarray]] = {'train': [], 'val': [], 'test': []}
    for c in np.unique(labels):
        members = np.random.default_rng([seed, int(c)]).permutation(np.flatnonzero(labels == c))
        tested = min(test, len(members) // 2)
        validated = min(val, (len(members) - tested) // 2)
        bounds = [tested, tested + validated]
        for split, part in zip(('test', 'val', 'train'), np.split(members, bounds)):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(part)) for split, part in parts.items()}


def artificial_tail(labels: np.ndarray, num_classes: int, ratio: float, seed: int) -> np.ndarray:
    """Cut a training split to an exponential profile, as large as its classes allow.

    The larger a class is, the further in front it stands in the profile;
    equal ones stay in their order.

    Args:
        labels (np.ndarray): Shape (N, ).
        num_classes (int): C.
        ratio (float): Largest over smallest class.
        seed (int): The same seed keeps the same pictures.

    Returns:
        np.ndarray: Sorted indices of what is kept.

    Raises:
        InputError: A ratio below 1, or one that leaves a class empty.
    """
    sizes = np.bincount(labels, minlength=num_classes)
    order = np.argsort(-sizes, kind='stable')
    # The largest top whose profile, rounded down, fits below the sizes; the loop mends rounding errors of the powers.
    limits = (sizes[order] + 1) * ratio ** (np.arange(num_classes) / max(num_classes - 1, 1))
    top = int(np.ceil(limits.min())) - 1
    if ratio >= 1 and top < ratio:
        raise InputError(
            f'A tail of ratio {ratio:g} leaves classes without pictures, since the largest class can have {top}: '
            f'choose at most {top}.'
        )
    profile = exponential_profile(top, ratio, num_classes)
    while (np.array(profile) > sizes[order]).any():
        top -= 1
        profile = exponential_profile(top, ratio, num_classes)
    counts = np.empty(num_classes, dtype=np.int64)
    counts[order] = profile
    return np.sort(select_long_tail(labels, counts.tolist(), seed))


def list_text(files: Sequence[str], labels: np.ndarray) -> str:
    """``relative/path label`` lines."""
    return ''.join(f'{file} {label}\n' for file, label in zip(files, labels))
