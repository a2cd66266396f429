"""Methods of several stages: which there are, where they lie, which are done.

A config names the stages before it::

    stages = dict(
        phase_a=dict(config='ballad_rn50_imagenet-lt_phase-a.py', load_from=True))

Each is a config of its own with a work directory of its own, by default
``<work_dir>/<name>``. ``load_from=True`` starts this config from the stage's
last checkpoint, or tests that checkpoint where nothing is trained;
``load_from='backbone'`` takes only the weights whose names begin with
``backbone.``. ``{stage:phase_a}`` in any string of the config stands for the
stage's directory. ``options`` changes the stage's config as ``--cfg-options``
would: ``--cfg-options stages.phase_a.options.train_cfg.max_epochs=10``. A stage
below the work directory follows this config's seed; one with a ``work_dir`` of
its own, which several trainings may share, keeps the seed of its config.
"""

from __future__ import annotations

import copy
import json
import os.path as osp
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from mmengine.config import Config

from mmlt.checkpoints import latest_checkpoint, write_text
from mmlt.engine.configs import change_config, read_config
from mmlt.engine.identity import VERSION, config_difference, config_files
from mmlt.engine.identity import decisive as decisive  # what a record holds
from mmlt.engine.names import check_argument_names
from mmlt.errors import InputError

# What can be said of an earlier stage.
_SETTINGS = ('config', 'load_from', 'options', 'work_dir')

_PLACEHOLDER = re.compile(r'\{stage:([\w-]+)\}')


@dataclass
class Stage:
    """One training to be run.

    Args:
        name (str): Its name.
        cfg (Config): Its whole config.
        work_dir (str): Where its results lie.
        shared (bool): Whether other trainings may share it; then its seed is
            its own. Defaults to False.
        key (str): Where its settings are in the last stage's config, for
            example 'stages.phase_a'. Defaults to '', it is the last one.
    """

    name: str
    cfg: Config
    work_dir: str
    shared: bool = False
    key: str = ''


class RunRecord:
    """``run.json`` of a work directory: what was trained there, and whether it is finished.

    Args:
        work_dir (str): The directory.
    """

    def __init__(self, work_dir: str):
        self.work_dir = work_dir
        self.path = osp.join(work_dir, 'run.json')

    def read(self) -> dict | None:
        """The record, or None where nothing was trained yet.

        Raises:
            InputError: It is damaged.
        """
        if not osp.isfile(self.path):
            return None
        try:
            with open(self.path, encoding='utf-8') as f:
                record = json.load(f)
            if isinstance(record, dict) and {'id', 'finished', 'config', 'stages'} <= record.keys():
                return record
            why = 'it is no record of a training'
        except ValueError as e:
            why = f'{type(e).__name__}: {e}'
        raise InputError(
            f"'{self.path}', which says what was trained in that folder, is damaged ({why}): train it anew with "
            '--restart, or give another folder; the checkpoints beside it can be tested by mmlt test.'
        )

    @property
    def finished(self) -> bool:
        """Whether the training ran to its end."""
        return bool((self.read() or {}).get('finished'))

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint; what failed before, for a wrong setting perhaps, binds nobody."""
        return self.finished or (self.read() is not None and latest_checkpoint(self.work_dir) is not None)

    def begin(self, config: dict, stages: dict[str, str | None], resumed: bool, data: str | None = None) -> None:
        """Note that a training begins here, or goes on.

        Args:
            config (dict): :func:`decisive` of its config.
            stages (dict): :func:`stage_ids` of its config.
            resumed (bool): Whether it goes on from a checkpoint of its own.
            data (str, optional): :func:`data_digest` of its training set.
                Defaults to None.
        """
        old = self.read()
        run_id = uuid.uuid4().hex
        if resumed and old is not None:
            run_id = old['id']
            config = {k: v for k, v in config.items() if k != 'load_from'}  # resuming replaced it
            if old['config'].get('load_from') is not None:
                config['load_from'] = old['config']['load_from']
        self._write(dict(version=VERSION, id=run_id, finished=False, config=config, stages=stages, data=data))

    def finish(self, best: str | None = None) -> None:
        """Note that the training is finished.

        Args:
            best (str, optional): Name of the best checkpoint by validation,
                where the training kept one; its whole path where it is not in
                the work directory. Defaults to None.
        """
        self._write({**self.read(), 'finished': True, 'best': best})

    @property
    def result(self) -> str | None:
        """Path of the checkpoint that the training gave: the best by validation if it kept one, else the last.

        Raises:
            InputError: The best one is gone.
        """
        record = self.read() or {}
        best = record.get('best') if record.get('finished') else None
        if best is None:
            return latest_checkpoint(self.work_dir)
        path = osp.join(self.work_dir, best)
        if not osp.isfile(path):
            raise InputError(
                f"The best checkpoint of the training in '{self.work_dir}', {best}, is gone: train it anew with "
                '--restart, or give weights with --cfg-options stages=None load_from=<checkpoint>.'
            )
        return path

    def difference(self, cfg: Config, ignore: tuple[str, ...] = (), anew: Collection[str] = ()) -> str | None:
        """How a config differs from the one recorded here; None where it does not.

        Args:
            cfg (Config): The config asked for now.
            ignore (tuple[str, ...]): Keys that may differ. Defaults to ().
            anew (Collection[str]): Work directories of stages that are about
                to be trained from their beginning. Defaults to ().
        """
        record = self.read()
        if record is None:
            return None
        if (found := config_difference(record, cfg, ignore)) is not None:
            return found
        for name, run_id in stage_ids(cfg).items():
            if record['stages'].get(name) != run_id:
                return f"stage '{name}' was trained anew since"
            if stage_dir(cfg, name) in anew:
                return f"stage '{name}' is to be trained anew"
        return None

    def _write(self, record: dict) -> None:
        write_text(self.path, json.dumps(record, indent=1))


def stage_ids(cfg: Config) -> dict[str, str | None]:
    """Run id of every earlier stage as it is on disk."""
    return {name: (RunRecord(stage_dir(cfg, name)).read() or {}).get('id') for name in (cfg.get('stages') or {})}


def stage_dir(cfg: Config, name: str) -> str:
    """Work directory of an earlier stage of a config."""
    stages = cfg.get('stages') or {}
    if name not in stages:
        raise InputError(
            f"The config speaks of a stage '{name}' but lists {', '.join(stages) or 'none'} in `stages`: add it there."
        )
    return stages[name].get('work_dir') or osp.join(cfg.work_dir, name)


def resolve_placeholders(cfg: Config) -> None:
    """Put the stages' directories in place of ``{stage:name}``, in place."""

    def walk(value):
        if isinstance(value, dict):
            for k in value:
                if k != 'stages':
                    value[k] = walk(value[k])
        elif isinstance(value, (list, tuple)):
            return type(value)(walk(v) for v in value)
        elif isinstance(value, str):
            return _PLACEHOLDER.sub(lambda m: stage_dir(cfg, m[1]), value)
        return value

    walk(cfg._cfg_dict)


def plan(cfg: Config, key: str = '') -> list[Stage]:
    """All stages of a config, earliest first, this one last.

    Args:
        cfg (Config): With ``work_dir`` set.
        key (str): See :class:`Stage`. Defaults to ''.

    Returns:
        list[Stage]: Earlier stages of earlier stages are included.

    Raises:
        InputError: A stage's config does not exist; a stage has a setting that
            stages do not have.
    """
    stages: list[Stage] = []
    for name, spec in (cfg.get('stages') or {}).items():
        own = f'{key}.options.stages.{name}' if key else f'stages.{name}'
        stage_cfg = read_config(stage_config(cfg, name))
        stage_cfg.work_dir = stage_dir(cfg, name)
        stage_cfg.launcher = cfg.get('launcher', 'none')
        if not spec.get('work_dir') and cfg.get('randomness'):
            stage_cfg.randomness = cfg.randomness  # a stage of this run alone follows its seed
        if spec.get('options'):
            change_config(stage_cfg, copy.deepcopy(dict(spec.options)))  # merging consumes _delete_
        planned = plan(stage_cfg, own)
        planned[-1].name, planned[-1].shared = name, bool(spec.get('work_dir'))
        stages += [s for s in planned if s.work_dir not in {t.work_dir for t in stages}]
    name = cfg.get('stage_name') or osp.splitext(osp.basename(cfg.filename or 'training'))[0]
    return [*stages, Stage(name, cfg, cfg.work_dir, key=key)]


def stage_config(cfg: Config, name: str) -> str:
    """Path of an earlier stage's config.

    It is looked for beside the config that names it, beside those that this
    one inherits from, the file that names it first, and where the tool runs.

    Args:
        cfg (Config): With the stage in ``stages``.
        name (str): The stage.

    Returns:
        str: An existing file.

    Raises:
        InputError: There is none; a setting that stages do not have.
    """
    spec = cfg.stages[name] or {}
    check_argument_names(spec, _SETTINGS, f'stages.{name}', 'A stage')
    if not isinstance(file := spec.get('config'), str):
        raise InputError(f"stages.{name} names no config: it is like dict(config='...', load_from=True).")
    files = config_files(cfg) or [(cfg.filename or '', '')]
    own, bases = files[:1], sorted(files[1:], key=lambda base: file not in base[1])
    folders = dict.fromkeys([*(osp.dirname(path) for path, _ in (*own, *bases)), ''])
    found = next((path for path in (osp.join(f, file) for f in folders) if osp.isfile(path)), None)
    if found is None:
        where = ', '.join(f"'{folder or '.'}'" for folder in folders)
        raise InputError(
            f"The config of stage '{name}', '{file}', does not exist beside '{cfg.filename}' or what it "
            f'inherits from (looked in {where}): give its path with --cfg-options stages.{name}.config=<file>.'
        )
    return found


def starting_checkpoint(cfg: Config) -> tuple[str | None, str | None]:
    """The checkpoint of the earlier stage that a config starts from.

    Args:
        cfg (Config): With ``work_dir`` set.

    Returns:
        tuple: The checkpoint's path, and the prefix of the weights to take, None
        for all of them; ``(None, None)`` where no stage has ``load_from``.

    Raises:
        InputError: That stage has not been run to its end.
    """
    for name, spec in (cfg.get('stages') or {}).items():
        folder = stage_dir(cfg, name)
        if not (spec.get('load_from') or uses_stage(cfg, name)):
            continue
        if not RunRecord(folder).finished:
            config = stage_config(cfg, name)
            raise InputError(
                f"The earlier stage '{name}' is not finished in '{folder}'. Run `mmlt train "
                f'{cfg.filename} --work-dir {cfg.work_dir}`, which trains all stages; or that stage alone, '
                f'`mmlt train {config} --work-dir {folder}`; or give its weights with --cfg-options '
                f'stages=None load_from=<checkpoint>.'
            )
        if spec.get('load_from'):
            return RunRecord(folder).result, spec.load_from if isinstance(spec.load_from, str) else None
    return None, None


def keep_part(checkpoint: dict, prefix: str, source: str) -> None:
    """Remove all weights from a checkpoint but those below a prefix, in place.

    Args:
        checkpoint (dict): As ``torch.load`` gives it.
        prefix (str): For example ``'backbone'``.
        source (str): Where the checkpoint is from, for the error.

    Raises:
        InputError: There is nothing below the prefix.
    """
    state = checkpoint.get('state_dict', checkpoint)
    dropped = [name for name in state if not name.removeprefix('module.').startswith(f'{prefix}.')]
    if len(dropped) == len(state):
        parts = sorted({name.removeprefix('module.').split('.')[0] for name in state})
        raise InputError(
            f"A stage has load_from='{prefix}', but '{source}' holds no weights below that name; it holds "
            f'{", ".join(parts)}.'
        )
    for name in dropped:
        del state[name]


def uses_stage(cfg: Config, name: str) -> bool:
    """Whether a string of the config holds this stage's placeholder."""

    def walk(value) -> bool:
        if isinstance(value, dict):
            return any(walk(v) for k, v in value.items() if k != 'stages')
        if isinstance(value, (list, tuple)):
            return any(walk(v) for v in value)
        return isinstance(value, str) and f'{{stage:{name}}}' in value

    return walk(cfg._cfg_dict)
