"""What the importers of published checkpoints share: a model to fill, a checkpoint to write."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel

from mmlt.checkpoints import whole_file
from mmlt.datasets.texts.class_names import class_list, config_classes
from mmlt.engine.configs import build_model, read_config
from mmlt.errors import InputError
from mmlt.utils.class_info import ClassInfo
from mmlt.version import __version__


def build_to_fill(path: str, options: dict | None = None) -> tuple[Config, BaseModel]:
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
        InputError: See :func:`read_config` and :func:`build_model`.
    """
    cfg = read_config(path, options)
    built = cfg.copy()
    for part in _dicts(built.model):
        if str(part.get('type')).startswith('mmlt.OpenCLIP'):
            part.pretrained, part.quick_gelu = None, True
    if built.model.get('teacher'):
        built.model.teacher, built.model.loss_ratio = None, 1.0
    MMLogger.get_current_instance().setLevel('WARNING')
    return cfg, build_model(built.model)


def tell_head_classes(cfg: Config, model: BaseModel, classes: str | None) -> tuple[str, ...] | None:
    """Tell a model's head the classes, so that they travel with its checkpoint.

    Args:
        cfg (Config): Its config, which may know them.
        model (BaseModel): With a head.
        classes (str, optional): See :func:`class_list`. None for those of the
            config.

    Returns:
        tuple[str, ...] | None: Class names, if they are known.

    Raises:
        InputError: The list has not as many names as the config has classes.
    """
    known = config_classes(cfg)
    names = class_list(classes) if classes else known
    if known is not None and len(names) != len(known):
        raise InputError(
            f"The class list '{classes}' has {len(names)} names, but the config's test set has {len(known)} classes: "
            'give the list of the data set that the checkpoint was trained on.'
        )
    if names is not None and hasattr(model.head, 'set_class_info'):
        model.head.set_class_info(ClassInfo(names))
    return names


def check_out(path: str) -> None:
    """Whether a file can be written there, before anything is computed for it.

    Args:
        path (str): The file; folders above it may be missing.

    Raises:
        InputError: It is a folder, or nothing can be written where it lies.
    """
    if osp.isdir(path):
        raise InputError(
            f"--out '{path}' is a folder: give the name of a file in it, for example "
            f"'{osp.join(path, 'converted.pth')}'."
        )
    above = osp.dirname(osp.abspath(path))
    while not osp.exists(above):
        above = osp.dirname(above)
    if not osp.isdir(above) or not os.access(above, os.W_OK):
        raise InputError(f"--out '{path}' cannot be written: '{above}' is no folder that you may write in.")


def write_imported(path: str, cfg: Config, model: BaseModel, classes: Sequence[str] | None, source: str) -> None:
    """Write a checkpoint as a training would.

    Args:
        path (str): The file, see :func:`check_out`.
        cfg (Config): The model's config.
        model (BaseModel): The filled model.
        classes (Sequence[str], optional): Class names, if they are known.
        source (str): The published file's name, which is noted.
    """
    meta = dict(mmlt_version=__version__, cfg=cfg.pretty_text, imported_from=osp.basename(source))
    if classes is not None:
        meta['dataset_meta'] = dict(classes=list(classes))
    with whole_file(path) as part:
        torch.save(dict(meta=meta, state_dict=model.state_dict()), part)


def _dicts(value):
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _dicts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _dicts(part)
