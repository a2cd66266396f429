"""One training at a time in a work directory."""

from __future__ import annotations

import os
import os.path as osp
import socket
from typing import TextIO

from mmlt.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

_held: dict[str, TextIO] = {}


def lock_folder(folder: str) -> None:
    """Keep a work directory for this process until it ends, however it ends.

    Workers that outlive a killed training do not hold it. Where the file system
    knows no locks nothing is kept.

    Args:
        folder (str): It is made.

    Raises:
        InputError: Another process trains there, or nothing can be written
            there.
    """
    path = osp.realpath(folder)
    if path in _held:
        return
    try:
        os.makedirs(path, exist_ok=True)
        file = open(osp.join(path, '.lock'), 'a+', encoding='utf-8')  # noqa: SIM115  kept open, that is the lock
    except OSError as e:
        raise InputError(
            f"The work directory '{folder}' cannot be written ({e.strerror}): give another one with --work-dir."
        ) from e
    if fcntl is None:
        file.close()
        return
    try:
        # A record lock: it is the process's own, and processes that it starts do not inherit it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        who = file.read().strip() or 'another process'
        file.close()
        raise InputError(
            f"'{folder}' is in use by a training ({who}): wait for its end, stop it, or give another --work-dir."
        ) from None
    except OSError:  # a file system without locks
        file.close()
        return
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}')
    file.flush()
    _held[path] = file
