"""Published statistics come as pickles; here such a file can hold data, and nothing else."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np

from mmlt.errors import InputError


def _dtype(code: str, *args) -> np.dtype:
    """Numpy's dtype, of plain numbers, texts and objects only."""
    dtype = np.dtype(code)
    if dtype.kind not in 'biufcSUO':
        raise pickle.UnpicklingError(f"the array type '{code}' is not one of numbers")
    return dtype


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f"the encoding '{encoding}' is none that pickles use")
    return text.encode('latin1')


# The modules' names of numpy 1 and 2, and of Python 2.
_NUMPY = {
    ('multiarray', '_reconstruct'): np.zeros(1).__reduce__()[0],
    ('multiarray', 'scalar'): np.float64(0).__reduce__()[0],
    ('numeric', '_frombuffer'): np.zeros(1).__reduce_ex__(5)[0],
}
_ALLOWED = {
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): _dtype,
    ('_codecs', 'encode'): _encode,
    **{(f'numpy.{core}.{module}', name): f for core in ('core', '_core') for (module, name), f in _NUMPY.items()},
    **{('builtins', t.__name__): t for t in (set, frozenset, bytes, bytearray, complex)},
}


class _Forbidden(Exception):
    """The pickle asks for what is not data."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Numpy's arrays and Python's containers; everything else ends the reading."""
        module = 'builtins' if module == '__builtin__' else module
        if (module, name) not in _ALLOWED:
            raise _Forbidden(f'{module}.{name}')
        return _ALLOWED[module, name]


def load_restricted_pickle(path: str) -> Any:
    """Read a pickle of numbers, texts, numpy arrays, lists, tuples, dicts and sets.

    A pickle can name any function and have it called. This reader knows the
    few that make arrays and containers and refuses all others, so a file from
    the network can do no more than hold data.

    Args:
        path (str): The file, of any protocol, from Python 2 or 3.

    Returns:
        Any: What it holds.

    Raises:
        InputError: The file is missing, is no pickle, or asks for anything
            else; names what it asks for.
    """
    if not os.path.isfile(path):
        raise InputError(f"The file '{path}' does not exist: check data_root, or download it.")
    try:
        with open(path, 'rb') as f:
            return _Unpickler(f, encoding='latin1').load()
    except _Forbidden as e:
        raise InputError(
            f"The pickle '{path}' asks for {e}. A pickle can run any code, so only numpy arrays, numbers, texts and "
            'containers are read: take the published file.'
        ) from None
    except Exception as e:  # a damaged pickle raises almost anything
        raise InputError(f"'{path}' cannot be read as a pickle ({type(e).__name__}: {e}): download it again.") from e
