"""What a checkpoint may hold beside tensors and plain values, and a way to read it that knows nothing else."""

from __future__ import annotations

import argparse
import pickle
import threading
import warnings
from collections import Counter
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

from mmlt.checkpoints.restricted_pickle import Forbidden, StrictUnpickler, latin1_encode

_HISTORY_METHODS = frozenset({'min', 'max', 'mean', 'current'})
_NUMBERS = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'c8', 'c16', '?', 'U')
_lock = threading.RLock()  # torch's list of allowed names is one for all threads

# Before torch 2.6 an allowed object cannot stand in for another name, as for getattr below.
TORCH_TAKES_NAMES = digit_version(torch.__version__) >= digit_version('2.6.0')


def _history_getattr(obj, name):
    """Stand in for ``builtins.getattr`` in a pickle: only the methods that a HistoryBuffer stores."""
    if obj is HistoryBuffer and name in _HISTORY_METHODS:
        return getattr(HistoryBuffer, name)
    raise Forbidden('builtins.getattr')


@lru_cache(maxsize=1)
def allowed_globals() -> dict[str, Any]:
    """What MMEngine and VL-LTR write into a checkpoint, beyond what torch allows.

    MMEngine (up to 0.10) stores its log buffers beside the weights:
    HistoryBuffer, numpy arrays and numbers, and ``builtins.getattr`` for the
    buffer's methods, which is a stand-in here that serves HistoryBuffer alone.
    VL-LTR keeps its arguments in an ``argparse.Namespace``.

    Returns:
        dict[str, Any]: Objects by the names that pickles give them.
    """
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    table = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'argparse.Namespace': argparse.Namespace,
        'builtins.getattr': _history_getattr,
        'builtins.bytes': bytes,  # of an empty array
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    for prefix in ('numpy._core.multiarray', 'numpy.core.multiarray'):  # of numpy 2 and 1
        table[f'{prefix}._reconstruct'] = multiarray._reconstruct
        table[f'{prefix}.scalar'] = multiarray.scalar
    for kind in (type(np.dtype(number)) for number in _NUMBERS):  # torch wants to know them, no pickle names them
        table[f'{kind.__module__}.{kind.__qualname__}'] = kind
    return table


@contextmanager
def allowed():
    """Let ``torch.load(weights_only=True)`` read :func:`allowed_globals` in this block, and leave torch as it was.

    What somebody else allows, before or meanwhile, stays.
    """
    with _lock:
        before = torch.serialization.get_safe_globals()
        ours = [(value, name) for name, value in allowed_globals().items()]
        with torch.serialization.safe_globals([pair for pair in ours if pair not in before]):
            yield


# Of what torch allows now, plain values that its first versions did not know.
PLAIN = {
    '_codecs.encode': latin1_encode,
    'torch.device': torch.device,
    **{f'builtins.{kind.__name__}': kind for kind in (bytearray, complex, set)},
    'collections.Counter': Counter,
}


class _Unpickler(StrictUnpickler):
    """For torch before 2.6: reads what the newer ones do with ``weights_only=True`` and :func:`allowed`."""

    def find(self, module: str, name: str) -> Any:
        """Tensors, plain values and what MMEngine writes; everything else ends the reading."""
        full = f'{module}.{name}'
        for table in (allowed_globals(), PLAIN, torch._weights_only_unpickler._get_allowed_globals()):
            if full in table:
                return table[full]
        raise Forbidden(full)


def _load(file: BinaryIO, **kwargs) -> Any:
    return _Unpickler(file, **kwargs).load()


# What torch.load takes in place of the module `pickle`.
STRICT_PICKLE = SimpleNamespace(
    Unpickler=_Unpickler, load=_load, UnpicklingError=pickle.UnpicklingError, __name__='mmlt.checkpoints.allowed'
)


def strict_load(file: str | BinaryIO, map_location=None, mmap: bool = False) -> Any:
    """``torch.load`` of tensors, plain values and :func:`allowed_globals`, never of anything else.

    Args:
        file (str | BinaryIO): A file, no TorchScript archive.
        map_location (Any): See ``torch.load``. Defaults to None.
        mmap (bool): Leave the tensors in the file until they are used.
            Defaults to False.

    Returns:
        Any: Its content.

    Raises:
        Exception: Of many kinds, for what cannot be read; see
            :func:`mmlt.checkpoints.unreadable.damage`.
    """
    more = dict(map_location=map_location, **(dict(mmap=True) if mmap else {}))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Detected pickle protocol')  # such a file is read, or refused
        if not TORCH_TAKES_NAMES:
            # The pickle module is the strict one, so that weights_only, which would know too little, is not needed.
            return torch.load(file, pickle_module=STRICT_PICKLE, weights_only=False, **more)
        with allowed():
            return torch.load(file, weights_only=True, **more)
