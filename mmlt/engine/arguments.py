"""Names in a config that nothing knows: found before anything is built, or told in one sentence when it fails.

MMEngine hands the arguments of a config to classes as they are. A misspelt one
ends in Python's TypeError from deep inside, after whatever was done before, and
in some places (``train_cfg``, ``optim_wrapper.paramwise_cfg``) it is not even
noticed. Here every name of a config is compared with what the class takes.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

import mmengine.registry as mmengine_registries
import mmpretrain.registry as mmpretrain_registries
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import LOOPS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from mmlt.engine.checkpoint import plain
from mmlt.engine.identity import HOW_IT_RUNS, WHAT_IS_TRAINED, helpers
from mmlt.errors import InputError

# What builders take out of a component's config before the component sees it.
_BUILDERS = {'type', '_scope_', '_delete_', 'priority', 'convert_to_iter_based'}

# Sections without a type, and what MMEngine reads of them.
_SECTIONS = {
    'auto_scale_lr': ('base_batch_size', 'enable'),
    'env_cfg': ('cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'),
    'randomness': ('deterministic', 'diff_rank_seed', 'seed'),
}
_LOADER = {'dataset', 'sampler', 'batch_sampler', 'worker_init_fn', 'collate_fn', 'num_batch_per_epoch'}
_PARAMWISE = {
    'bias_decay_mult',
    'bias_lr_mult',
    'bypass_duplicate',
    'custom_keys',
    'dcn_offset_lr_mult',
    'dwconv_decay_mult',
    'flat_decay_mult',
    'norm_decay_mult',
}


def check_names(given: Collection[str], known: Collection[str], path: str, who: str, slips: bool = False) -> None:
    """Compare names with those that are known.

    Args:
        given (Collection[str]): Names in a config.
        known (Collection[str]): All that there are.
        path (str): Where they stand, for example 'model.head'.
        who (str): Who takes them, the beginning of a sentence.
        slips (bool): Only names that are near to a known one, which is not
            given: somebody may take the others out before they get there.
            Defaults to False.

    Raises:
        InputError: One is not known; names it, the nearest and all.
    """
    free = set(known) - set(given)
    for name in given:
        if name not in known and (not slips or any(_is_slip(name, other) for other in free)):
            raise InputError(_unknown(name, known, f'{path}.{name}' if path else name, who))


def _unknown(name: str, known: Collection[str], path: str, who: str) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    meant = f", the nearest is '{near[0]}'" if near else ''
    return f"{path}: {who} has no argument '{name}'{meant}; it takes {', '.join(sorted(known)) or 'none'}."


def accepted_arguments(target: Callable) -> set[str] | None:
    """Names that a class or function can be called with.

    ``**kwargs`` that only go to ``super().__init__`` are followed there.

    Args:
        target (Callable): A class, function or ``functools.partial``.

    Returns:
        set[str] | None: Names; None where it may take any, or does not tell.
    """
    if not inspect.isclass(target):
        given = target.keywords if isinstance(target, functools.partial) else {}
        if isinstance(target, functools.partial):
            target = target.func
        names, rest = _signature(target)
        return None if names is None or rest is not None else names - set(given)
    names = set()
    for owner in target.__mro__:
        if owner in (object, nn.Module):
            return names
        if '__init__' not in vars(owner):
            continue
        own, rest = _signature(owner.__init__)
        if own is None:
            return None
        names |= own - {'self'}
        if rest is None:
            return names
        taken = _taken_out(owner.__init__, rest)
        if taken is None:
            return None
        names |= taken
    return names


def _signature(function: Callable) -> tuple[set[str] | None, str | None]:
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
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr == '__init__':
                understood |= {k.value for k in node.keywords if k.arg is None}
            on_kwargs = isinstance(node.func, ast.Attribute) and getattr(node.func.value, 'id', None) == kwargs
            if on_kwargs and node.func.attr in ('pop', 'get', 'setdefault') and isinstance(node.args[0], ast.Constant):
                understood.add(node.func.value)
                names.add(node.args[0].value)
    uses = {n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == kwargs}
    return frozenset(names) if uses <= understood and uses else None


def _registries() -> Iterator[Registry]:
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


class _Types:
    """What types name.

    Args:
        scope (str): Of names without one.
    """

    def __init__(self, scope: str):
        self.scope = scope
        self._known: dict = {}

    def find(self, kind) -> list[Callable]:
        """What a type may name, in any registry."""
        if not isinstance(kind, str):
            return [kind] if callable(kind) else []
        if kind not in self._known:
            found = [self._look_up(root, kind) for root in _registries()]
            if all(one is None for one in found):  # a path to import, or what registries find in other ways
                found = [root.children.get(self.scope, root).get(kind) for root in _registries()]
            self._known[kind] = list(dict.fromkeys(one for one in found if one is not None))
        return self._known[kind]

    def _look_up(self, root: Registry, kind: str) -> Callable | None:
        """As ``root.get``, which for every name that it does not have tries to import a module."""
        scope, name = Registry.split_scope_key(kind)
        for registry in (root.children.get(scope or self.scope, root), root):
            registry.import_from_location()
            if name in registry.module_dict:
                return registry.module_dict[name]
        return None


def _registered(registry: Registry, scope: str) -> set[str]:
    """Names below a registry, as a config of a scope gives them."""
    registry.import_from_location()
    own = registry.scope in (scope, 'mmengine', 'mmcv') or registry.parent is None
    names = {name if own else f'{registry.scope}.{name}' for name in registry.module_dict}
    return names.union(*(_registered(child, scope) for child in registry.children.values()))


def nearest_type(kind: str, names: Collection[str], cutoff: float = 0.6) -> str | None:
    """The registered name that is nearest to one that is not, with or without its scope."""
    bare = {name.split('.')[-1].lower(): name for name in sorted(names)}
    near = difflib.get_close_matches(kind.split('.')[-1].lower(), bare, 1, cutoff)
    return bare[near[0]] if near else None


def check_arguments(cfg: Config, prefix: str = '', keys: Collection[str] | None = None) -> None:
    """Compare every name of a config with what the component takes that gets it.

    Nothing is built. What cannot be known before (classes that hand their
    arguments on to somewhere else) is left to :func:`explained`.

    Args:
        cfg (Config): Of one stage.
        prefix (str): Before every path, for example 'stages.phase_a.options.'.
            Defaults to ''.
        keys (Collection[str], optional): Top-level keys to look at. Defaults to
            None, all.

    Raises:
        InputError: A name that is not known; says where, and the nearest one.
    """
    types = _Types(cfg.get('default_scope') or 'mmengine')
    if keys is None:
        _check_top(cfg, prefix)
    for key in cfg:
        if (keys is None or key in keys) and key in WHAT_IS_TRAINED | HOW_IT_RUNS and key != 'stages':
            _check_section(key, cfg[key], f'{prefix}{key}', types)


def _check_top(cfg: Config, prefix: str) -> None:
    """A top-level setting one slip away from a known one, which nothing in the file uses, would change nothing."""
    known = WHAT_IS_TRAINED | HOW_IT_RUNS
    own = helpers(cfg)
    for name in cfg:
        near = None if name in known or name in own else next((k for k in known if _one_slip(name, k)), None)
        if near:
            raise InputError(f"{prefix}{name}: nothing reads a setting of this name; the nearest is '{near}'.")


def _is_slip(a: str, b: str) -> bool:
    return _one_slip(a, b) or difflib.SequenceMatcher(None, a, b).ratio() >= 0.85


def _one_slip(a: str, b: str) -> bool:
    """Whether two words differ by one letter: missing, too many, another, or two exchanged."""
    if abs(len(a) - len(b)) > 1:
        return False
    i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    if len(a) != len(b):
        longer, shorter = (a, b) if len(a) > len(b) else (b, a)
        return longer[i + 1 :] == shorter[i:]
    return a[i + 1 :] == b[i + 1 :] or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])


def _check_section(key: str, value, path: str, types: _Types) -> None:
    if not isinstance(value, (dict, list, tuple)):
        return
    if key in _SECTIONS:
        check_names(value, _SECTIONS[key], path, f'MMEngine ({key})', slips=key == 'env_cfg')
    elif key in ('train_cfg', 'val_cfg', 'test_cfg'):
        _check_loop(key, value, path, types)
    elif key.endswith('_dataloader') and isinstance(value, dict):
        check_names(value, _LOADER | accepted_arguments(DataLoader), path, 'A dataloader')
        _check_components(value, path, types)
    elif key == 'optim_wrapper' and isinstance(value, dict):
        _check_optimizer(value, path, types)
    else:
        _check_components(value, path, types)


def _check_loop(key: str, value: dict, path: str, types: _Types) -> None:
    default = {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}.get(key)
    kind = value.get('type') or default
    if kind is None:
        loops = [EpochBasedTrainLoop if value.get('by_epoch', True) else IterBasedTrainLoop]
    else:
        loops = [loop for loop in types.find(kind) if inspect.isclass(loop)]
    for loop in loops[:1]:
        if (known := accepted_arguments(loop)) is not None:
            known = (known | {'type', 'by_epoch'}) - {'runner', 'dataloader', 'evaluator'}
            check_names(value, known, path, f'{loop.__name__}')
    if isinstance(kind, str) and not loops:
        _check_type(value, path, [LOOPS], types.scope)


def _check_optimizer(value: dict, path: str, types: _Types) -> None:
    constructor = value.get('constructor', 'DefaultOptimWrapperConstructor')
    found = types.find(constructor)
    if isinstance(constructor, str) and not found:
        _check_type(dict(type=constructor), f'{path}.constructor', [OPTIM_WRAPPER_CONSTRUCTORS], types.scope)
    ours = [c for c in found if inspect.isclass(c) and c.__module__.split('.')[0] in ('mmengine', 'mmlt', 'mmpretrain')]
    kinds = types.find(value.get('type', 'OptimWrapper'))
    if 'type' in value and not kinds:
        _check_type(value, path, [OPTIM_WRAPPERS], types.scope)
    if ours and kinds and (known := accepted_arguments(kinds[0])) is not None:
        known = known | {'type', 'constructor', 'optimizer', 'paramwise_cfg'}
        check_names(value, known, path, kinds[0].__name__)
    paramwise = value.get('paramwise_cfg')
    if paramwise and found == [DefaultOptimWrapperConstructor]:
        check_names(paramwise, _PARAMWISE, f'{path}.paramwise_cfg', 'DefaultOptimWrapperConstructor', slips=True)
        for name, own in (paramwise.get('custom_keys') or {}).items():
            check_names(
                own, ('lr_mult', 'decay_mult'), f'{path}.paramwise_cfg.custom_keys.{name}', 'A custom key', slips=True
            )
    if isinstance(value.get('optimizer'), dict):
        _check_components(value['optimizer'], f'{path}.optimizer', types)


def _check_components(value, path: str, types: _Types) -> None:
    """Every dict with a type, and those inside of it."""
    if isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            _check_components(part, f'{path}.{i}', types)
        return
    if not isinstance(value, dict):
        return
    types = _Types(value['_scope_']) if value.get('_scope_') else types
    if value.get('type') is not None:
        candidates = types.find(value['type'])
        if not candidates and isinstance(value['type'], str):
            _check_type(value, path, list(_registries()), types.scope, 0.85)
        known = [accepted_arguments(one) for one in candidates]
        given = [name for name in value if name not in _BUILDERS]
        if known and None not in known and not any(names.issuperset(given) for names in known):
            best = max(range(len(known)), key=lambda i: len(known[i].intersection(given)))
            check_names(given, known[best], path, _name(candidates[best]), slips=True)
    for name, part in value.items():
        _check_components(part, f'{path}.{name}', types)


def _check_type(value: dict, path: str, registries: list[Registry], scope: str, cutoff: float = 0.6) -> None:
    """A type that no registry has; where none is near, it may be no component at all, and building it decides."""
    given = Registry.split_scope_key(value['type'])[0]
    if given not in (None, scope, 'mmengine', 'mmcv', 'mmpretrain', 'mmlt'):
        return  # of a package that is not here
    names = set().union(*(_registered(registry, scope) for registry in registries))
    if near := nearest_type(value['type'], names, cutoff):
        raise InputError(f"{path}.type: there is no '{value['type']}', the nearest is '{near}'.")


def _name(target: Callable) -> str:
    target = target.func if isinstance(target, functools.partial) else target
    return getattr(target, '__name__', type(target).__name__)


@contextmanager
def explained(cfg: Config | None = None):
    """Turn what Python says of a config's unknown, or missing, names into one sentence.

    Args:
        cfg (Config, optional): Where the name is looked for. Defaults to None.

    Raises:
        InputError: In place of a TypeError or KeyError of a component that a
            registry built.
    """
    try:
        yield
    except (KeyError, TypeError) as e:
        sentence = explain(e, cfg)
        if sentence is None:
            raise
        raise InputError(sentence) from e


def explain(error: Exception, cfg: Config | None = None) -> str | None:
    """The sentence for an error of a component that was built from a config.

    Args:
        error (Exception): As caught, with its traceback.
        cfg (Config, optional): See :func:`explained`. Defaults to None.

    Returns:
        str | None: None where the config is not to blame.
    """
    frames = [frame for frame in _frames(error) if frame.f_code.co_name == 'build_from_cfg']
    text = str(error.args[0] if error.args else error)
    for frame in reversed(frames):
        found = frame.f_locals
        if isinstance(error, KeyError):
            return _explain_type(found, text, cfg)
        target = found.get('obj_cls')
        if target is None:
            continue
        if wrong := re.search(r"unexpected keyword argument '(\w+)'", text):
            path = _find(cfg, found['args'], wrong[1])
            if path is None:
                continue  # not a name of this component's config
            callee = _callee(error, text) or target
            return _unexpected(wrong[1], path, callee)
        if missing := re.search(r'missing \d+ required (?:positional|keyword-only) arguments?: (.+)', text):
            name = _name(target)
            return f'{_place(cfg, name)}{name} needs {missing[1]}: give it in the config.'
    return None


def _explain_type(found: dict, text: str, cfg: Config | None) -> str | None:
    kind, registry = found.get('obj_type'), found.get('registry')
    if '"type"' in text and kind is None:
        given = ', '.join(f'{k}={v!r}' for k, v in list(dict(found['cfg']).items())[:3])
        return f'A part of the config has no type: dict({given}{", ..." if len(found["cfg"]) > 3 else ""}).'
    if not isinstance(kind, str) or 'is not in the' not in text:
        return None
    root = registry
    while root.parent is not None:
        root = root.parent
    near = nearest_type(kind, _registered(root, registry.scope))
    meant = f", the nearest is '{near}'" if near else '; a package of your own is named in custom_imports'
    return f"{_place(cfg, kind)}there is no {registry.name} '{kind}'{meant}."


def _unexpected(name: str, path: str, target: Callable) -> str:
    known = accepted_arguments(target)
    if known is None:
        known = _signature(target.__init__ if inspect.isclass(target) else target)[0] or set()
    return _unknown(name, known - {'self'}, path, _name(target))


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
    kept = {k: cfg[k] for k in cfg if k in WHAT_IS_TRAINED | HOW_IT_RUNS} if cfg is not None else {}
    return next(iter(_paths(plain(kept), name)), inside[0])


def _paths(value, name: str, path: str = '') -> Iterator[str]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        below = f'{path}.{key}' if path else str(key)
        if key == name:
            yield below
        yield from _paths(part, name, below)


def _place(cfg: Config | None, kind: str) -> str:
    """Where a type stands in a config, as the beginning of a sentence."""
    if cfg is None:
        return ''
    for path in _paths(plain({k: cfg[k] for k in cfg if k in WHAT_IS_TRAINED | HOW_IT_RUNS}), 'type'):
        value = plain(cfg)
        for key in path.split('.'):
            value = value[int(key)] if isinstance(value, list) else value[key]
        if isinstance(value, str) and value.split('.')[-1] == kind.split('.')[-1]:
            return f'{path}: '
    return ''
