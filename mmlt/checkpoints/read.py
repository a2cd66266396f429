"""One way to read files of weights, whatever MMEngine is installed: tensors and plain values, and nothing that runs."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import os.path as osp
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from mmlt.checkpoints.config_text import read_config_text
from mmlt.errors import InputError
from mmlt.utils.unreadable import why_unreadable

_HISTORY_METHODS = frozenset({'min', 'max', 'mean', 'current'})
_FORCE, _FORCE_NOT = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_STEP = re.compile(r'_(\d+)\.pth$')


def _history_getattr(obj, name):
    """Stand in for ``builtins.getattr`` in a pickle: only the methods that a HistoryBuffer stores."""
    if obj is HistoryBuffer and name in _HISTORY_METHODS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {obj!r}, {name!r}, which MMEngine never writes')


@functools.cache
def _allowed() -> list:
    """What MMEngine and VL-LTR write beside weights.

    MMEngine stores its log buffers: HistoryBuffer, numpy arrays, and ``builtins.getattr`` for the buffer's methods,
    here only through a stand-in that serves HistoryBuffer. VL-LTR keeps its arguments in an ``argparse.Namespace``.
    """
    array, scalar = (
        np.zeros(1).__reduce__()[0],
        np.float64().__reduce__()[0],
    )  # their module's name changed with numpy 2
    allowed = [HistoryBuffer, argparse.Namespace, np.ndarray, np.dtype, (_history_getattr, 'builtins.getattr')]
    for prefix in ('numpy._core.multiarray', 'numpy.core.multiarray'):
        allowed += [(array, f'{prefix}._reconstruct'), (scalar, f'{prefix}.scalar')]
    return allowed + list({type(np.dtype(t)) for t in ('f8', 'f4', 'i8', 'i4', '?')})


def _load(file, map_location=None, *_, **__):
    """``torch.load`` that reads weights only, by our list and whatever it is told."""
    registry = torch.serialization
    before = registry.get_safe_globals()
    # What a user allowed stays so; getattr, which a fork of MMEngine allows, would lead from any object to others.
    allowed = [x for x in before if x is not getattr and not (isinstance(x, tuple) and x[0] is getattr)] + _allowed()
    registry.clear_safe_globals()
    try:
        registry.add_safe_globals(allowed)
        return registry.load(file, map_location=map_location, weights_only=True)
    finally:
        registry.clear_safe_globals()
        registry.add_safe_globals(before)


@contextmanager
def weights_only() -> Iterator[None]:
    """Inside, ``torch.load`` reads tensors and plain values only, whoever calls it and whatever it is told.

    torch's function, its list of allowed objects and its environment variables
    are as before when it is left.
    """
    variables = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    load, torch.load = torch.load, _load  # type: ignore[assignment]
    os.environ[_FORCE] = '1'  # for who has torch's function by another name
    try:
        yield
    finally:
        torch.load = load
        os.environ.pop(_FORCE, None)
        os.environ.update({name: value for name, value in variables.items() if value is not None})


def read_checkpoint(path: str, map_location='cpu', what: str = 'The checkpoint') -> dict:
    """Read a file of ``torch.save`` without running any code of it.

    Args:
        path (str): The file.
        map_location (str): See ``torch.load``. Defaults to 'cpu'.
        what (str): Begins the error. Defaults to 'The checkpoint'.

    Returns:
        dict: Its content.

    Raises:
        InputError: It is missing, damaged, asks for other objects, or is no
            dict.
    """
    check_is_file(path, what)
    try:
        content = _load(path, map_location)
    except Exception as e:
        # torch's own sentence advises to load it unsafely.
        raise InputError(f"{what} '{path}' cannot be read: {why_unreadable(e, path)}.") from None
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, no checkpoint.")
    return content


def _guarded(loader: Callable) -> Callable:
    @functools.wraps(loader)
    def load(filename, *args, **kwargs):
        try:
            with weights_only():
                content = loader(filename, *args, **kwargs)
            return _without_code(content, filename)
        except (InputError, FileNotFoundError, ImportError):
            raise
        except Exception as e:
            path = osp.expanduser(filename)
            if isinstance(e, KeyError) and not osp.isfile(path):
                raise  # a name that a model zoo does not have
            why = why_unreadable(e, path if osp.isfile(path) else None)
            offline = '://' in filename and isinstance(e, OSError)
            remedy = (
                ' Without a network, fetch it elsewhere and give its path in place of the address.' if offline else ''
            )
            raise InputError(f"The checkpoint '{filename}' cannot be read: {why}.{remedy}") from None

    load.reads_weights_only = True  # type: ignore[attr-defined]
    return load


def _without_code(content, source: str):
    """A checkpoint whose configs, which MMEngine executes, are values; one that is more is left out and told."""
    if not isinstance(content, dict):
        return content
    hub = content.get('message_hub')
    for holder in (content.get('meta'), hub.get('runtime_info') if isinstance(hub, dict) else None):
        for key in ('cfg', 'config'):
            if isinstance(holder, dict) and isinstance(holder.get(key), str):
                try:
                    read_config_text(holder[key], f"'{source}'")
                except InputError as e:
                    holder.pop(key)
                    print_log(f'{e} It is left out.', logger='current', level=logging.WARNING)
    return content


def guard_mmengine() -> None:
    """Let MMEngine's ``load_checkpoint``, and all that goes through it, read weights only.

    MMEngine reads whatever torch's default allows, and some releases anything
    at all. So every loader that is registered for a kind of address is run
    within :func:`weights_only`.
    """
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if not getattr(loader, 'reads_weights_only', False):
            CheckpointLoader.register_scheme(prefixes=prefix, loader=_guarded(loader), force=True)


def is_whole(path: str) -> bool:
    """Whether a checkpoint is complete, byte by byte.

    Args:
        path (str): The file.

    Returns:
        bool: False where it is cut off or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # as torch writes it, with a checksum for each tensor
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        pass
    try:
        read_checkpoint(path)  # torch's old format, which has no checksums
    except InputError:
        return False
    return True


def latest_checkpoint(folder: str) -> str | None:
    """The last checkpoint of a training, as its ``last_checkpoint`` names it, or by the numbers where it does not.

    MMEngine writes that file in place, so it may be cut off; and the folder may
    have been moved since.

    Args:
        folder (str): The work directory.

    Returns:
        str | None: An existing file; None where there is none.
    """
    numbered = _numbered(folder)
    note = osp.join(folder, 'last_checkpoint')
    if osp.isfile(note):
        with open(note, encoding='utf-8', errors='replace') as file:
            named = file.read().strip()
        # In a copied folder the note names the original's file: that in the folder goes first.
        for path in (osp.join(folder, osp.basename(named)), named):
            if named and osp.isfile(path):
                return path
    return numbered[0] if numbered else None


def check_is_file(path: str, what: str = 'The checkpoint', work_dir: str = '') -> None:
    """Refuse what is no file, and say which checkpoints are there.

    Args:
        path (str): What was given.
        what (str): Begins the error. Defaults to 'The checkpoint'.
        work_dir (str): Where others may be if there are none beside it.
            Defaults to '', nowhere.

    Raises:
        InputError: It is a folder, or there is nothing of this name.
    """
    if osp.isfile(path):
        return
    folders = [path if osp.isdir(path) else osp.dirname(path), *([work_dir] if work_dir else [])]
    there = next(filter(None, map(_numbered, folders)), [])[:3]
    remedy = ' or '.join(there) if there else 'a file, for example the last of a work directory'
    raise InputError(f"{what} '{path}' {'is a folder' if osp.isdir(path) else 'does not exist'}: give {remedy}.")


def _numbered(folder: str) -> list[str]:
    """Checkpoints of the steps of a training, the last first."""
    steps = {str(path): _STEP.search(path.name) for path in Path(folder).glob('*_*.pth')}
    numbered = [path for path, step in steps.items() if step and not osp.basename(path).startswith('best_')]
    return sorted(numbered, key=lambda path: int(steps[path][1]), reverse=True)


def newest_whole(folder: str) -> tuple[str | None, list[str]]:
    """The last checkpoint of a training that is complete.

    Args:
        folder (str): The work directory.

    Returns:
        tuple[str | None, list[str]]: It, None where there is none; and newer
        ones that are damaged.
    """
    newest, numbered = latest_checkpoint(folder), _numbered(folder)
    if newest in numbered:
        numbered = numbered[numbered.index(newest) :]  # later ones are of an earlier training that was longer
    damaged: list[str] = []
    for path in dict.fromkeys([*([newest] if newest else []), *numbered]):
        if is_whole(path):
            return path, damaged
        damaged.append(path)
    return None, damaged
