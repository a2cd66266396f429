"""Short names of contents, to tell whether files belong together."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn


def digest(*parts, size: int = 12, kind: str = 'blake2b') -> str:
    """A short name of contents, one after another.

    Args:
        *parts (str | bytes | np.ndarray | Iterator): Texts as UTF-8, bytes, arrays
            by their numbers, and iterators of such, which are not held in
            memory.
        size (int): Bytes of the result. Defaults to 12.
        kind (str): The function, a name of :mod:`hashlib`, of which all but
            BLAKE2b are cut off at ``size``. Defaults to 'blake2b'.

    Returns:
        str: Hexadecimal digits.

    Examples:
        >>> digest('abc', size=4, kind='sha256')
        'ba7816bf'
    """
    made = hashlib.blake2b(digest_size=size) if kind == 'blake2b' else hashlib.new(kind, usedforsecurity=False)
    for part in parts:
        for piece in part if isinstance(part, Iterator) else (part,):
            if isinstance(piece, str):
                piece = piece.encode()
            made.update(np.ascontiguousarray(piece).data if isinstance(piece, np.ndarray) else piece)
    return made.hexdigest()[: 2 * size]


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A short name of a state dict, which another value anywhere would change.

    Args:
        tensors (Mapping[str, Tensor]): Names and tensors, in any order.

    Returns:
        str: Hexadecimal digits.
    """
    return digest(piece for name in sorted(tensors) for piece in (f'{name} ', *_numbers(tensors[name])))


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
    return digest(_describe(value, frozenset(without), {}))


# What of a module's own attributes holds what it computes with.
_PARTS = ('_parameters', '_buffers', '_modules')


def _numbers(tensor: Tensor) -> tuple[str, np.ndarray]:
    """Shape and type of a tensor, and its bytes."""
    array = tensor.detach().cpu().contiguous().reshape(-1)
    return f'{tuple(tensor.shape)} {tensor.dtype}\0', (array.view(torch.uint8) if len(array) else array).numpy()


def _describe(value, without: frozenset, seen: dict[int, int]) -> Iterator[str | np.ndarray]:
    """All that is in a value, objects that come again by their number."""
    if value is None or isinstance(value, (str, bytes, bool, int, float, complex, torch.dtype, torch.Size)):
        yield f'{type(value).__name__} {value!r}\0'
    elif isinstance(value, (Tensor, np.ndarray, np.generic)):
        yield from _numbers(value if isinstance(value, Tensor) else torch.from_numpy(np.array(value)))
    elif isinstance(value, type) or callable(getattr(value, '__get__', None)):  # classes and functions, by their names
        yield f'{value.__module__}.{value.__qualname__}\0'
    elif id(value) in seen:
        yield f'again {seen[id(value)]}\0'
    else:
        seen[id(value)] = len(seen)
        yield from _describe_parts(value, without, seen)


def _describe_parts(value, without: frozenset, seen: dict[int, int]) -> Iterator[str | np.ndarray]:
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(enumerate(sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value))
    elif hasattr(value, '__dict__'):
        module = isinstance(value, nn.Module)
        parts = [(k, v) for k, v in vars(value).items() if not module or k in _PARTS or k[0] != '_']
    else:
        yield re.sub(r' at 0x\w+', '', f'{type(value).__qualname__} {value!r}\0')
        return
    yield f'{type(value).__module__}.{type(value).__qualname__} {len(parts)}\0'
    for name, part in parts:
        if name not in without:
            yield f'{name}\0'
            yield from _describe(part, without, seen)


def texts_fingerprint(texts: Sequence[Sequence[str]]) -> str:
    """A short name of a corpus, which another sentence anywhere would change.

    Args:
        texts (Sequence[Sequence[str]]): Sentences of every class.

    Returns:
        str: Hexadecimal digits.
    """
    return digest(json.dumps([list(t) for t in texts]))
