"""Config files and the models of them, with one sentence for what is wrong there."""

from __future__ import annotations

import os.path as osp

from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from mmlt.engine.build_errors import explain
from mmlt.errors import InputError


def read_config(path: str, options: dict | None = None) -> Config:
    """Read a config file of a model.

    Args:
        path (str): The file.
        options (dict, optional): Changes, as by ``--cfg-options``.
            Defaults to None.

    Returns:
        Config: With the changes.

    Raises:
        InputError: There is no such file; it is no config, or has no model;
            changes that do not fit it.
    """
    if not osp.isfile(path):
        raise InputError(f"The config '{path}' does not exist; those of mmlt are under configs/.")
    try:
        cfg = Config.fromfile(path)
    except InputError as e:  # of what it loads, as a base in YAML
        raise InputError(f"The config '{path}' could not be read: {e}") from e
    except Exception as e:  # a config is a program, it may fail in any way
        raise InputError(
            f"The config '{path}' could not be read ({type(e).__name__}: {_one_line(e)}): give a .py file like those "
            'under configs/.'
        ) from e
    change_config(cfg, options)
    if not isinstance(cfg.get('model'), dict):
        raise InputError(f"The config '{path}' has no model: give one like those under configs/.")
    return cfg


def change_config(cfg: Config, options: dict | None) -> None:
    """Change a config in place, as by ``--cfg-options``.

    Raises:
        InputError: The changes do not fit it.
    """
    try:
        cfg.merge_from_dict(options or {})
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError) as e:
        raise InputError(f'The settings {options} do not fit the config: {_one_line(e)}') from e


def build_model(model: dict) -> nn.Module:
    """Build a config's model.

    Args:
        model (dict): Its config.

    Returns:
        nn.Module: With random weights.

    Raises:
        InputError: A name or an argument that does not exist, or is missing.
    """
    try:
        return MODELS.build(model)
    except (KeyError, TypeError) as e:
        if (sentence := explain(e, Config(dict(model=model)))) is None:
            raise
        raise InputError(f"The config's model cannot be built: {sentence}") from e


def _one_line(error: Exception) -> str:
    return ' '.join(str(error.args[0] if error.args else error).split())[:200]
