"""Which training a config asks for: everything in it but what is listed here.

A finished training is taken for the one that is asked for now if nothing that
may change its result differs. So the lists below name what certainly does not:
what is logged, where files lie, how fast it runs and on how many processes, in
which precision, what is looked at beside. All else counts, also what no one
thought of yet.
"""

from __future__ import annotations

import ast
import copy
import re

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from mmlt.checkpoints.comparison import first_difference, plain
from mmlt.engine.data_digest import data_digest
from mmlt.errors import InputError

# Of a record; those without a version tell of a few keys only, see `comparable`.
VERSION = 2

# Top-level settings of how a training runs, and of what is looked at beside.
HOW_IT_RUNS = frozenset(
    {
        'activation_checkpointing',
        'compile',
        'custom_imports',  # the components that are used are named where they are used
        'efficient_conv_bn_eval',
        'env_cfg',
        'experiment_name',
        'find_unused_parameters',
        'launcher',
        'log_level',
        'log_processor',
        'parallel',
        'precision',
        'resume',
        'stage_name',
        'test_cfg',
        'test_dataloader',
        'test_evaluator',
        'tta_model',
        'tta_pipeline',
        'val_cfg',
        'val_dataloader',
        'val_evaluator',
        'vis_backends',
        'visualizer',
        'work_dir',
    }
)

# Top-level settings of what is trained; a file's other variables are those that it uses itself, see `helpers`.
WHAT_IS_TRAINED = frozenset(
    {
        'auto_scale_lr',
        'custom_hooks',
        'data_preprocessor',
        'default_hooks',
        'default_scope',
        'load_from',
        'model',
        'model_wrapper_cfg',
        'optim_wrapper',
        'param_scheduler',
        'randomness',
        'runner_type',
        'stages',
        'sync_bn',
        'train_cfg',
        'train_dataloader',
    }
)

_LOADER = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'timeout', 'multiprocessing_context')
_PLAIN_COLLATE = ('default_collate', 'pseudo_collate')
_WRAPPER = (
    'find_unused_parameters',
    'static_graph',
    'bucket_cap_mb',
    'gradient_as_bucket_view',
    'device_ids',
    'output_device',
    'detect_anomalous_params',
)
PRECISION = ('OptimWrapper', 'AmpOptimWrapper', 'BFloat16OptimWrapper')
_VALIDATION_TIMES = ('val_interval', 'val_begin', 'dynamic_intervals')

# Hooks that look on, and arguments of hooks that do not change what is learned.
_LOOK_ON = frozenset(
    {
        'CheckpointGuardHook',
        'CheckpointHook',
        'ClassNumCheckHook',
        'DataTimeHook',
        'EmptyCacheHook',
        'FiniteLossHook',
        'FiniteScoresHook',
        'IterTimerHook',
        'LoggerHook',
        'MemoryProfilerHook',
        'PredictionPicturesHook',
        'ProfilerHook',
        'ProgressBarHook',
        'RandomNumbersHook',
        'RuntimeInfoHook',
        'ShotReportHook',
        'VisualizationHook',
    }
)
_LOOKS = {'FeatureCacheHook': ('batch_size', 'directory'), 'MOREHook': ('interval', 'protocol')}

# MMEngine joins the texts of a config and its bases, each after a line with its path.
_FILE_NAME = re.compile(r'^([^\s#\'"=()\[\]](?:[^\n#\'"=()\[\]]*)\.(?:py|ya?ml|json))$', re.MULTILINE)

# Those that MMEngine registers by itself, unless a config says None.
_ALWAYS = {'sampler_seed': 'DistSamplerSeedHook', 'param_scheduler': 'ParamSchedulerHook'}


def decisive(cfg: Config) -> dict:
    """The part of a config that decides the result of its training.

    Args:
        cfg (Config): Of one stage, before earlier stages are filled in.

    Returns:
        dict: Plain values by top-level key; None and absent are the same.
    """
    without = HOW_IT_RUNS | helpers(cfg)
    part = {key: plain(cfg.get(key)) for key in cfg if key not in without}
    part.update(_result(cfg))
    return _normalise(part)


def _normalise(part: dict) -> dict:
    """Leave out, inside of the sections, what does not decide; in the record of an earlier version as well."""
    part = plain(part)
    if loader := part.get('train_dataloader'):
        part['train_dataloader'] = _loader(loader)
    if part.get('train_cfg'):
        part['train_cfg'] = {k: v for k, v in part['train_cfg'].items() if k not in _VALIDATION_TIMES}
    part['model'] = _without_compile(part.get('model'))
    if part.get('optim_wrapper'):
        part['optim_wrapper'] = _optimizer(part['optim_wrapper'])
    if not (part.get('auto_scale_lr') or {}).get('enable'):
        part.pop('auto_scale_lr', None)  # only a hint then
    wrapper = {k: v for k, v in (part.pop('model_wrapper_cfg', None) or {}).items() if k not in _WRAPPER}
    if wrapper and wrapper != {'type': 'MMDistributedDataParallel'}:
        part['model_wrapper_cfg'] = wrapper
    hooks = {key: dict(type=name) for key, name in _ALWAYS.items()}
    hooks.update(part.get('default_hooks') or {})
    part['default_hooks'] = {
        key: hook for key, hook in ((key, _hook(hook)) for key, hook in hooks.items()) if hook or key in _ALWAYS
    }
    part['custom_hooks'] = [hook for hook in map(_hook, part.get('custom_hooks') or ()) if hook] or None
    partial = {  # a whole checkpoint is the rule and not recorded; which training it is of, `stage_ids` tells
        name: dict(load_from=stage['load_from'])
        for name, stage in (part.get('stages') or {}).items()
        if isinstance(stage.get('load_from'), str)
    }
    part['stages'] = partial or None
    return {key: value for key, value in part.items() if value is not None}


def _without_compile(model):
    """A model's config; that its parts are compiled changes nothing of what they compute."""
    if isinstance(model, dict):
        return {key: _without_compile(value) for key, value in model.items() if key != 'compile'}
    return [_without_compile(value) for value in model] if isinstance(model, list) else model


def _loader(loader: dict) -> dict:
    collate = loader.get('collate_fn')
    plainly = collate is None or type_name(collate) in _PLAIN_COLLATE
    return {k: v for k, v in loader.items() if k not in _LOADER and not (k == 'collate_fn' and plainly)}


def _optimizer(wrapper: dict) -> dict:
    """Without the precision, which ``--amp`` changes, and the optimizer's implementation."""
    wrapper = dict(wrapper)
    if type_name(wrapper.get('type', 'OptimWrapper')) in PRECISION:
        for key in ('type', 'loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    if isinstance(optimizer := wrapper.get('optimizer'), dict):
        wrapper['optimizer'] = {k: v for k, v in optimizer.items() if k not in ('fused', 'foreach')}
    return wrapper


def _hook(hook):
    """What of a hook decides, None where nothing does."""
    if not hook or type_name(hook) in _LOOK_ON:
        return None
    if not isinstance(hook, dict):
        return hook
    return {k: v for k, v in hook.items() if k not in _LOOKS.get(type_name(hook), ())}


def type_name(component) -> str:
    """Name of a component's class, without scope or module.

    Args:
        component (dict | str | type): Its config, or its type.

    Returns:
        str: For example 'LoggerHook' for ``dict(type='mmengine.LoggerHook')``.
    """
    kind = component.get('type') if isinstance(component, dict) else component
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return re.split(r'[./]', name.strip("<>'"))[-1]


def all_hooks(cfg: Config) -> list[dict]:
    """Configs of a config's hooks, default and custom ones."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ())]
    return [hook for hook in hooks if isinstance(hook, dict)]


def _result(cfg: Config) -> dict:
    """What validation and the transform of evaluated pictures have to do with the result."""
    hooks, part = all_hooks(cfg), {}
    best = next((hook for hook in hooks if hook.get('save_best')), None)
    schedules = cfg.get('param_scheduler') or ()
    schedules = [schedules] if isinstance(schedules, dict) else [s for s in schedules if isinstance(s, dict)]
    looked_at = any(type_name(h) == 'EarlyStoppingHook' for h in hooks)
    looked_at |= any(type_name(s).startswith('ReduceOnPlateau') for s in schedules)
    if (best is not None or looked_at) and validates(cfg):
        if best is not None:  # the best one is the result; where the last one is, nothing is recorded
            keys = ('save_best', 'rule', 'greater_keys', 'less_keys')
            part['checkpoint'] = {key: plain(best[key]) for key in keys if best.get(key) is not None}
        times = {k: v for k, v in (cfg.get('train_cfg') or {}).items() if k in _VALIDATION_TIMES}
        part['validation'] = plain(
            dict(dataloader=_loader(cfg.val_dataloader), evaluator=cfg.get('val_evaluator'), **times)
        )
    for hook in hooks:  # both see the training pictures through this one
        views = type_name(hook) == 'FeatureCacheHook' and hook.get('views', 1) == 1 and not hook.get('pipeline')
        if views or type_name(hook) == 'AnchorSelectionHook':
            loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
            part['evaluated_pipeline'] = plain((loader.get('dataset') or {}).get('pipeline'))
    return part


def validates(cfg: Config) -> bool:
    """Whether there is a validation; ``--no-validate`` takes it away."""
    return cfg.get('val_dataloader') is not None and cfg.get('val_cfg') is not None


def config_files(cfg: Config) -> list[tuple[str, str]]:
    """The file that a config was read from, and those that it inherits from.

    Args:
        cfg (Config): As read from a file.

    Returns:
        list[tuple[str, str]]: Paths and texts, the config's own first; none of
        a config that was made otherwise.
    """
    parts = _FILE_NAME.split(getattr(cfg, 'text', None) or '')
    return list(zip(parts[1::2], parts[2::2]))[::-1]


def helpers(cfg: Config) -> set[str]:
    """Variables of a config file that it uses itself, such as ``max_epochs = 20``.

    Their effect is in the settings that they went into. Others may be read by
    a hook, or by whoever comes next, and count.

    Args:
        cfg (Config): As read from a file.

    Returns:
        set[str]: Names.
    """
    used = set()
    for _, code in config_files(cfg):
        try:
            nodes = list(ast.walk(ast.parse(code)))
        except SyntaxError:  # YAML, JSON, or a text that is no file's: it uses no variables
            continue
        used |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        used |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) == '_base_'}
        used |= set(re.findall(r'_base_\.(\w+)', code))  # in a text, '{{_base_.max_epochs}}'
    return {name for name in cfg if name in used} - WHAT_IS_TRAINED - HOW_IT_RUNS


def comparable(record: dict, now: dict) -> tuple[dict, dict]:
    """A recorded training and the one asked for, as far as both can tell.

    Args:
        record (dict): A whole ``run.json``.
        now (dict): :func:`decisive` of the config asked for.

    Returns:
        tuple[dict]: What was and what is, for :func:`first_difference`.
    """
    if record.get('version', 1) >= VERSION:
        return plain(record['config']), now
    hooks = ('feature_cache', 'anchors')
    known = set(record['config']) - set(hooks)
    old = {key: record['config'][key] for key in known}
    old['default_hooks'] = {key: record['config'].get(key) for key in hooks}
    checkpoint = {k: v for k, v in (old.pop('checkpoint', None) or {}).items() if v is not None}
    old = _normalise(old) | ({'checkpoint': checkpoint} if checkpoint else {})
    # An earlier version left out what it had nothing to say of; what it never looked at is skipped.
    seen = known | {'checkpoint', 'stages', 'split_digest', 'default_hooks'}
    now = {key: value for key, value in now.items() if key in seen}
    now['default_hooks'] = {k: v for k, v in (now.get('default_hooks') or {}).items() if k in (*hooks, *_ALWAYS)}
    old['default_hooks'].update({k: v for k, v in now['default_hooks'].items() if k in _ALWAYS})
    return old, now


def resumable(stored: Config, now: Config) -> tuple[dict, dict]:
    """The recipe of a checkpoint and that of the run that goes on from it.

    Args:
        stored (Config): As the checkpoint has it, with earlier stages filled
            in; its text does not tell which variables it used itself.
        now (Config): Of the run.

    Returns:
        tuple[dict, dict]: For :func:`first_difference`.
    """
    old, new = decisive(stored), decisive(now)
    aside = {key for key in old if key not in new and key not in WHAT_IS_TRAINED} - {'checkpoint', 'validation'}
    aside |= {'load_from'}  # a resume replaces it
    if not (validates(stored) and validates(now)):
        aside |= {'checkpoint', 'validation'}
    old, new = ({k: v for k, v in recipe.items() if k not in aside} for recipe in (old, new))
    return old, new


def config_difference(record: dict, cfg: Config, ignore: tuple[str, ...] = ()) -> str | None:
    """How a config differs from a recorded one; None where it does not.

    Args:
        record (dict): A whole ``run.json``.
        cfg (Config): The config asked for.
        ignore (tuple[str, ...]): Keys that may differ. Defaults to ().

    Returns:
        str | None: See :func:`first_difference`.
    """
    old, new = comparable(record, decisive(cfg))
    if not validates(cfg):  # nothing is validated now, so nothing else can become the result
        ignore = (*ignore, 'checkpoint', 'validation')
    old, new = ({k: v for k, v in part.items() if k not in ignore} for part in (old, new))
    found = first_difference(old, new)
    if found is None or record.get('data') is None:
        return found
    moved = copy.deepcopy(old), copy.deepcopy(new)
    for part in moved:
        _drop_roots((part.get('train_dataloader') or {}).get('dataset'))
    if (other := first_difference(*moved)) is not None:
        return other
    dataset = _dataset(cfg)
    if dataset is None:
        return f'{found}, where the data cannot be read'
    return None if data_digest(dataset) == record['data'] else f'{found}, where other data lie'


def _drop_roots(value) -> None:
    if isinstance(value, dict):
        value.pop('data_root', None)
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _drop_roots(below)


def _dataset(cfg: Config):
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
            return DATASETS.build(cfg.train_dataloader.dataset)
    except (InputError, OSError):
        return None  # the data are gone, so nobody can say that they are the same
