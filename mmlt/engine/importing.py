"""What the importers of published checkpoints share: a model to fill, a checkpoint to write."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from torch import nn

from mmlt.datasets.class_names import class_list, config_classes
from mmlt.errors import InputError
from mmlt.version import __version__


def build_to_fill(path: str, options: dict | None = None) -> tuple[Config, nn.Module]:
    """A config's model with random weights, to be filled with those of OpenAI's kind.

    Towers are built with QuickGELU, as all published models of these methods
    have it, and without a teacher.

    Args:
        path (str): The config.
        options (dict, optional): Changes, as by ``--cfg-options``.
            Defaults to None.

    Returns:
        tuple: The config, and its model.

    Raises:
        InputError: There is no such config.
    """
    if not osp.isfile(path):
        raise InputError(f"The config '{path}' does not exist; those of mmlt are under configs/.")
    cfg = Config.fromfile(path)
    if options:
        cfg.merge_from_dict(options)
    built = cfg.copy()
    for part in _dicts(built.model):
        if str(part.get('type')).startswith('mmlt.OpenCLIP'):
            part.pretrained, part.quick_gelu = None, True
    if built.model.get('teacher'):
        built.model.teacher, built.model.ratio = None, 1.0
    MMLogger.get_current_instance().setLevel('WARNING')
    return cfg, MODELS.build(built.model)


def tell_classes(cfg: Config, model: nn.Module, classes: str | None) -> tuple[str, ...] | None:
    """Tell a model's head the classes, so that they travel with its checkpoint.

    Args:
        cfg (Config): Its config, which may know them.
        model (nn.Module): With a head.
        classes (str, optional): See :func:`class_list`. None for those of the
            config.

    Returns:
        tuple[str, ...] | None: Class names, if they are known.
    """
    names = class_list(classes) if classes else config_classes(cfg)
    if names is not None and hasattr(model.head, 'set_class_info'):
        model.head.set_class_info(names)
    return names


def write_imported(path: str, cfg: Config, model: nn.Module, classes: Sequence[str] | None, source: str) -> None:
    """Write a checkpoint as a training would.

    Args:
        path (str): The file.
        cfg (Config): The model's config.
        model (nn.Module): The filled model.
        classes (Sequence[str], optional): Class names, if they are known.
        source (str): The published file's name, which is noted.
    """
    meta = dict(mmlt_version=__version__, cfg=cfg.pretty_text, imported_from=osp.basename(source))
    if classes is not None:
        meta['dataset_meta'] = dict(classes=list(classes))
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    torch.save(dict(meta=meta, state_dict=model.state_dict()), f'{path}.part')
    os.replace(f'{path}.part', path)


def _dicts(value):
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _dicts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _dicts(part)
