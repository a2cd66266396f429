"""MMEngine's readers of .pkl and .yml files, for annotations and configs, without what runs."""

from __future__ import annotations

import inspect
import os
from typing import Any

import yaml
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler, YamlHandler

from mmlt.checkpoints.restricted_pickle import load_restricted_pickle
from mmlt.errors import InputError


def _name() -> str | None:
    """The file that ``mmengine.load`` reads now; it hands its handlers the content alone."""
    frame = inspect.currentframe().f_back.f_back
    name = frame.f_locals.get('file') if frame.f_globals.get('__name__', '').startswith('mmengine.fileio') else None
    return str(name) if isinstance(name, (str, os.PathLike)) else None


class StrictPickleHandler(PickleHandler):
    """Reads numbers, texts, arrays, tensors and containers, see :func:`load_restricted_pickle`."""

    def load_from_fileobj(self, file, **kwargs) -> Any:
        """See MMEngine."""
        return load_restricted_pickle(file, _name())


class StrictYamlHandler(YamlHandler):
    """Reads plain YAML; a tag of Python's (``!!python/...``) could call anything."""

    def load_from_fileobj(self, file, **kwargs) -> Any:
        """See MMEngine."""
        try:
            return yaml.load(file, Loader=_Loader)
        except yaml.constructor.ConstructorError as e:
            name = _name()
            where = f"The YAML file '{name}'" if name else 'The YAML text'
            line = '' if e.problem_mark is None else f' in line {e.problem_mark.line + 1}'
            raise InputError(
                f'{where} has{line} what is not data ({e.problem}) and could run code: it was not read. Write plain '
                'numbers, texts, lists and mappings.'
            ) from None


_Safe: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class _Loader(_Safe):
    """Plain YAML, and tuples, which hold nothing but data."""


_Loader.add_constructor('tag:yaml.org,2002:python/tuple', lambda loader, node: tuple(loader.construct_sequence(node)))


def register_handlers() -> None:
    """Put our readers in the place of MMEngine's, by its own register."""
    register_handler(['pkl', 'pickle'])(StrictPickleHandler)
    register_handler(['yml', 'yaml'])(StrictYamlHandler)
