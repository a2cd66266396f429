"""Calls from Python: their arguments are checked in one place, and errors name them as a caller writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmlt.errors import InputError

# What a type of an option is called, and who passes for it.
_KINDS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ('True or False', (bool,)),
    int: ('a whole number', (Integral,)),
    float: ('a number', (Real,)),
    str: ('a text or path', (str, os.PathLike)),
    dict: ('a dict', (dict,)),
    list: ('a list', (list, tuple)),
}

# Options of the command line that a call has not, or by another name; all others differ by the dashes.
_IN_PYTHON = {
    'work-dir': 'out=',
    'restart': 'an empty folder',
    'skip-unreadable': 'skip_unreadable=True',
    'quick-gelu': 'quick_gelu=True',
    'no-flip': 'no_flip=True',
    'amp': 'amp=True',
}


def as_in_python(text: str) -> str:
    """A sentence that names options of the command line, with those of a call.

    Args:
        text (str): As ``choose another --out``.

    Returns:
        str: As ``choose another out=``.

    Examples:
        >>> as_in_python('--seed is -1: see --class-names, or give another --work-dir.')
        'seed is -1: see class_names=, or give another out=.'
        >>> as_in_python('Train it anew with --restart phase_a b.')
        'Train it anew in an empty folder.'
    """
    text = text.replace('quick_gelu=True on both towers', 'quick_gelu=True')
    text = re.sub(r'with --restart(?: [\w-]+)*', 'in an empty folder', text)
    text = re.sub(r'--cfg-options ([\w.]+)=(<[^>]+>|[^\s,;:]+[^\s,;:.])', r"cfg_options={'\1': \2}", text)

    def name(match: re.Match) -> str:
        own, follows = match.groups()
        if follows.startswith(' is '):
            return own.replace('-', '_') + follows
        return _IN_PYTHON.get(own, own.replace('-', '_') + '=') + (follows if follows != " '" else "'")

    return re.sub(r"(?<![\w-])--([a-z][a-z-]*[a-z])( is | '|)", name, text)


@contextmanager
def python_call() -> Iterator[None]:
    """Have an InputError from below name options as in Python, see :func:`as_in_python`."""
    try:
        yield
    except InputError as e:
        if (text := as_in_python(str(e))) == str(e):
            raise
        raise InputError(text) from e


def checked_arguments(call: str, options: type, given: dict, reserved: Collection[str] = ()) -> dict:
    """Check the names and types of what was given to a call against a dataclass of options.

    Args:
        call (str): What was called, for the error.
        options (type): A dataclass.
        given (dict): Values by name.
        reserved (Collection[str]): Fields that the call fills in itself.
            Defaults to none.

    Returns:
        dict: The same, paths as texts.

    Raises:
        InputError: There is no such option; a value of another type.
    """
    known = {f.name for f in fields(options)} - set(reserved)
    if unknown := sorted(set(given) - known):
        raise InputError(f"{call} has no option '{unknown[0]}'; it takes {', '.join(sorted(known))}.")
    hints = get_type_hints(options)
    return {name: checked_type(name, value, hints[name]) for name, value in given.items()}


def checked_type(name: str, value: Any, hint: Any) -> Any:
    """Check one value against an annotation such as ``int | None``.

    Args:
        name (str): Of the argument, for the error.
        value (Any): What was given.
        hint (Any): Plain types, ``list[...]``, None, and unions of these.

    Returns:
        Any: The value, a path as a text.

    Raises:
        InputError: It is of another type.
    """
    hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds: list[Any] = [get_origin(h) or h for h in hints]
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind in _KINDS and isinstance(value, _KINDS[kind][1]) and (kind is bool or not isinstance(value, bool)):
            given: Any = value
            return os.fspath(given) if kind is str else int(given) if kind is int else given
    wanted = ', or '.join(_KINDS[kind][0] for kind in kinds if kind in _KINDS)
    raise InputError(f'{name} is {value!r:.60}, a {type(value).__name__}: give {wanted}.')
