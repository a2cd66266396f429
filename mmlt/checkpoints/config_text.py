"""Configs that checkpoints carry as text: they are data, and are not run."""

from __future__ import annotations

import ast

from mmengine.config import Config

from mmlt.errors import InputError

_NAMES = {'inf': float('inf'), 'nan': float('nan')}


def read_config_text(text: str, source: str = 'A checkpoint') -> Config:
    """Read what ``Config.pretty_text`` writes.

    ``Config.fromstring`` would execute the text. Here assignments of numbers,
    texts, lists, tuples, sets, dicts and ``dict(...)`` are known, and nothing
    else is.

    Args:
        text (str): Assignments in Python.
        source (str): Begins the error. Defaults to 'A checkpoint'.

    Returns:
        Config: The settings.

    Raises:
        InputError: It is no such text; names the line.

    Examples:
        >>> read_config_text("model = dict(type='A', sizes=[1, -2])").model.sizes
        [1, -2]
    """
    try:
        statements = ast.parse(text).body
        settings = {}
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    settings[name] = _value(value)
                case _:
                    raise _NoValue(statement)
    except _NoValue as e:
        node = e.args[0]
        part = (ast.get_source_segment(text, node) or type(node).__name__).splitlines()[0]
        raise InputError(
            f"{source} carries a config that is more than values, in line {node.lineno}: '{part[:80]}'. It is not run: "
            'give the config that belongs to the weights.'
        ) from None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as e:
        raise InputError(
            f'{source} carries a config that cannot be read ({type(e).__name__}): give the one that belongs to the '
            'weights.'
        ) from None
    return Config(settings)


class _NoValue(Exception):
    """A part of the text that is no value."""


def _value(node: ast.AST):
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(x) for x in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(k): _value(v) for k, v in zip(node.keys, node.values)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _value(node.operand)
        if isinstance(number, (int, float)):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        if not node.keywords and [type(a) for a in node.args] == [ast.Dict]:
            return _value(node.args[0])  # so MMEngine writes keys that are no names
        if not node.args and all(k.arg for k in node.keywords):
            return {k.arg: _value(k.value) for k in node.keywords}
    raise _NoValue(node)
