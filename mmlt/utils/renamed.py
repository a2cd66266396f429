"""Arguments of components that have another name now: configs with the earlier one keep working."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from mmengine.logging import print_log

_RENAMED: dict[str, dict[str, str]] = {}


def renamed(**names: str) -> Callable:
    """Let an ``__init__`` take arguments by earlier names as well, with a warning.

    Where both are given, the later counts: a config's own settings come after
    those of a base which it changes.

    Args:
        **names (str): What is called how now, ``old='new'``.

    Returns:
        Callable: The decorator.

    Examples:
        >>> class Neck:
        ...     @renamed(ratio='residual_ratio')
        ...     def __init__(self, residual_ratio=0.2):
        ...         self.residual_ratio = residual_ratio
        >>> by_new_names(dict(type='mmlt.Neck', residual_ratio=0.2, ratio=0.5))
        {'type': 'mmlt.Neck', 'residual_ratio': 0.5}
    """

    def decorate(init: Callable) -> Callable:
        kind = init.__qualname__.split('.')[0]
        _RENAMED[kind] = names

        @functools.wraps(init)
        def taking_both(self, *args, **kwargs):
            for old in names.keys() & kwargs.keys():
                sentence = f"{kind}: '{old}' is called '{names[old]}' now; please rename it in the config."
                print_log(sentence, logger='current', level=logging.WARNING)
            init(self, *args, **_replaced(kwargs, names))

        return taking_both

    return decorate


def by_new_names(component: dict) -> dict:
    """A component's config, in which all arguments have their names of now.

    Args:
        component (dict): Known by its ``type``; other dicts stay as they are.

    Returns:
        dict: Without what lies inside being looked at.
    """
    kind = component.get('type')
    name = kind.__name__ if isinstance(kind, type) else str(kind).split('.')[-1]
    return _replaced(component, _RENAMED[name]) if name in _RENAMED else component


def rename_in(value) -> None:
    """Give the arguments of all components their names of now, in place: what is merged into them then counts.

    Args:
        value (Any): A config, or a part of one.
    """
    if isinstance(value, dict):
        new = by_new_names(value)
        if new.keys() != value.keys():
            value.clear()
            value.update(new)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        rename_in(part)


def _replaced(arguments: dict, names: dict[str, str]) -> dict:
    return {names.get(key, key): value for key, value in arguments.items()}
