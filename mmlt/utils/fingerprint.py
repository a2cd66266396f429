"""Short names of contents, to tell whether files belong together."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A short name of a state dict, which another value anywhere would change.

    Args:
        tensors (Mapping[str, Tensor]): Names and tensors, in any order.

    Returns:
        str: Hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=12)
    for name in sorted(tensors):
        digest.update(f'{name} {tuple(tensors[name].shape)} {tensors[name].dtype}\0'.encode())
        digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def object_fingerprint(value, without: Collection[str] = ()) -> str:
    """A short name of an object, which another value anywhere in it would change.

    Its class counts, and all its attributes, and theirs: of a module weights,
    buffers, submodules and settings, of a transform its settings. Of modules
    the hooks and private attributes do not count.

    Args:
        value (Any): For example a model or a list of transforms.
        without (Collection[str]): Names of attributes that do not count,
            wherever they are. Defaults to ().

    Returns:
        str: Hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=12)
    _describe(value, frozenset(without), digest.update, {})
    return digest.hexdigest()


# What of a module's own attributes holds what it computes with.
_PARTS = ('_parameters', '_buffers', '_modules')


def _describe(value, without: frozenset, write, seen: dict[int, int]) -> None:
    """Write all that is in a value, objects that come again by their number."""
    if value is None or isinstance(value, (str, bytes, bool, int, float, complex, torch.dtype, torch.Size)):
        return write(f'{type(value).__name__} {value!r}\0'.encode())
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        array = value.detach().cpu().contiguous() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
        write(f'{tuple(array.shape)} {array.dtype}\0'.encode())
        return write(array.reshape(-1).view(torch.uint8).numpy() if array.numel() else b'')
    if isinstance(value, type) or callable(getattr(value, '__get__', None)):  # classes and functions, by their names
        return write(f'{value.__module__}.{value.__qualname__}\0'.encode())
    if id(value) in seen:
        return write(f'again {seen[id(value)]}\0'.encode())
    seen[id(value)] = len(seen)
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(enumerate(sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value))
    elif hasattr(value, '__dict__'):
        module = isinstance(value, nn.Module)
        parts = [(k, v) for k, v in vars(value).items() if not module or k in _PARTS or k[0] != '_']
    else:
        return write(re.sub(r' at 0x\w+', '', f'{type(value).__qualname__} {value!r}\0').encode())
    write(f'{type(value).__module__}.{type(value).__qualname__} {len(parts)}\0'.encode())
    for name, part in parts:
        if name not in without:
            write(f'{name}\0'.encode())
            _describe(part, without, write, seen)
    return None


def texts_fingerprint(texts: Sequence[Sequence[str]]) -> str:
    """A short name of a corpus, which another sentence anywhere would change.

    Args:
        texts (Sequence[Sequence[str]]): Sentences of every class.

    Returns:
        str: Hexadecimal digits.
    """
    return hashlib.blake2b(json.dumps([list(t) for t in texts]).encode(), digest_size=12).hexdigest()
