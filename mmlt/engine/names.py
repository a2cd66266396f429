"""Names of components and of their arguments: which there are, and which is nearest to one that is not."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterator

import mmengine.registry as mmengine_registries
import mmpretrain.registry as mmpretrain_registries
from mmengine.registry import Registry
from torch import nn

from mmlt.errors import InputError


def check_argument_names(
    given: Collection[str], known: Collection[str], path: str, who: str, slips: bool = False
) -> None:
    """Compare names with those that are known.

    Args:
        given (Collection[str]): Names in a config.
        known (Collection[str]): All that there are.
        path (str): Where they stand, for example 'model.head'.
        who (str): Who takes them, the beginning of a sentence.
        slips (bool): Only names that are nearly a known one: somebody may take
            the others out before they get there. Defaults to False.

    Raises:
        InputError: One is not known; names it, the nearest and all.
    """
    for name in given:
        if name not in known and (not slips or any(_is_slip(name, other, other not in given) for other in known)):
            raise InputError(unknown_argument(name, known, f'{path}.{name}' if path else name, who))


def unknown_argument(name: str, known: Collection[str], path: str, who: str) -> str:
    """The sentence for a name that is not known.

    Args:
        name (str): The name.
        known (Collection[str]): All that there are.
        path (str): Where it stands in the config.
        who (str): See :func:`check_argument_names`.

    Returns:
        str: With the nearest one, and all.
    """
    if name == '_delete_':
        return f'{path}: the base has nothing here that could be deleted; leave it out.'
    near = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    meant = f", the nearest is '{near[0]}'" if near else ''
    return f"{path}: {who} has no argument '{name}'{meant}; it takes {', '.join(sorted(known)) or 'none'}."


def _is_slip(name: str, other: str, free: bool) -> bool:
    """Whether one name is meant to be the other, which is given beside it unless it is free."""
    return one_slip(name, other) or (free and difflib.SequenceMatcher(None, name, other).ratio() >= 0.85)


def one_slip(a: str, b: str) -> bool:
    """Whether two words differ by one letter: missing, too many, another, or two exchanged."""
    if abs(len(a) - len(b)) > 1:
        return False
    i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    if len(a) != len(b):
        longer, shorter = (a, b) if len(a) > len(b) else (b, a)
        return longer[i + 1 :] == shorter[i:]
    return a[i + 1 :] == b[i + 1 :] or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])


def accepted_arguments(target: Callable) -> set[str] | None:
    """Names that a class or function can be called with.

    Args:
        target (Callable): A class, function or ``functools.partial``.

    Returns:
        set[str] | None: Names; None where it may take any, or does not tell.
    """
    names, others = arguments(target)
    return None if others else names


def arguments(target: Callable) -> tuple[set[str], bool]:
    """Names that a class or function tells, and whether it may take others, too.

    ``**kwargs`` that only go to ``super().__init__`` are followed there.

    Args:
        target (Callable): A class, function or ``functools.partial``.

    Returns:
        tuple: Names, and whether there may be others.
    """
    if isinstance(target, functools.partial):
        names, others = arguments(target.func)
        return names - set(target.keywords), others
    if not inspect.isclass(target):
        names, rest = named_arguments(target)
        return names or set(), names is None or rest is not None
    found: set[str] = set()
    for owner in target.__mro__:
        if owner in (object, nn.Module):
            return found, False
        if (init := vars(owner).get('__init__')) is None:
            continue
        own, rest = named_arguments(init)
        taken = frozenset() if rest is None else _taken_out(init, rest)
        found |= (own or set()) - {'self'} | (taken or set())
        if own is None or taken is None:
            return found, True
        if rest is None:
            return found, False
    return found, False


def named_arguments(function: Callable) -> tuple[set[str] | None, str | None]:
    """Names of arguments, and that of ``**kwargs`` if there is one."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None, None
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names, next((p.name for p in parameters if p.kind == p.VAR_KEYWORD), None)


@functools.cache
def _taken_out(init: Callable, kwargs: str) -> frozenset[str] | None:
    """Names that an ``__init__`` takes out of its ``**kwargs`` before it hands the rest to the next class.

    None where it does anything else with them: then nobody can say what they may be.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):
        return None
    names, understood = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(call := node.func, ast.Attribute):
            if call.attr == '__init__':
                understood |= {k.value for k in node.keywords if k.arg is None}
            on_kwargs = getattr(call.value, 'id', None) == kwargs
            if on_kwargs and call.attr in ('pop', 'get', 'setdefault') and isinstance(node.args[0], ast.Constant):
                understood.add(call.value)
                names.add(str(node.args[0].value))
    uses = {n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == kwargs}
    return frozenset(names) if uses <= understood and uses else None


def registries() -> Iterator[Registry]:
    """All root registries that are known."""
    seen = set()
    for module in (mmengine_registries, mmpretrain_registries):
        for value in vars(module).values():
            if isinstance(value, Registry):
                root = value
                while root.parent is not None:
                    root = root.parent
                if id(root) not in seen:
                    seen.add(id(root))
                    yield root


def registered_names(registry: Registry, scope: str) -> set[str]:
    """Names below a registry, as a config of a scope gives them."""
    registry.import_from_location()
    own = registry.scope in (scope, 'mmengine', 'mmcv') or registry.parent is None
    names = {name if own else f'{registry.scope}.{name}' for name in registry.module_dict}
    return names.union(*(registered_names(child, scope) for child in registry.children.values()))


def nearest_type(kind: str, names: Collection[str], cutoff: float = 0.6) -> str | None:
    """The registered name that is nearest to one that is not, with or without its scope.

    Args:
        kind (str): What is not registered.
        names (Collection[str]): What is.
        cutoff (float): How near it must be, in [0, 1], if it is not one slip.
            Defaults to 0.6.

    Returns:
        str | None: None where nothing is near.
    """
    bare = {name.split('.')[-1].lower(): name for name in sorted(names)}
    given = kind.split('.')[-1].lower()
    near = [name for name in bare if one_slip(name, given)] or difflib.get_close_matches(given, bare, 1, cutoff)
    return bare[near[0]] if near else None


def component_name(target: Callable) -> str:
    """Name of a class, function or partial, for a sentence."""
    target = target.func if isinstance(target, functools.partial) else target
    return getattr(target, '__name__', type(target).__name__)
