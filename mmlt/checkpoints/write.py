"""One way to write files: to a neighbour, which takes the name when it is whole."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.fileio import LocalBackend, register_backend
from safetensors import SafetensorError

from mmlt.errors import InputError

_OF_TORCH = ('PytorchStreamWriter', 'inline_container')  # in its RuntimeErrors when a file cannot be written
PART = '.part'


@contextmanager
def whole_file(path: str | os.PathLike, shared: bool = False) -> Iterator[str]:
    """A name to write to; it becomes ``path`` when the block has ended well, and is gone otherwise.

    A process that is killed, or a full disk, leaves what was at ``path``.

    Args:
        path (str | PathLike): The file; its folder is made.
        shared (bool): Whether several processes may write it at once, each the
            same content. Defaults to False.

    Yields:
        str: Beside ``path``, on the same file system.

    Raises:
        InputError: It cannot be written.

    Examples:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), 'run.json')
        >>> with whole_file(path) as part, open(part, 'w') as file:
        ...     count = file.write('{}')
        >>> open(path).read()
        '{}'
    """
    path = os.fspath(path)
    part = f'{path}.{os.getpid()}{PART}' if shared else f'{path}{PART}'
    try:
        os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
        yield part
        with open(part, 'rb') as file:
            os.fsync(file.fileno())  # the name must not be on the disk before the content
        os.replace(part, path)
    except (OSError, SafetensorError, RuntimeError) as e:
        if not isinstance(e, OSError) and not any(word in str(e) for word in (*_OF_TORCH, 'os error', 'Os {')):
            raise
        reason = e.strerror if isinstance(e, OSError) and e.strerror else ' '.join(str(e).split())[:120]
        raise InputError(
            f"'{path}' cannot be written ({reason}): make room there, or give another place. What was there before is "
            'whole.'
        ) from e
    finally:
        if osp.lexists(part):
            os.remove(part)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text as UTF-8, whole or not at all; see :func:`whole_file`."""
    with whole_file(path) as part, open(part, 'w', encoding='utf-8') as file:
        file.write(text)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write bytes, whole or not at all; see :func:`whole_file`."""
    with whole_file(path) as part, open(part, 'wb') as file:
        file.write(data)


class WholeFilesBackend(LocalBackend):
    """MMEngine's backend of local files, by which it writes checkpoints; no file of it is ever half written."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """See MMEngine."""
        write_bytes(filepath, obj.getvalue() if hasattr(obj, 'getvalue') else obj)

    def put_text(self, obj: str, filepath: str | os.PathLike, encoding: str = 'utf-8') -> None:
        """See MMEngine."""
        write_bytes(filepath, obj.encode(encoding))


def guard_writing() -> None:
    """Let MMEngine write local files by :class:`WholeFilesBackend`."""
    register_backend('local', WholeFilesBackend, force=True, prefixes='')
