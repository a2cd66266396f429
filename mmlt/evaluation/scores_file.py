"""The scores of a test as a file: arrays of numbers and texts, never pickles."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmlt.checkpoints import whole_file
from mmlt.errors import InputError

_AGAIN = 'write it with mmlt test ... --save-logits FILE.npz'
# Every array of the file, by its kind of numbers and its dimensions.
_ARRAYS = {'logits': ('f', 2), 'labels': ('iu', 1), 'classes': ('U', 1), 'class_counts': ('iuf', 1)}
_TEXTS = ('split', 'facts')
# Begins what a picture without a file is known by.
DIGEST = 'sha256:'
_OPTIONAL = ('images', 'weight_norms', 'bias')


@dataclass
class Scores:
    """Scores of N test images over C classes.

    Args:
        logits (np.ndarray): Shape (N, C), float32; ``facts['scores']`` says
            whether they are logits or log-probabilities.
        labels (np.ndarray): Shape (N, ), in [0, C).
        classes (np.ndarray): Class names, (C, ).
        class_counts (np.ndarray): Training images of every class, (C, ).
        split (str): Name of the tested split.
        facts (dict): ``scores``, ``config``, ``checkpoint``, ``protocol``,
            ``mmlt`` (its version) and more. Defaults to none.
        images (np.ndarray, optional): Files of the images or digests of their
            pixels, (N, ); an empty text where neither is known. Defaults to
            None, none is known.
        weight_norms (np.ndarray, optional): Lengths of the class vectors of a
            linear classifier, (C, ); then ``logits`` are its logits. Defaults
            to None, another head.
        bias (np.ndarray, optional): Its bias, (C, ). Defaults to None.
    """

    logits: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    class_counts: np.ndarray
    split: str
    facts: dict = field(default_factory=dict)
    images: np.ndarray | None = None
    weight_norms: np.ndarray | None = None
    bias: np.ndarray | None = None


def check_npz_path(path: str | Path) -> Path:
    """The path of a file of scores that is going to be written.

    Raises:
        InputError: The name does not end with ``.npz``, or is a folder's.
    """
    path = Path(path)
    if path.suffix != '.npz' or path.is_dir():
        raise InputError(
            f"Scores are written as .npz, but '{path}' is not a name of such a file: let it end with .npz."
        )
    return path


def write_scores(scores: Scores, path: str | Path) -> None:
    """Write a file of scores, whole or not at all.

    Args:
        scores (Scores): What to write.
        path (str | Path): See :func:`check_npz_path`.
    """
    arrays: dict = {
        'logits': np.asarray(scores.logits, dtype=np.float32),
        'labels': np.asarray(scores.labels, dtype=np.int64),
        'classes': np.asarray(scores.classes, dtype=np.str_),
        'class_counts': np.asarray(scores.class_counts, dtype=np.int64),
        'split': np.asarray(scores.split, dtype=np.str_),
        'facts': np.asarray(json.dumps(scores.facts), dtype=np.str_),
    }
    if scores.images is not None:
        arrays['images'] = np.asarray(scores.images, dtype=np.str_)
    for name in ('weight_norms', 'bias'):
        if getattr(scores, name) is not None:
            arrays[name] = np.asarray(getattr(scores, name), dtype=np.float32)
    with whole_file(check_npz_path(path)) as part, open(part, 'wb') as file:
        np.savez(file, **arrays)  # of numbers and texts; older numpy would store a setting as an array


def read_scores(path: str | Path) -> Scores:
    """Read a file of scores and check it.

    Args:
        path (str | Path): What :func:`write_scores` wrote.

    Returns:
        Scores: The file's.

    Raises:
        InputError: There is none, it is another file or damaged, scores are
            not finite, labels are out of range, or sizes do not fit.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no file of scores '{path}': {_AGAIN}.")
    try:
        file = np.load(path, allow_pickle=False)
        wanted = (*_ARRAYS, *_TEXTS, *_OPTIONAL)
        found = {name: file[name] for name in getattr(file, 'files', ()) if name in wanted}  # a single array has none
    except (OSError, ValueError, EOFError, MemoryError, TypeError, zipfile.BadZipFile, zlib.error) as e:
        # numpy's own words for another file advise to load it unsafely.
        reason = f' ({type(e).__name__}: {" ".join(str(e).split())[:100]})' if zipfile.is_zipfile(path) else ''
        raise InputError(f"'{path}' is not a file of scores, or damaged{reason}: {_AGAIN}.") from e
    return _checked(found, str(path))


def _checked(found: dict[str, np.ndarray], path: str) -> Scores:
    if missing := [name for name in (*_ARRAYS, *_TEXTS) if name not in found]:
        raise InputError(f"'{path}' has no '{missing[0]}', so it is not a file of scores: {_AGAIN}.")
    for name, (kinds, dimensions) in _ARRAYS.items():
        if found[name].dtype.kind not in kinds or found[name].ndim != dimensions:
            raise InputError(
                f"'{name}' in '{path}' is of type {found[name].dtype} and shape {found[name].shape}, which it never is "
                f'in a file of scores: {_AGAIN}.'
            )
    try:
        facts = json.loads(str(found['facts']))
    except ValueError as e:
        raise InputError(f"The facts in '{path}' are no JSON ({e}): {_AGAIN}.") from e
    if not isinstance(facts, dict):
        raise InputError(f"The facts in '{path}' are no JSON object: {_AGAIN}.")
    arrays: dict = {name: found.get(name) for name in (*_ARRAYS, *_OPTIONAL)}
    scores = Scores(**arrays, split=str(found['split']), facts=facts)
    _check_sizes(scores, path)
    _check_values(scores, path)
    return scores


def _check_sizes(scores: Scores, path: str) -> None:
    n, c = scores.logits.shape
    if n == 0 or c == 0:
        raise InputError(f"'{path}' has scores of {n} images and {c} classes, so nothing to measure: {_AGAIN}.")
    for name, expected in (
        ('labels', n),
        ('classes', c),
        ('class_counts', c),
        ('images', n),
        ('weight_norms', c),
        ('bias', c),
    ):
        array = getattr(scores, name)
        if array is not None and array.shape != (expected,):
            raise InputError(
                f"'{path}' has scores of {n} images and {c} classes, but its '{name}' have the shape {array.shape}: "
                f'{_AGAIN}.'
            )


def _check_values(scores: Scores, path: str) -> None:
    c = scores.logits.shape[1]
    if (wrong := np.flatnonzero(~np.isfinite(scores.logits).all(1))).size:
        raise InputError(
            f"The scores of {len(wrong)} images in '{path}' are not finite, the first is that of number {wrong[0]}: "
            'test the model again, without --amp if half precision overflows.'
        )
    norms = np.ones(1) if scores.weight_norms is None else scores.weight_norms
    if norms.dtype.kind != 'f' or not (norms > 0).all() or not np.isfinite(norms).all():
        raise InputError(f"'{path}' has class vectors whose lengths are not positive numbers: {_AGAIN}.")
    if scores.bias is not None and not np.isfinite(scores.bias).all():
        raise InputError(f"'{path}' has a bias that is not finite: {_AGAIN}.")
    if (wrong := scores.labels[(scores.labels < 0) | (scores.labels >= c)]).size:
        raise InputError(f"'{path}' has the label {wrong[0]}, outside [0, {c}): test with labels of the {c} classes.")
    counts = scores.class_counts
    if (wrong := np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))).size:
        raise InputError(f"'{path}' has {counts[wrong[0]]} training images of class {wrong[0]}: {_AGAIN}.")
