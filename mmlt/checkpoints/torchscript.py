"""Weights of a TorchScript archive, of which none is run: OpenAI publishes CLIP so."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'DoubleStorage': torch.float64,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}


class _Part:
    """A module or another object of the archive: its attributes, and nothing that it could do."""

    def __init__(self, *args) -> None:
        self.values: dict = {}

    def __setstate__(self, state) -> None:
        self.values = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    """Knows tensors, containers and parts; everything else ends the reading."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f'{root}data.pkl'))
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """See :class:`pickle.Unpickler`."""
        if module == '__torch__' or module.startswith('__torch__.'):
            return type('_Part', (_Part,), {})
        if module == 'torch' and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _rebuild
        if (module, name) == ('collections', 'OrderedDict'):
            return OrderedDict
        if module == 'torch.jit._pickle':  # lists of one type, and notes on types
            return _first
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {module}.{name} was not an allowed global')

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage."""
        kind, dtype, key, _, numel = pid
        if kind != 'storage' or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError('it is no archive of tensors')
        if key not in self._storages:
            entry = self._archive.getinfo(f'{self._root}data/{key}')
            if entry.compress_type != zipfile.ZIP_STORED:  # torch does not compress; a bomb does
                raise pickle.UnpicklingError('it is no archive of torch')
            data = bytearray(self._archive.read(entry))
            storage = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if len(storage) < numel:
                raise EOFError('a tensor is cut off')
            self._storages[key] = storage
        return self._storages[key]


def _first(value, *_):
    return value


def _rebuild(storage, offset, size, stride, *_) -> Tensor:
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if all(size) else 0
    if offset < 0 or any(n < 0 for n in (*size, *stride)) or (all(size) and last >= len(storage)):
        raise pickle.UnpicklingError('a tensor lies outside of its numbers')
    return torch.as_strided(storage, tuple(size), tuple(stride), offset).clone()


def is_torchscript(path: str) -> bool:
    """Whether a file is an archive of ``torch.jit.save``.

    Args:
        path (str): The file.

    Returns:
        bool: False of damaged ones.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('/constants.pkl') for name in archive.namelist())


def read_torchscript(path: str) -> dict[str, Tensor]:
    """The tensors of an archive of ``torch.jit.save``, by their names in the model.

    ``torch.jit.load`` would run the archive's ``__setstate__`` methods, which
    may write files. Here only its data are read.

    Args:
        path (str): The file.

    Returns:
        dict[str, Tensor]: On the CPU, all of the model's parameters, buffers
        and other tensors.

    Raises:
        pickle.UnpicklingError: It holds something else than a model.
        EOFError: It is cut off.
        zipfile.BadZipFile: It is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(n for n in archive.namelist() if n.endswith('/constants.pkl')).removesuffix('constants.pkl')
        model = _Unpickler(archive, root).load()
    if not isinstance(model, _Part):
        raise pickle.UnpicklingError('it holds no model')
    state: dict[str, Tensor] = {}
    _collect(model, '', state, set())
    return state


def _collect(part: _Part, prefix: str, state: dict[str, Tensor], above: set[int]) -> None:
    if id(part) in above:
        raise pickle.UnpicklingError('a part contains itself')
    for name, value in part.values.items():
        if isinstance(value, Tensor):
            state[f'{prefix}{name}'] = value
        elif isinstance(value, _Part):
            _collect(value, f'{prefix}{name}.', state, above | {id(part)})
