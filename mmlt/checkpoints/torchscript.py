"""The weights in a TorchScript archive, without the program that it is.

OpenAI published CLIP so. ``torch.jit.load`` runs what the archive says is to be
run at loading, which can write files; here its data are read, and its code is
only looked at for the names of parameters and buffers.
"""

from __future__ import annotations

import ast
import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mmlt.checkpoints.restricted_pickle import Forbidden, StrictUnpickler

# Functions that TorchScript gives lists their types with.
_SAME = ('build_intlist', 'build_doublelist', 'build_boollist', 'build_tensorlist', 'restore_type_tag')
_CLASS = re.compile(r'^class (\w+)\(Module\):\n((?:[ \t]+.*\n?|\n)*)', re.MULTILINE)
_NAMES = re.compile(r'^\s+__(?:parameters|buffers)__ = (\[.*?\])', re.MULTILINE | re.DOTALL)


def archive_members(path: str) -> list[str]:
    """Names of the files in one of torch's archives; none where it is no archive, or a damaged one."""
    with open(path, 'rb') as f:
        if f.read(2) != b'PK':
            return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # a damaged archive raises almost anything
        return []


def is_torchscript(path: str) -> bool:
    """Whether a file is a TorchScript archive, which holds a ``code/`` folder."""
    return any('/code/' in name or name.endswith('/constants.pkl') for name in archive_members(path))


class _Module:
    """A module of an archive: its attributes, and the path of its class."""

    path = ''


class _Unpickler(StrictUnpickler):
    def __init__(self, file, storage):
        super().__init__(file)
        self.persistent_load = storage

    def find(self, module: str, name: str) -> Any:
        """Modules as plain objects, tensors, and lists; everything else ends the reading."""
        if module == '__torch__' or module.startswith('__torch__.'):
            return type(name, (_Module,), dict(path=f'{module}.{name}'))
        if module == 'torch.jit._pickle' and name in _SAME:
            return lambda value, *kind: value
        if module == 'torch._utils' and name in ('_rebuild_tensor_v2', '_rebuild_parameter'):
            return getattr(torch._utils, name)
        if module == 'torch' and name.endswith('Storage'):
            return torch.serialization.StorageType(name)
        if (module, name) == ('collections', 'OrderedDict'):
            return dict
        raise Forbidden(f'{module}.{name}')


def torchscript_state(path: str) -> dict[str, Tensor]:
    """Parameters and buffers of a TorchScript archive by their names.

    Args:
        path (str): The archive.

    Returns:
        dict[str, Tensor]: As ``torch.jit.load(path).state_dict()``, on the CPU.

    Raises:
        Forbidden: It asks for what is not data, or has code to be run at
            loading.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith('data.pkl')).removesuffix('data.pkl')
        storages = {}

        def storage(saved: tuple):
            _, kind, key, _, _ = saved
            if key not in storages:
                content = bytearray(archive.read(f'{root}data/{key}'))
                flat = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
                storages[key] = flat.untyped_storage()
            return torch.storage.TypedStorage(wrap_storage=storages[key], dtype=kind.dtype, _internal=True)

        names = dict(_tensor_names(archive, f'{root}code/'))
        module = _Unpickler(io.BytesIO(archive.read(f'{root}data.pkl')), storage).load()
    return dict(_tensors(module, names, ''))


def _tensor_names(archive: zipfile.ZipFile, root: str) -> Iterator[tuple[str, set[str]]]:
    """Names of parameters and buffers of every class in an archive's code."""
    for member in archive.namelist():
        if not (member.startswith(root) and member.endswith('.py')):
            continue
        module = member.removeprefix(root).removesuffix('.py').replace('/', '.')
        for name, body in _CLASS.findall(archive.read(member).decode()):
            if '__setstate__' in body:
                raise Forbidden(f'__setstate__ of {module}.{name}')
            yield f'{module}.{name}', {each for found in _NAMES.findall(body) for each in ast.literal_eval(found)}


def _tensors(module: _Module, names: dict[str, set[str]], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for key, value in vars(module).items():
        if isinstance(value, Tensor) and key in names.get(module.path, ()):
            yield prefix + key, value.detach()
        elif isinstance(value, _Module):
            yield from _tensors(value, names, f'{prefix}{key}.')
