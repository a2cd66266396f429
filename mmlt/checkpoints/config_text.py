"""The config in a checkpoint is a text in Python; it is read as data, never run."""

from __future__ import annotations

import ast
import math
from typing import Any

from mmengine.config import Config

from mmlt.errors import InputError

_NAMES = {'inf': math.inf, 'nan': math.nan}
_CALLS = {f.__name__: f for f in (dict, list, tuple, set, frozenset)}


class _NoData(Exception):
    """A text has more than data; the arguments are what and its line."""


def config_of_text(text: str, source: str) -> Config:
    """The config that a checkpoint carries, as ``Config.pretty_text`` wrote it.

    ``Config.fromstring`` runs the text, so that whoever made the checkpoint
    could have anything done.

    Args:
        text (str): Assignments of numbers, texts, lists, tuples and dicts.
        source (str): What carries it, for the error, as in 'the checkpoint'.

    Returns:
        Config: The config.

    Raises:
        InputError: There is more in it than data.
    """
    return Config(check_config_text(text, source))


def check_config_text(text: str, source: str) -> dict[str, Any]:
    """See :func:`config_of_text`.

    Returns:
        dict[str, Any]: The values by their names.
    """
    try:
        values = {}
        for line in ast.parse(text).body:
            if not (isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name)):
                raise _NoData(ast.unparse(line), line.lineno)
            values[line.targets[0].id] = _value(line.value)
        return values
    except _NoData as e:
        what, line = e.args
        raise InputError(
            f'The config that {source} carries has more than data in line {line} ({what[:60]!r}), which could run '
            'code: it was not run. Take the checkpoint from its source again, or only its state_dict.'
        ) from None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as e:
        raise InputError(
            f'The config that {source} carries cannot be read ({type(e).__name__}): take the checkpoint from its '
            'source again, or only its state_dict.'
        ) from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(each) for each in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand)
        if isinstance(value, (int, float, complex)):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):  # a complex number
        left, right = _value(node.left), _value(node.right)
        if isinstance(left, (int, float)) and isinstance(right, complex):
            return left + right if isinstance(node.op, ast.Add) else left - right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        named = {each.arg: _value(each.value) for each in node.keywords}
        if None not in named:
            return _CALLS[node.func.id](*(_value(each) for each in node.args), **named)
    raise _NoData(ast.unparse(node), node.lineno)
