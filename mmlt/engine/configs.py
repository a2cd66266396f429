"""Config files and the models of them, with one sentence for what is wrong there."""

from __future__ import annotations

import difflib
import math
import os
import os.path as osp
import re
import traceback
from pathlib import Path

from mmengine.config import Config
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS

from mmlt.engine.build_errors import explain
from mmlt.errors import InputError
from mmlt.options import RunOptions
from mmlt.utils.renamed import rename_in

_TRAINING_PART = re.compile(r'_(\d+)xb(\d+)(?=_|$)')
# What a launcher tells its processes.
_SET_BY = {'pytorch': ('RANK', 'LOCAL_RANK'), 'slurm': ('SLURM_PROCID',), 'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK',)}
CONFIGS = Path(__file__).parents[1] / 'configs'  # those of mmlt itself


def config_names() -> dict[str, Path]:
    """Files of mmlt's own configs by their names, bases left out."""
    return {p.stem: p for p in sorted(CONFIGS.glob('*/*.py')) if p.parent.name != '_base_'}


def find_config(name: str) -> str:
    """The file of a config.

    Args:
        name (str): A file, or the name of one of mmlt's own, such as
            'vlltr_tiny_mnist-lt', also as 'configs/vlltr/vlltr_tiny_mnist-lt.py'
            where there is no such folder. The training part of MMPretrain's
            names is allowed, 'vlltr_tiny_1xb64_mnist-lt'.

    Returns:
        str: Its path.

    Raises:
        InputError: There is none; names those that are called alike. The
            training part is not the config's.
    """
    if osp.isfile(name):
        return name
    own = config_names()
    stem = name.removesuffix('.py').replace('\\', '/')
    part = _TRAINING_PART.search(stem)
    stem = _TRAINING_PART.sub('', stem, 1)
    found = own.get(stem) or (CONFIGS.parent / f'{stem}.py' if stem.startswith('configs/') else None)
    if found is not None and found.is_file():
        if part is not None:
            _check_training_part(name, found, math.prod(map(int, part.groups())))
        return str(found)
    if osp.isdir(name):
        raise InputError(f"'{name}' is a folder: give a config, a .py file or a name that 'mmlt config' lists.")
    letters = osp.basename(stem).lower()
    near = difflib.get_close_matches(letters, own, 3, 0.6) or [one for one in own if letters and letters in one][:3]
    meant = f', perhaps {" or ".join(near)}' if near else ''
    raise InputError(
        f"The config '{name}' does not exist: give a file, or the name of one of mmlt's own{meant}; 'mmlt config' "
        'lists them.'
    )


def training_part(cfg: Config) -> str | None:
    """How MMPretrain's names tell the batch of a training, for example '8xb64': 8 GPUs of 64 pictures each.

    Args:
        cfg (Config): The config.

    Returns:
        str | None: For the batch that the learning rates are for; None where
        nothing is trained.
    """
    if not cfg.get('train_cfg') or not cfg.get('train_dataloader'):
        return None
    batch = cfg.train_dataloader.batch_size
    whole = (cfg.get('auto_scale_lr') or {}).get('base_batch_size') or batch
    return f'{whole // batch}xb{batch}' if whole % batch == 0 else f'1xb{whole}'


def full_name(cfg: Config) -> str | None:
    """Name of a config with the training part, such as 'vlltr_tiny_1xb64_mnist-lt'; None where nothing is trained."""
    part, words = training_part(cfg), Path(cfg.filename).stem.split('_')
    return part and '_'.join([*words[:2], part, *words[2:]])


def _check_training_part(name: str, path: Path, whole: int) -> None:
    cfg = Config.fromfile(path)
    part = training_part(cfg)
    if part is None:
        raise InputError(f"'{name}': the config trains nothing; its name is '{path.stem}'.")
    if math.prod(map(int, part.split('xb'))) != whole:
        raise InputError(
            f"'{name}' is for batches of {whole}, but the config is for {part.replace('xb', ' GPU(s) of ')}: its name "
            f"is '{full_name(cfg)}', or '{path.stem}'. For other batches: mmlt train {path.stem} --auto-scale-lr."
        )


def take_options(cfg: Config, options: RunOptions) -> None:
    """Note in a config where its run goes, and how it was started."""
    cfg.work_dir = options.work_dir or cfg.get('work_dir') or osp.join('work_dirs', Path(cfg.filename).stem)
    if missing := [name for name in _SET_BY.get(options.launcher, ()) if name not in os.environ]:
        raise InputError(
            f'--launcher {options.launcher}, but {missing[0]} is not set, so nothing has started the processes: leave '
            'it out, or start them, for example with tools/dist_train.sh.'
        )
    cfg.launcher = options.launcher


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
            f"The config '{path}' could not be read ({_where(e)}): give a .py file like those under configs/."
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
    if options:  # else a setting by its name of now would stand beside the config's own by an earlier one
        rename_in(cfg._cfg_dict)
    try:
        cfg.merge_from_dict(options or {})
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError) as e:
        raise InputError(f'The settings {options} do not fit the config: {_one_line(e)}') from e


def build_model(model: dict) -> BaseModel:
    """Build a config's model.

    Args:
        model (dict): Its config.

    Returns:
        BaseModel: With random weights.

    Raises:
        InputError: A name or an argument that does not exist, or is missing.
    """
    try:
        return MODELS.build(model)
    except (KeyError, TypeError) as e:
        if (sentence := explain(e, Config(dict(model=model)))) is None:
            raise
        raise InputError(f"The config's model cannot be built: {sentence}") from e


def _where(error: Exception) -> str:
    """What is wrong with a config's file, with the line, or the base that is missing."""
    if isinstance(error, OSError):
        return f'{type(error).__name__}: {str(error)[:300]}'
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    # MMEngine's functions call the file 'filename', be it the config or one of its bases.
    files = [name for frame in frames if osp.isfile(name := str(frame.f_locals.get('filename')))]
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = error.lineno if isinstance(error, SyntaxError) else last.lineno if last.name == '<module>' else None
    place = f" in line {line} of '{files[-1]}'" if line and files else ''
    return f'{type(error).__name__}{place}: {_one_line(error)}'


def _one_line(error: Exception) -> str:
    return ' '.join(str(error.args[0] if error.args else error).split())[:200]
