"""What keeps a file of weights from being read, in words of our own."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

import torch
from safetensors import SafetensorError

from mmlt.checkpoints.allowed import PLAIN, allowed_globals
from mmlt.checkpoints.restricted_pickle import Forbidden, python_3_name
from mmlt.checkpoints.torchscript import archive_members

DAMAGED = 'it is damaged, perhaps cut off: fetch it again, or take an earlier one'
_WORDS = ('PytorchStreamReader', 'unexpected EOF', 'corrupt')  # words of torch's RuntimeErrors
# Words of torch's UnpicklingErrors before the name of what a checkpoint asks for.
_NAMED = re.compile(r'(?:unsupported GLOBAL|Unsupported global: GLOBAL|unrecognized (?:function|class)) (\S+)')
# What a file that was cut off, or overwritten in part, makes an unpickler raise.
_CUT = (EOFError, IndexError, UnicodeDecodeError, SafetensorError, zipfile.BadZipFile)


def damage(error: Exception, path: str | None = None) -> str | None:
    """Say what is wrong with a file of weights that could not be read.

    torch's own words for a refused file advise to read it unsafely, so they
    are not passed on.

    Args:
        error (Exception): Of ``torch.load`` or safetensors.
        path (str, optional): The file. Defaults to None, not known.

    Returns:
        str | None: Part of a sentence about the file, for example 'it is
        empty'; None where it was read, and the error is of another kind.
    """
    known = path is not None and os.path.isfile(path)
    begins = _begins(path) if known else None
    if begins == b'':
        return 'it is empty'
    if isinstance(error, Forbidden):
        return _refused(str(error))
    if begins == b'PK' and not archive_members(path):
        return DAMAGED
    if isinstance(error, (pickle.UnpicklingError, SafetensorError)):
        # torch names also the rest of a name at which a file was cut off.
        name = next(forbidden_globals(path), None) if known else (found := _NAMED.search(str(error))) and found[1]
        if name is not None:
            return _refused(name)
    if isinstance(error, pickle.UnpicklingError):
        if begins is not None and not begins.startswith((b'\x80', b'PK')):  # no pickle, none of torch's archives
            return 'it is no file of weights'
        return DAMAGED if known else _refused('other objects than tensors')
    if 'allow_pickle' in str(error):  # numpy's, with an advice to read it unsafely
        return 'it holds other things than numbers, which could run code, so nothing of it was loaded'
    if isinstance(error, _CUT) or any(word in str(error) for word in _WORDS):
        return DAMAGED
    return None


def _refused(name: str) -> str:
    return (
        f'it asks for {name}, which is no tensor or plain value and could run code, so nothing of it was loaded. '
        "Take a file that holds weights alone: who made it saves torch.save(dict(state_dict=model.state_dict()), '...')"
    )


def why_unreadable(error: Exception, path: str | None = None) -> str:
    """See :func:`damage`; of an error of another kind its own words."""
    if (known := damage(error, path)) is not None:
        return known
    text = ' '.join(str(error).split())
    if 'weights_only' in text:  # an advice to read it unsafely
        text = 'it holds other things than tensors'
    return f'{type(error).__name__}: {text[:160]}'


def _begins(path: str) -> bytes:
    with open(path, 'rb') as f:
        return f.read(2)


def forbidden_globals(path: str) -> Iterator[str]:
    """Names that the pickles of a file ask for and that no checkpoint may; nothing is loaded.

    Args:
        path (str): A checkpoint, an archive or a plain pickle of any protocol.

    Yields:
        str: For example 'posix.system'.
    """
    known = {*allowed_globals(), *PLAIN, *torch._weights_only_unpickler._get_allowed_globals()}
    if hasattr(torch.serialization, 'get_safe_globals'):
        known.update(torch._weights_only_unpickler._get_user_allowed_globals())
    for name in _globals_of(path):
        module, _, own = name.rpartition('.')
        if name not in known and not (module.startswith('torch') and own.endswith('Storage')):
            yield name


def _globals_of(path: str) -> Iterator[str]:
    for member in archive_members(path):
        if member.endswith('.pkl'):
            yield from pickled_globals(BytesIO(_content(path, member)))
    if _begins(path)[:1] == b'\x80' or _is_old_pickle(path):
        with open(path, 'rb') as f:
            yield from pickled_globals(f)


def _content(path: str, member: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member)
    except Exception:  # a damaged archive raises almost anything
        return b''


def _is_old_pickle(path: str) -> bool:
    """Whether a file is a pickle of protocol 0 or 1, which have no mark of their own."""
    try:
        with open(path, 'rb') as f:
            return all(True for _ in pickletools.genops(f))
    except Exception:  # genops raises almost anything
        return False


def pickled_globals(file: BinaryIO) -> Iterator[str]:
    """Names of all objects that pickles, one after the other in a file, ask for; up to where they end.

    Args:
        file (BinaryIO): Read, and not run.

    Yields:
        str: Module and name.
    """
    while True:
        texts, memo, last = [], {}, None
        try:
            for code, value, _ in pickletools.genops(file):
                if code.name in ('GLOBAL', 'INST'):
                    yield '.'.join(python_3_name(*value.split(' ', 1)))
                elif code.name == 'STACK_GLOBAL':
                    yield '.'.join(texts[-2:]) if len(texts) > 1 else 'an object without a name'
                elif 'UNICODE' in code.name or 'STRING' in code.name:
                    texts, last = [*texts[-3:], value], value
                    continue
                elif code.name == 'MEMOIZE':
                    memo[len(memo)] = last
                    continue
                elif code.name.endswith('PUT'):
                    memo[value] = last
                    continue
                elif code.name.endswith('GET') and isinstance(memo.get(value), str):
                    texts = [*texts[-3:], memo[value]]
                last = None
        except Exception:  # where the pickles end, or something is no pickle: genops raises almost anything
            return
