"""What Python says of a component that cannot be built from its config, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from types import FrameType
from urllib.error import URLError

from mmengine.config import Config

from mmlt.checkpoints.comparison import plain
from mmlt.engine.identity import HOW_IT_RUNS, WHAT_IS_TRAINED
from mmlt.engine.names import (
    accepted_arguments,
    arguments,
    component_name,
    nearest_type,
    registered_names,
    unknown_argument,
)
from mmlt.errors import InputError

# Functions of MMEngine that call a class with the arguments of a config.
_BUILDERS = ('build_from_cfg', 'build_scheduler_from_cfg')


@contextmanager
def explained(cfg: Config | None = None):
    """Turn what Python says of a config's unknown, or missing, names, or of a download, into one sentence.

    Args:
        cfg (Config, optional): Where the name is looked for. Defaults to None.

    Raises:
        InputError: In place of a TypeError or KeyError of a component that a
            registry built; of a schedule that begins after the training's end;
            of an error of a download.
    """
    try:
        yield
    except (KeyError, TypeError) as e:
        sentence = explain(e, cfg)
        if sentence is None:
            raise
        raise InputError(sentence) from e
    except ValueError as e:
        sentence = _explain_schedule(e)
        if sentence is None:
            raise
        raise InputError(sentence) from e
    except (URLError, ConnectionError, TimeoutError, HTTPException) as e:
        sentence = _explain_download(e)
        if sentence is None:
            raise
        raise InputError(sentence) from e


def _explain_schedule(error: Exception) -> str | None:
    """A training that is shortened may end within the warm-up, before the next schedule begins."""
    built = [frame.f_locals for frame in _frames(error) if frame.f_code.co_name in _BUILDERS]
    if not (built and 'end should be larger than begin' in str(error)):
        return None
    kind = built[-1].get('obj_cls', built[-1].get('scheduler_cls'))
    return (
        f'param_scheduler: {component_name(kind)} would begin when the training is over '
        f'({str(error).rpartition("got ")[2]}): train for more epochs, or set an earlier begin and a shorter warm-up, '
        'for example param_scheduler=None for none.'
    )


def _explain_download(error: Exception) -> str | None:
    """What could not be fetched, and where its file belongs; None where the error is of something else."""
    # MMPretrain's functions that fetch a file call its address and its place so.
    names = [frame.f_locals for frame in _frames(error)]
    urls = [found['url'] for found in names if isinstance(found.get('url'), str)]
    places = [found['dst'] for found in names if isinstance(found.get('dst'), str)]
    if not (urls and places):
        return None
    built = [f' for {component_name(found["obj_cls"])}' for found in names if isinstance(found.get('obj_cls'), type)]
    why = ' '.join(str(error).split())
    return (
        f'{urls[0]} could not be fetched{built[-1] if built else ""} ({type(error).__name__}: {why}). '
        f"Without a network, fetch it elsewhere and put it there as '{places[-1]}'."
    )


def explain(error: Exception, cfg: Config | None = None) -> str | None:
    """The sentence for an error of a component that was built from a config.

    Args:
        error (Exception): As caught, with its traceback.
        cfg (Config, optional): See :func:`explained`. Defaults to None.

    Returns:
        str | None: None where the config is not to blame.
    """
    frames = [frame for frame in _frames(error) if frame.f_code.co_name in _BUILDERS]
    text = str(error.args[0] if error.args else error)
    for frame in reversed(frames):
        found = frame.f_locals
        if isinstance(error, KeyError):
            return _explain_type(found, text, cfg)
        target = found.get('obj_cls', found.get('scheduler_cls'))
        if target is None:
            continue
        if wrong := re.search(r"unexpected keyword argument '(\w+)'", text):
            path = _find(cfg, found['args'], wrong[1])
            if path is None:
                continue  # not a name of this component's config
            # A wrapper passes on what it gets: then the names are those of what it calls.
            passed_on = accepted_arguments(target) is None and _callee(error, text)
            return _unexpected(wrong[1], path, passed_on or target)
        if missing := re.search(r'missing \d+ required (?:positional|keyword-only) arguments?: (.+)', text):
            name = component_name(target)
            return f'{_place(cfg, name).replace(".type: ", ": ")}{name} needs {missing[1]}: give it in the config.'
    return None


def _explain_type(found: dict, text: str, cfg: Config | None) -> str | None:
    kind, registry = found.get('obj_type', found.get('scheduler_type')), found.get('registry')
    if '"type"' in text and kind is None:
        part = found['cfg']
        given = ', '.join(f'{k}={v!r}' for k, v in list(dict(part).items())[:3]) + (', ...' if len(part) > 3 else '')
        whole = plain(_known(cfg))
        paths = (path.rpartition('.')[0] for path in _paths(whole, next(iter(part), '')))
        where = next((path for path in paths if _at(whole, path) == plain(part)), 'A part of the config')
        return f'{where} has no type, it is dict({given}): give it one, or correct the name of what it should change.'
    if not isinstance(kind, str) or 'is not in the' not in text:
        return None
    root = registry
    while root.parent is not None:
        root = root.parent
    near = nearest_type(kind, registered_names(root, registry.scope))
    meant = f", the nearest is '{near}'" if near else '; a package of your own is named in custom_imports'
    return f"{_place(cfg, kind)}there is no {registry.name} '{kind}'{meant}."


def _unexpected(name: str, path: str, target: Callable) -> str:
    return unknown_argument(name, arguments(target)[0], path, component_name(target))


def _frames(error: BaseException) -> list[FrameType]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    return frames


def _callee(error: Exception, text: str) -> Callable | None:
    """What was called with a wrong argument; a wrapper's TypeError names another class than the config."""
    wanted = text.split('(')[0].removesuffix('.__init__')
    last = _frames(error)[-1]
    for value in (*last.f_locals.values(), *last.f_globals.values()):
        if callable(value) and getattr(value, '__qualname__', None) == wanted:
            return value
    return None


def _find(cfg: Config | None, args: dict, name: str) -> str | None:
    """Path of a name in a config; by itself, where the config does not have it but the component's arguments do."""
    inside = list(_paths(plain(dict(args)), name))
    if not inside:
        return None
    return next(iter(_paths(plain(_known(cfg)), name)), inside[0])


def _known(cfg: Config | None) -> dict:
    """The sections of a config that are read."""
    return {} if cfg is None else {k: cfg[k] for k in cfg if k in WHAT_IS_TRAINED | HOW_IT_RUNS}


def _at(value, path: str):
    for key in path.split('.'):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def _paths(value, name: str, path: str = '') -> Iterator[str]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        below = f'{path}.{key}' if path else str(key)
        if key == name:
            yield below
        yield from _paths(part, name, below)


def _place(cfg: Config | None, kind: str) -> str:
    """Where a type stands in a config, as the beginning of a sentence."""
    whole = plain(_known(cfg))
    for path in _paths(whole, 'type'):
        value = _at(whole, path)
        if isinstance(value, str) and value.split('.')[-1] == kind.split('.')[-1]:
            return f'{path}: '
    return ''
