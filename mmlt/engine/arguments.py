"""Names in a config that nothing knows: found before anything is built, or told in one sentence when it fails.

MMEngine hands the arguments of a config to classes as they are. A misspelt one
ends in Python's TypeError from deep inside, after whatever was done before, and
in some places (``train_cfg``, ``optim_wrapper.paramwise_cfg``) it is not even
noticed. Here every name of a config is compared with what the class takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection

from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    FUNCTIONS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    Registry,
)
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmpretrain.registry import BATCH_AUGMENTS
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from mmlt.engine.identity import HOW_IT_RUNS, WHAT_IS_TRAINED, helpers
from mmlt.engine.names import (
    accepted_arguments,
    arguments,
    check_argument_names,
    component_name,
    nearest_type,
    one_slip,
    registered_names,
    registries,
)
from mmlt.errors import InputError

# What builders take out of a component's config before the component sees it.
_BUILDERS = {'type', '_scope_', '_delete_', 'priority', 'convert_to_iter_based'}

# Sections without a type, and what MMEngine reads of them.
_SECTIONS = {
    'auto_scale_lr': ('base_batch_size', 'enable'),
    'env_cfg': ('cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'),
    'randomness': ('deterministic', 'diff_rank_seed', 'seed'),
}
_LOADER = {
    'batch_sampler',
    'collate_fn',
    'dataset',
    'disable_subprocess_warning',
    'num_batch_per_epoch',
    'sampler',
    'worker_init_fn',
}
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


_DATA = [DATASETS, DATA_SAMPLERS, FUNCTIONS, TRANSFORMS]

# Where a misspelt type of a section is looked for.
_OF_SECTION = {
    'custom_hooks': [HOOKS],
    'data_preprocessor': [MODELS],
    'default_hooks': [HOOKS],
    'model': [MODELS, BATCH_AUGMENTS],
    'optim_wrapper': [OPTIMIZERS],
    'param_scheduler': [PARAM_SCHEDULERS],
    'test_dataloader': _DATA,
    'test_evaluator': [EVALUATOR, METRICS],
    'train_dataloader': _DATA,
    'tta_model': [MODELS],
    'tta_pipeline': _DATA,
    'val_dataloader': _DATA,
    'val_evaluator': [EVALUATOR, METRICS],
    'visualizer': [VISBACKENDS, VISUALIZERS],
}


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
            found = [self._look_up(root, kind) for root in registries()]
            if all(one is None for one in found):  # a path to import, or what registries find in other ways
                found = [root.children.get(self.scope, root).get(kind) for root in registries()]
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


def check_arguments(cfg: Config, prefix: str = '', keys: Collection[str] | None = None) -> None:
    """Compare every name of a config with what the component takes that gets it.

    Nothing is built. What cannot be known before (classes that hand their
    arguments on to somewhere else) is left to :func:`~mmlt.engine.build_errors.explained`.

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
        near = None if name in known or name in own else next((k for k in known if one_slip(name, k)), None)
        if near:
            raise InputError(f"{prefix}{name}: nothing reads a setting of this name; the nearest is '{near}'.")


def _check_section(key: str, value, path: str, types: _Types) -> None:
    if not isinstance(value, (dict, list, tuple)):
        return
    if key in _SECTIONS:
        check_argument_names(value, _SECTIONS[key], path, f'MMEngine ({key})', slips=key == 'env_cfg')
    elif key in ('train_cfg', 'val_cfg', 'test_cfg') and isinstance(value, dict):
        _check_loop(key, value, path, types)
    elif key.endswith('_dataloader') and isinstance(value, dict):
        check_argument_names(value, _LOADER | accepted_arguments(DataLoader), path, 'A dataloader')
        if value.get('batch_sampler') is None:
            _check_number(value, 'batch_size', path)
        _check_components(value, path, types, key)
    elif key == 'optim_wrapper' and isinstance(value, dict):
        _check_optimizer(value, path, types)
    else:
        _check_components(value, path, types, key)


def _check_number(section: dict, name: str, path: str) -> None:
    """A count in a section, if it is given there: a whole number from 1."""
    value = section.get(name, 1)
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
    if not whole or value < 1:
        raise InputError(f'{path}.{name} is {value!r}: give a whole number from 1.')


def _check_loop(key: str, value: dict, path: str, types: _Types) -> None:
    for name in ('max_epochs', 'max_iters', 'val_interval') if key == 'train_cfg' else ():
        _check_number(value, name, path)
    default = {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}.get(key)
    kind = value.get('type') or default
    if kind is None:
        loops = [EpochBasedTrainLoop if value.get('by_epoch', True) else IterBasedTrainLoop]
    else:
        loops = [loop for loop in types.find(kind) if inspect.isclass(loop)]
    for loop in loops[:1]:
        if (known := accepted_arguments(loop)) is not None:
            known = (known | {'type', 'by_epoch'}) - {'runner', 'dataloader', 'evaluator'}
            check_argument_names(value, known, path, f'{loop.__name__}')
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
        check_argument_names(value, known, path, kinds[0].__name__)
    if clip := value.get('clip_grad'):
        clipper = clip_grad_value_ if clip.get('type') == 'value' else clip_grad_norm_
        known = (accepted_arguments(clipper) | {'type'}) - {'parameters'}
        check_argument_names(clip, known, f'{path}.clip_grad', clipper.__name__)
    paramwise = value.get('paramwise_cfg')
    if paramwise and found == [DefaultOptimWrapperConstructor]:
        check_argument_names(
            paramwise, _PARAMWISE, f'{path}.paramwise_cfg', 'DefaultOptimWrapperConstructor', slips=True
        )
        for name, own in (paramwise.get('custom_keys') or {}).items():
            check_argument_names(
                own, ('lr_mult', 'decay_mult'), f'{path}.paramwise_cfg.custom_keys.{name}', 'A custom key', slips=True
            )
    if isinstance(value.get('optimizer'), dict):
        _check_components(value['optimizer'], f'{path}.optimizer', types, 'optim_wrapper')


def _check_components(value, path: str, types: _Types, section: str) -> None:
    """Every dict with a type, and those inside of it."""
    if isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            _check_components(part, f'{path}.{i}', types, section)
        return
    if not isinstance(value, dict):
        return
    types = _Types(value['_scope_']) if value.get('_scope_') else types
    if value.get('type') is not None:
        candidates = types.find(value['type'])
        if not candidates and isinstance(value['type'], str):
            _check_type(value, path, _OF_SECTION.get(section, []), types.scope, 0.87)
        given = [name for name in value if name not in _BUILDERS]
        known = [arguments(one) for one in candidates]
        if known and not any(names.issuperset(given) for names, _ in known):
            best = max(range(len(known)), key=lambda i: len(known[i][0].intersection(given)))
            (names, others), who = known[best], component_name(candidates[best])
            # Where others are taken as well, two names that differ by an 's' may both be meant.
            given = [name for name in given if not others or any(_is_misspelt(name, other) for other in names)]
            check_argument_names(given, names, path, who, slips=True)
    for name, part in value.items():
        _check_components(part, f'{path}.{name}', types, section)


def _is_misspelt(name: str, other: str) -> bool:
    return one_slip(name, other) and name.removesuffix('s') != other.removesuffix('s')


def _check_type(value: dict, path: str, registries: list[Registry], scope: str, cutoff: float = 0.6) -> None:
    """A type that no registry has; where none is near, it may be no component at all, and building it decides."""
    given = Registry.split_scope_key(value['type'])[0]
    if given not in (None, scope, 'mmengine', 'mmcv', 'mmpretrain', 'mmlt'):
        return  # of a package that is not here
    names = set().union(*(registered_names(registry, scope) for registry in registries))
    if near := nearest_type(value['type'], names, cutoff):
        raise InputError(f"{path}.type: there is no '{value['type']}', the nearest is '{near}'.")
