"""Pickles that hold data, and nothing else: published statistics, annotations, predictions."""

from __future__ import annotations

import _compat_pickle
import io
import os
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch

from mmlt.errors import InputError


class _Forbidden(RuntimeError):
    """A pickle asks for what is not data; the message is its name."""


def _dtype(code: str, *args) -> np.dtype:
    """Numpy's dtype, of plain numbers, texts and objects only."""
    dtype = np.dtype(code)
    if dtype.kind not in 'biufcSUO':
        raise pickle.UnpicklingError(f"the array type '{code}' is not one of numbers")
    return dtype


def _latin1(text: str, encoding: str = 'latin1') -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f"the encoding '{encoding}' is none that pickles use")
    return text.encode('latin1')


def _storage(content: bytes):
    """The numbers of a tensor, which torch pickles as a checkpoint in the pickle."""
    return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


# The modules' names of numpy 1 and 2, and of Python 2.
_NUMPY = {
    ('multiarray', '_reconstruct'): np.zeros(1).__reduce__()[0],
    ('multiarray', 'scalar'): np.float64(0).__reduce__()[0],
    ('numeric', '_frombuffer'): np.zeros(1).__reduce_ex__(5)[0],
}
_ALLOWED = {
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): _dtype,
    ('_codecs', 'encode'): _latin1,
    ('collections', 'OrderedDict'): dict,
    ('torch.storage', '_load_from_bytes'): _storage,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    **{(f'numpy.{core}.{module}', name): f for core in ('core', '_core') for (module, name), f in _NUMPY.items()},
    **{('builtins', t.__name__): t for t in (set, frozenset, bytes, bytearray, complex)},
}


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, which makes arrays, tensors and containers, and gives a state to nothing else."""

    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)

    def _build(self):
        target = self.stack[-2]
        if isinstance(target, type) or callable(target):  # would change a class or a function for everybody
            raise _Forbidden(f'a change of {getattr(target, "__qualname__", type(target).__name__)}')
        pickle._Unpickler.load_build(self)

    dispatch[pickle.BUILD[0]] = _build

    def find_class(self, module: str, name: str) -> Any:
        """Also under the names of Python 2, which protocols up to 2 use and torch writes."""
        in_python_3 = (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        found = _compat_pickle.NAME_MAPPING.get((module, name), in_python_3)
        if found not in _ALLOWED:
            raise _Forbidden('.'.join(found))
        return _ALLOWED[found]

    def get_extension(self, code: int) -> None:
        """The registry of other packages' classes is not asked."""
        raise _Forbidden(f'extension {code}')


def load_restricted_pickle(file: str | os.PathLike | BinaryIO, path: str | os.PathLike | None = None) -> Any:
    """Read a pickle of numbers, texts, arrays, tensors, lists, tuples, dicts and sets.

    A pickle can name any function and have it called. This reader knows the
    few that make arrays and containers and refuses all others, so a file from
    the network can do no more than hold data.

    Args:
        file (str | os.PathLike | BinaryIO): The file, of any protocol, from
            Python 2 or 3.
        path (str | os.PathLike, optional): Its name, for errors.
            Defaults to None, that of the file.

    Returns:
        Any: What it holds.

    Raises:
        InputError: The file is missing, is no pickle, or asks for anything
            else; names what it asks for.
    """
    if isinstance(file, (str, os.PathLike)):
        if not os.path.isfile(file):
            raise InputError(f"The file '{file}' does not exist: check data_root, or download it.")
        with open(file, 'rb') as f:
            return load_restricted_pickle(f, file)
    name = f"The pickle '{path}'" if path else 'The pickle'
    try:
        return _Unpickler(file, encoding='latin1').load()
    except _Forbidden as e:
        raise InputError(
            f'{name} asks for {e}. A pickle can run any code, so only numpy arrays, numbers, texts and '
            'containers are read: take the published file, or write these data as .json.'
        ) from None
    except Exception as e:  # a damaged pickle raises almost anything
        what = f"'{path}'" if path else 'The content'
        raise InputError(f'{what} cannot be read as a pickle ({type(e).__name__}: {e}): download it again.') from e
