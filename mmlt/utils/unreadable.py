"""What keeps a file of weights from being read, in words of our own."""

from __future__ import annotations

import os
import pickle
import re
import zipfile

from safetensors import SafetensorError

# What torch's reader says of an object that is not allowed.
_ASKED = re.compile(r'(?:GLOBAL|Unsupported class) ([\w.]+)')
_DAMAGED = ('PytorchStreamReader', 'unexpected EOF', 'corrupt')  # words of torch's RuntimeErrors


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
    begins = None
    if path is not None and os.path.isfile(path):
        with open(path, 'rb') as f:
            begins = f.read(2)
    if begins == b'':
        return 'it is empty'
    refused = isinstance(error, pickle.UnpicklingError) or 'TorchScript' in str(error)
    archive = begins is None or begins.startswith((b'\x80', b'PK'))  # a pickle, or what torch writes
    if not archive and (refused or isinstance(error, KeyError)):  # of a byte that is no instruction of a pickle
        return 'it is no file of weights: give a .pth, .pt or .safetensors file'
    if refused:
        asked = _ASKED.search(str(error))
        return (
            f'it asks for {asked[1] if asked else "other objects than tensors"}, which could run code, and is not '
            'loaded: get the weights as plain tensors (a state dict) or as safetensors'
        )
    broken = isinstance(error, (EOFError, IndexError, SafetensorError, zipfile.BadZipFile))
    told = any(word in str(error) for word in _DAMAGED)
    if broken or told or (begins == b'PK' and not _is_whole_zip(path)):
        return 'it is damaged, perhaps cut off: fetch it again'
    return None


def _is_whole_zip(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return False


def why_unreadable(error: Exception, path: str | None = None) -> str:
    """See :func:`damage`; of an error of another kind its own words."""
    known = damage(error, path)
    return known or f'{type(error).__name__}: {" ".join(str(error).split())[:160]}'
