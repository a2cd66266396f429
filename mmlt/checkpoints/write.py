"""The one writer of files: whole or not at all, whatever stops it.

A file is written beside its place and renamed when it lies on the disk, so that
a process that is killed, a full disk or a machine that goes down leave what was
there before.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import os.path as osp
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from safetensors.torch import save_file
from torch import Tensor

from mmlt.errors import InputError

_PART = '.part'
_DAY = 24 * 60 * 60
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class WriteError(InputError):
    """A file could not be written; what was there before is still there."""


def write_atomic(path: str | os.PathLike, content: bytes | str | Callable[[str], Any]) -> None:
    """Write a file whole or not at all.

    Args:
        path (str | os.PathLike): The file; folders above it are made.
        content (bytes | str | Callable): What it is to hold, a text in UTF-8;
            or a function that writes it to the path that it is given, which
            is one beside ``path``.

    Raises:
        WriteError: There is no room, or the folder cannot be written in.
    """
    path = os.fspath(path)
    if osp.islink(path):
        path = osp.realpath(path)  # a link stays one
    part = f'{path}.{secrets.token_hex(4)}{_PART}'
    try:
        os.makedirs(osp.dirname(path) or '.', exist_ok=True)
        _remove_left(path)
        if callable(content):
            content(part)
        else:
            with open(part, 'wb') as f:
                f.write(content.encode() if isinstance(content, str) else content)
        _to_disk(part)
        os.replace(part, path)
    except Exception as e:
        if (told := why_unwritten(e)) is None:
            raise
        raise WriteError(f"'{path}' could not be written ({told[0]}): {told[1]}") from e
    finally:
        with suppress(OSError):  # it was renamed, or never made
            os.remove(part)
    with suppress(OSError):  # not every file system knows it of folders
        _to_disk(osp.dirname(path) or '.')


def save_torch(content: Any, path: str | os.PathLike) -> None:
    """:func:`write_atomic` of ``torch.save``."""
    write_atomic(path, lambda part: torch.save(content, part))


def save_tensors(tensors: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """:func:`write_atomic` of a ``.safetensors`` file."""
    write_atomic(path, lambda part: save_file({k: v.contiguous() for k, v in tensors.items()}, part))


def save_json(content: Any, path: str | os.PathLike, **kwargs) -> None:
    """:func:`write_atomic` of JSON; ``kwargs`` are those of ``json.dumps``."""
    write_atomic(path, json.dumps(content, **{'indent': 1, **kwargs}))


def save_figure(figure, path: str | os.PathLike, **kwargs) -> None:
    """:func:`write_atomic` of a picture of matplotlib, of the kind that the path's ending says."""
    kind = osp.splitext(os.fspath(path))[1].lstrip('.') or 'png'
    write_atomic(path, lambda part: figure.savefig(part, format=kind, **kwargs))


def check_folder(folder: str | os.PathLike) -> None:
    """Try whether files can be written in a folder, before time is spent on what they are to hold.

    Args:
        folder (str | os.PathLike): It is made where it is missing.

    Raises:
        WriteError: They cannot.
    """
    probe = osp.join(folder, f'.{secrets.token_hex(4)}{_PART}')
    try:
        os.makedirs(folder, exist_ok=True)
        with open(probe, 'wb') as f:
            f.write(b'0')
    except OSError as e:
        if (told := why_unwritten(e)) is None:
            told = (e.strerror, 'give another folder.')
        raise WriteError(f"Nothing can be written in '{folder}' ({told[0]}): {told[1]}") from e
    finally:
        with suppress(OSError):
            os.remove(probe)


def remove_parts(folder: str | os.PathLike) -> None:
    """Remove what writers that were killed left in a folder that nobody else writes in."""
    for part in glob.glob(osp.join(glob.escape(os.fspath(folder)), f'*{_PART}')):
        with suppress(OSError):
            os.remove(part)


def why_unwritten(error: BaseException) -> tuple[str, str] | None:
    """What kept a file from being written, and a remedy.

    Args:
        error (BaseException): As it was raised; torch and safetensors tell
            the system's error in words of their own.

    Returns:
        tuple[str, str] | None: None for an error of another kind.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        text = str(error)
        number = next((n for n in (*FULL, *CLOSED) if f'(os error {n})' in text or os.strerror(n) in text), None)
        if number is None and ('PytorchStreamWriter failed' in text or 'unexpected pos' in text):
            number = errno.ENOSPC  # torch says no more
    if number in FULL:
        reason = 'the disk is full' if number != errno.EFBIG else 'a larger file is not allowed'
        return reason, 'make room and give the same command again, it goes on from the last whole checkpoint.'
    if number in CLOSED:
        return os.strerror(number).lower(), 'give a folder that you may write in, for example by --work-dir.'
    return None


def _to_disk(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_left(path: str) -> None:
    """Remove what a writer of this file left that was killed; a young one may still be written by somebody else."""
    for part in glob.glob(f'{glob.escape(path)}.*{_PART}'):
        with suppress(OSError):
            if time.time() - os.path.getmtime(part) > _DAY:
                os.remove(part)


class WholeFilesBackend(LocalBackend):
    """MMEngine's backend of local files, which writes by :func:`write_atomic`: its checkpoints and dumped results."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """See MMEngine."""
        write_atomic(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """See MMEngine."""
        write_atomic(filepath, obj.encode(encoding))


def register_writer() -> None:
    """Put our backend in the place of MMEngine's, by its own register."""
    register_backend('local', WholeFilesBackend, force=True, prefixes='')
