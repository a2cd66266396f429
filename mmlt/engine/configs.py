"""Config files and the models of them, with one sentence for what is wrong there."""

from __future__ import annotations

import difflib
import os.path as osp
from pathlib import Path

from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from mmlt.engine.build_errors import explain
from mmlt.errors import InputError

CONFIGS = Path(__file__).parents[1] / 'configs'  # those of mmlt itself


def config_names() -> dict[str, Path]:
    """Files of mmlt's own configs by their names, bases left out."""
    return {p.stem: p for p in sorted(CONFIGS.glob('*/*.py')) if p.parent.name != '_base_'}


def find_config(name: str) -> str:
    """The file of a config.

    Args:
        name (str): A file, or the name of one of mmlt's own, such as
            'vlltr_tiny_mnist-lt', also as 'configs/vlltr/vlltr_tiny_mnist-lt.py'
            where there is no such folder.

    Returns:
        str: Its path.

    Raises:
        InputError: There is none; names those that are called alike.
    """
    if osp.isfile(name):
        return name
    own = config_names()
    stem = name.removesuffix('.py')
    if stem in own:
        return str(own[stem])
    head, _, rest = name.replace('\\', '/').partition('/')
    if head == 'configs' and (CONFIGS / rest).is_file():
        return str(CONFIGS / rest)
    near = difflib.get_close_matches(osp.basename(stem), own, 3, 0.6)
    meant = f', perhaps {" or ".join(near)}' if near else ''
    raise InputError(
        f"The config '{name}' does not exist: give a file, or the name of one of mmlt's own{meant}; 'mmlt config' "
        'lists them.'
    )


def read_config(path: str, options: dict | None = None) -> Config:
    """Read a config file of a model.

    Args:
        path (str): The file, or a name, see :func:`find_config`.
        options (dict, optional): Changes, as by ``--cfg-options``.
            Defaults to None.

    Returns:
        Config: With the changes.

    Raises:
        InputError: There is no such file; it is no config, or has no model;
            changes that do not fit it.
    """
    path = find_config(path)
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
        raise InputError(f"The config '{path}' has no model: give one like those that 'mmlt config' lists.")
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
