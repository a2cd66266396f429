"""The one reader of checkpoints: tensors and plain values come through, nothing that runs does."""

from __future__ import annotations

import os
import os.path as osp
from io import BytesIO
from typing import Any

from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file

from mmlt.checkpoints.allowed import strict_load
from mmlt.checkpoints.config_text import check_config_text
from mmlt.checkpoints.torchscript import archive_members, is_torchscript, torchscript_state
from mmlt.checkpoints.unreadable import DAMAGED, damage, why_unreadable
from mmlt.errors import InputError


class DamagedError(InputError):
    """A checkpoint is not whole."""


def read_checkpoint(path: str | os.PathLike, map_location=None, mmap: bool = False, what: str = '') -> Any:
    """Read a checkpoint file of torch, of any of its formats, or of safetensors.

    Args:
        path (str | os.PathLike): The file; a leading ``~`` or ``file://`` is
            understood.
        map_location (Any): See ``torch.load``. Defaults to None.
        mmap (bool): Leave the tensors in the file until they are used, where
            its format allows that. Defaults to False.
        what (str): What it is, for errors. Defaults to '', the checkpoint and
            its path.

    Returns:
        Any: Its content; of safetensors a state dict.

    Raises:
        InputError: It is missing; holds anything that could run code, or is a
            program (TorchScript).
        DamagedError: It is not whole.
    """
    path = local_path(path)
    what = what or f"checkpoint '{path}'"
    if not osp.isfile(path):
        raise InputError(f'The {what} does not exist: give a file, for example the last of a work directory.')
    if is_torchscript(path):
        raise InputError(
            f'The {what} could not be read: it is a TorchScript archive, a program, and nothing of it was run. A '
            "published CLIP of this kind is given to the towers as pretrained='...', of others give the state dict."
        )
    try:
        if path.endswith('.safetensors'):
            content = load_file(path, 'cpu')
        else:
            content = strict_load(path, map_location, mmap=mmap and bool(archive_members(path)))
    except Exception as e:
        raise _refusal(e, what, path) from None
    _keep_data(content)
    return content


def read_bytes(content: bytes, source: str, map_location=None) -> Any:
    """See :func:`read_checkpoint`, of what was fetched already.

    Args:
        content (bytes): The file.
        source (str): Where it is from, for errors.
        map_location (Any): See ``torch.load``. Defaults to None.
    """
    try:
        if source.endswith('.safetensors'):
            found = load_safetensors(content)
        else:
            found = strict_load(BytesIO(content), map_location)
    except Exception as e:
        raise _refusal(e, f"checkpoint '{source}'") from None
    _keep_data(found)
    return found


def read_weights(path: str | os.PathLike, what: str = '') -> Any:
    """See :func:`read_checkpoint`; of a TorchScript archive its parameters and buffers are read.

    Args:
        path (str | os.PathLike): The file.
        what (str): See there. Defaults to ''.

    Returns:
        Any: Its content, on the CPU.
    """
    path = local_path(path)
    if not is_torchscript(path):
        return read_checkpoint(path, 'cpu', what=what)
    try:
        return torchscript_state(path)
    except Exception as e:
        raise _refusal(e, what or f"TorchScript archive '{path}'", path) from None


def local_path(path: str | os.PathLike) -> str:
    """A path without ``file://`` and with the home directory for ``~``."""
    return osp.expanduser(os.fspath(path).removeprefix('file://'))


def _refusal(error: Exception, what: str, path: str | None = None) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = damage(error, path)
    if reason is None and not isinstance(error, (OSError, MemoryError)) and 'device' not in str(error):
        reason = DAMAGED  # what is left of a file makes an unpickler raise almost anything
    broken = (reason or '').startswith(('it is damaged', 'it is empty', 'it is no'))
    reason = reason or why_unreadable(error, path)
    return (DamagedError if broken else InputError)(f'The {what} could not be read: {reason}.')


def _keep_data(content: Any) -> None:
    """MMEngine runs the text ``meta['config']``, that of old checkpoints, when it resumes: only data are left there."""
    meta = content.get('meta') if isinstance(content, dict) else None
    if not isinstance(meta, dict) or 'config' not in meta:
        return
    try:
        check_config_text(meta['config'], 'the checkpoint')
    except InputError:
        del meta['config']
