"""What a config trains, and how: its settings as they come out of the resolved config, to be read and compared."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import open_clip
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS
from torch import nn

# Said elsewhere in the recipe, or no part of it.
_NOT_SETTINGS = {
    'type', 'model', 'pretrained', 'quick_gelu', 'in_channels', 'num_classes', 'anchors', 'frozen', 'norm_eval',
    'data_preprocessor', 'init_cfg', 'image_size', 'texts', 'teacher', 'topk', 'depth', 'out_indices', 'style',
    'compile',
}  # fmt: skip
# Hooks that do nothing to what is trained, or that the rest of the recipe tells.
_OTHER_HOOKS = {
    'checkpoint', 'class_info', 'epoch', 'export', 'feature_cache', 'finite_loss', 'logger', 'param_scheduler',
    'progress', 'sampler_seed', 'shot_report', 'timer', 'visualization',
}  # fmt: skip
_GPUS = 8
# Arguments of timm's models that make any of them small, for pictures of 64 pixels.
_TINY_VIT = dict(depth=2, embed_dim=64, num_heads=2, patch_size=8)


def recipe(cfg: Config, images: int | None = None) -> dict[str, str]:
    """The recipe of a config.

    The model is built with tiny towers of the same kind and random weights, so
    that optimizer groups and modes are those of the real modules.

    Args:
        cfg (Config): Of a training.
        images (int, optional): Training images of its data set, N. Without it
            epochs have no length, and rates that change by iteration are not
            told. Defaults to None.

    Returns:
        dict[str, str]: Setting to value, in the order in which they are read.
    """
    model = _tiny_model(cfg)
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    model.train()
    steps = epoch_length(cfg, images)
    train, test = (cfg[f'{name}_dataloader'].dataset.pipeline for name in ('train', 'test'))
    found = {
        'optimizer': _call(cfg.optim_wrapper.optimizer, leave=('lr', 'weight_decay')),
        'parameter groups': '; '.join(_groups(model, wrapper.optimizer)),
        'gradient clipping': _value(cfg.optim_wrapper.get('clip_grad')),
        'schedule': '; '.join(_call(s) for s in cfg.param_scheduler),
        'rates at epochs 0, 1, 5, last': '; '.join(_rates(cfg, wrapper.optimizer, steps)),
        'epochs': str(cfg.train_cfg.max_epochs),
        'batch': _batch(cfg),
        'steps of an epoch': '-' if steps is None else str(steps),
        'sampler': _call(cfg.train_dataloader.sampler),
        'training transforms': ', '.join(_transforms(train)),
        'mixing of the batch': _mixing(cfg),
        'modes in training': '; '.join(_modes(model)),
        'model': ', '.join(_settings(cfg.model)),
        'cached features': _value((cfg.default_hooks.get('feature_cache') or {}).get('views')),
        'other hooks': '; '.join(_hooks(cfg)),
        'test transforms': ', '.join(_transforms(test)),
        'kept checkpoint': f'best {_listed(cfg.default_hooks.checkpoint.save_best)} by validation'
        if cfg.default_hooks.checkpoint.get('save_best')
        else 'last',
        'metric': ', '.join(_call(e) for e in cfg.test_evaluator),
    }
    return {name: value for name, value in found.items() if value not in ('', '-', 'None')}


def epoch_length(cfg: Config, images: int | None) -> int | None:
    """Steps of an epoch at the batch that the learning rate is for.

    Args:
        cfg (Config): Of a training.
        images (int, optional): N.

    Returns:
        int | None: None where N is not known.
    """
    draws = cfg.train_dataloader.sampler.get('num_samples')
    draws = images if draws in (None, 'images') else draws
    if draws is None:
        return None
    batch = cfg.auto_scale_lr.base_batch_size
    return draws // batch if cfg.train_dataloader.get('drop_last') else math.ceil(draws / batch)


def _dicts(part) -> Iterator[dict]:
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from _dicts(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _dicts(value)


def _shrink_timm(model: ConfigDict) -> None:
    for tower in [d for d in _dicts(model) if d.get('type') == 'mmlt.TimmViT']:
        tower['options'] = dict(_TINY_VIT)
        for d in _dicts(model):
            if 'in_channels' in d:
                d['in_channels'] = _TINY_VIT['embed_dim'] * (2 if tower.get('pooling') == 'cls+avg' else 1)


def _tiny_model(cfg: Config) -> nn.Module:
    model = copy.deepcopy(cfg.model)
    _shrink_timm(model)
    named = [d for d in _dicts(model) if d.get('type') != 'mmlt.TimmViT']
    names = {d['model'] for d in named if isinstance(d.get('model'), str)}
    for name in names:
        vision = open_clip.get_model_config(name)['vision_cfg']
        tiny = 'mmlt-tiny-vit' if isinstance(vision['layers'], int) else 'mmlt-tiny-rn'
        config = open_clip.get_model_config(tiny)
        widths = {True: config['embed_dim'], False: config['vision_cfg']['width']}
        projected = all(d.get('projection', True) for d in _dicts(model))
        for d in _dicts(model):
            if d.get('model') == name:
                d['model'] = tiny
            if 'in_channels' in d:
                d['in_channels'] = widths[projected]
    for d in _dicts(model):
        for key, value in (('pretrained', None), ('anchors', None), ('init_cfg', None), ('num_classes', 10)):
            if key in d:
                d[key] = value
        if d.get('image_size'):
            d['image_size'] = 64
    return MODELS.build(model)


def _part(name: str) -> str:
    """A parameter's part of the model, such as ``backbone`` or ``head.mlp``."""
    words = name.split('.')
    return words[0] if words[0] == 'backbone' and 'adapters' not in words else '.'.join(words[: min(2, len(words) - 1)])


def _groups(model: nn.Module, optimizer) -> list[str]:
    """Parts of the model by learning rate and weight decay; vectors apart from the rest where they differ."""
    names = {id(p): n for n, p in model.named_parameters()}
    by_setting: dict[tuple, dict[str, set]] = {}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            if parameter.requires_grad:
                kind = 'vectors' if parameter.ndim == 1 else 'rest'
                parts = by_setting.setdefault((group['lr'], group['weight_decay']), {})
                parts.setdefault(_part(names[id(parameter)]), set()).add(kind)
    lines = []
    for (lr, decay), parts in sorted(by_setting.items(), reverse=True):
        told = [part + (' (vectors)' if kinds == {'vectors'} else '') for part, kinds in parts.items()]
        lines.append(f'lr {lr:g}, decay {decay:g}: {", ".join(told)}')
    return lines


def _rates(cfg: Config, optimizer, steps: int | None) -> list[str]:
    """Learning rate at the beginning of epochs 0, 1, 5 and the last, of every rate that there is."""
    last = cfg.train_cfg.max_epochs - 1
    by_iteration = any(s.get('convert_to_iter_based') or s.get('by_epoch') is False for s in cfg.param_scheduler)
    if by_iteration and steps is None:
        return ['changes by iteration']
    lines = []
    for base in sorted({g['lr'] for g in optimizer.param_groups}, reverse=True):
        dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base)
        by_epoch, by_step = _schedulers(cfg, dummy, steps or 1)
        rates = []
        for _ in range(last + 1):
            rates.append(dummy.param_groups[0]['lr'])
            dummy.step()
            for _ in range(steps if by_step else 0):
                for scheduler in by_step:
                    scheduler.step()
            for scheduler in by_epoch:
                scheduler.step()
        lines.append(', '.join(f'{rates[min(e, last)]:.3g}' for e in (0, 1, 5, last)))
    return lines


def _schedulers(cfg: Config, optimizer, steps: int) -> tuple[list, list]:
    """The config's schedulers, those by epoch and those by iteration, as MMEngine's Runner builds them."""
    by_epoch: list = []
    by_step: list = []
    for scheduler in cfg.param_scheduler:
        settings = dict(scheduler)
        convert, epochwise = settings.pop('convert_to_iter_based', False), settings.get('by_epoch', True)
        settings.setdefault('end', cfg.train_cfg.max_epochs * (1 if epochwise else steps))
        if convert:
            kind = PARAM_SCHEDULERS.get(settings.pop('type'))
            by_step.append(kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=steps, **settings))
        else:
            built = PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optimizer))
            (by_epoch if epochwise else by_step).append(built)
    return by_epoch, by_step


def _batch(cfg: Config) -> str:
    size, base = cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size
    return f'{size} x {base // size} GPU{"s" if base != size else ""} = {base}'


def _modes(model: nn.Module) -> list[str]:
    """What is trained, and in which mode, of every part."""
    parts = [(n, m) for n, m in model.named_children() if n not in ('data_preprocessor', 'loss_module', 'distill_loss')]
    text = getattr(getattr(model, 'head', None), 'text', None)
    lines = []
    for name, part in [*parts, *([('head.text', text)] if isinstance(text, nn.Module) else [])]:
        own = [p for n, p in part.named_parameters() if not (name == 'head' and n.startswith('text.'))]
        if not own:
            continue
        norms = {m.training for m in part.modules() if isinstance(m, nn.modules.batchnorm._NormBase)}
        trained = sum(p.requires_grad for p in own)
        state = 'trained' if trained == len(own) else 'frozen' if not trained else 'trained in part'
        mode = '' if not norms else ', BatchNorm in train mode' if True in norms else ', BatchNorm in eval mode'
        lines.append(f'{name} {state}{mode}')
    return lines


def _settings(model: ConfigDict, prefix: str = '') -> list[str]:
    """Arguments of the model and its parts, but what the rest of the recipe says."""
    found = []
    for key, value in model.items():
        if key in _NOT_SETTINGS:
            continue
        if isinstance(value, dict) and 'type' in value and key in ('backbone', 'neck', 'head', 'text', 'classifier'):
            found += _settings(value, f'{prefix}{key}.' if key != 'classifier' else prefix)
        else:
            found.append(f'{prefix}{key}={_value(value)}')
    return found


def _mixing(cfg: Config) -> str:
    preprocessor = cfg.model.get('data_preprocessor') or {}
    mixing = preprocessor.get('batch_augments')
    if not mixing:
        return ''
    parts = zip(mixing.augments, mixing.get('probs') or [None])
    return ', '.join(f'{_call(augment)} in {probability:.0%}' for augment, probability in parts)


def _hooks(cfg: Config) -> Iterator[str]:
    """What makes weights beside the optimizer: averaged weights, merged ones, class means and the like."""
    own = {name: hook for name, hook in cfg.default_hooks.items() if name not in _OTHER_HOOKS and hook}
    for hook in [*own.values(), *(cfg.get('custom_hooks') or [])]:
        # Of the models that are merged it is told how many each subset has.
        yield _call({k: [len(group) for group in v] if k == 'groups' else v for k, v in hook.items()})


def _transforms(pipeline: list[ConfigDict]) -> Iterator[str]:
    for transform in pipeline:
        if transform.type not in ('LoadImageFromFile', 'mmlt.LoadPicture', 'PackInputs', 'NumpyToPIL', 'PILToNumpy'):
            yield _call(transform, leave=('backend', 'hparams', 'direction', 'fill_color', 'fill_std'))


def _call(part: dict, leave: tuple[str, ...] = ()) -> str:
    """A component as ``Type(argument=value)``."""
    arguments = [f'{k}={_value(v)}' for k, v in part.items() if k != 'type' and k not in leave and k != '_delete_']
    name = part['type'].removeprefix('mmlt.')
    return f'{name}({", ".join(arguments)})' if arguments else name


def _value(value) -> str:
    if isinstance(value, dict):
        return _call(value) if 'type' in value else ', '.join(f'{k}={_value(v)}' for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return '[' + ', '.join(_value(v) for v in value) + ']'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _listed(names: str | list[str]) -> str:
    return names if isinstance(names, str) else ', '.join(names)
