"""A step of every stage before the first one is trained.

What is wrong with a later stage would show when the earlier ones have been
trained, perhaps for days. So each is built here as it will be, data and class
texts included, makes one step on two of its own pictures and predicts two, and
is thrown away. What is not there yet is stood in for: weights by random ones,
anchor sentences by random ones of the right shape, an earlier stage's
checkpoint by the names and shapes of its weights. No pretrained weights are
read, and one stage is in memory at a time.
"""

from __future__ import annotations

import copy
import gc
import inspect
import os
import os.path as osp
import re
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.hooks import ProfilerHook, RuntimeInfoHook
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, RUNNERS, DefaultScope
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import Tensor

from mmlt.engine.build_errors import explain
from mmlt.engine.hooks.checkpoint_guard import CheckpointGuardHook
from mmlt.engine.identity import all_hooks, type_name
from mmlt.engine.requirements import dicts, missing_files
from mmlt.engine.stages import Stage, keep_part, resolve_placeholders, stage_dir
from mmlt.errors import InputError
from mmlt.models.anchors import Anchors
from mmlt.models.heads.anchor_head import AnchorHead
from mmlt.models.undrawn import drawn
from mmlt.utils import quick_collections, unwrap

# Hooks of other packages may do anything; they are built, and not called.
_PACKAGES = ('mmcv', 'mmengine', 'mmlt', 'mmpretrain')


def try_stages(todo: Sequence[Stage], tested: bool = True) -> None:
    """Make a step of every stage that waits for another one.

    Args:
        todo (Sequence[Stage]): Those of :func:`mmlt.engine.stages.plan` that
            are to be run, in order. The first is not tried: it comes next
            anyway.
        tested (bool): Whether the last one is tested at the end.
            Defaults to True.

    Raises:
        InputError: One of them cannot be built, or its step fails; names the
            stage.
    """
    shapes: dict[str, dict[str, Tensor]] = {}
    waiting = {stage.work_dir: stage for stage in todo}
    for stage in todo:
        later = [other for other in todo if other is not stage]
        if stage is todo[0] and not any(_starts_from(other.cfg, stage.work_dir) for other in later):
            continue
        with tempfile.TemporaryDirectory() as folder, _no_traces(), drawn():
            try:
                runner = _runner(stage, waiting, folder)
                try:
                    if stage is not todo[0]:
                        _try(runner, stage, waiting, shapes, tested and stage is todo[-1])
                    state = unwrap(runner.model).state_dict()
                    shapes[stage.work_dir] = {k: torch.empty_like(v, device='meta') for k, v in state.items()}
                finally:
                    for handler in runner.logger.handlers:
                        handler.close()
                    del runner
            except Exception as e:
                raise InputError(_sentence(e, stage, folder)) from e
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _sentence(error: Exception, stage: Stage, folder: str) -> str:
    text = explain(error, stage.cfg)
    if text is None and isinstance(error, InputError):
        text = str(error)
    if text is None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        lines = ' '.join(str(error).split())[:300] or last.line
        text = (
            f'it fails in a try of one step ({type(error).__name__} in {last.name}: {lines}). If that cannot be, '
            '--no-trial trains without such a try.'
        )
    return f"Stage '{stage.name}', before anything is trained: {text.replace(folder, stage.work_dir)}"


def _starts_from(cfg: Config, folder: str) -> str | bool | None:
    """What a config loads from the stage in a folder: True for all, a prefix, or nothing."""
    for name, spec in (cfg.get('stages') or {}).items():
        if spec.get('load_from') and stage_dir(cfg, name) == folder:
            return spec.load_from
    return None


def _runner(stage: Stage, waiting: dict[str, Stage], folder: str) -> Runner:
    cfg = _stand_in(stage, waiting, folder)
    kind = RUNNERS.get(cfg.runner_type) if 'runner_type' in cfg else Runner
    silent: type[Runner] = type(kind.__name__, (_Silent, kind), {})
    return silent.from_cfg(cfg)


class _Silent:
    """A runner that writes nothing about itself."""

    def _log_env(self, env_cfg) -> None:
        pass

    def dump_config(self) -> None:
        """Not this config."""


def _try(
    runner: Runner, stage: Stage, waiting: dict[str, Stage], shapes: dict[str, dict[str, Tensor]], tested: bool
) -> None:
    if missing := missing_files(stage.cfg):
        raise InputError(missing[0])
    _check_handed_over(stage.cfg, waiting)
    _build(runner, tested)
    for directory, state in shapes.items():
        if part := _starts_from(stage.cfg, directory):
            _check_start(runner, dict(state), part, directory)
    if runner._train_loop is not None:
        _step(runner)
    loop = runner._test_loop if tested else runner._val_loop
    if isinstance(loop, BaseLoop):
        _predict(runner, loop)


def _stand_in(stage: Stage, waiting: dict[str, Stage], folder: str) -> Config:
    """A stage's config for a try in a folder of its own."""
    cfg = copy.deepcopy(stage.cfg)
    for part in dicts(cfg.model):
        for name in cfg.get('stages') or {}:
            before = waiting.get(stage_dir(cfg, name))
            if before is not None and f'{{stage:{name}}}' in str(part.get('anchors')):
                part['anchors'] = _anchors(part, before, osp.join(folder, name, osp.basename(part['anchors'])))
    resolve_placeholders(cfg)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(key):  # nothing is read in other processes
            cfg[key].update(num_workers=0, persistent_workers=False, pin_memory=False)
            cfg[key].pop('prefetch_factor', None)
    if cfg.get('visualizer'):
        cfg.visualizer.vis_backends = []
    cfg.pop('compile', None)
    seed = (cfg.get('randomness') or {}).get('seed')
    cfg.update(
        work_dir=folder,
        experiment_name=f'trial {folder}',
        stages=None,
        load_from=None,
        resume=False,
        log_level='ERROR',
        randomness=dict(seed=seed),
    )
    return cfg


def _check_handed_over(cfg: Config, waiting: dict[str, Stage]) -> None:
    """Whether the earlier stages will leave the files that are read from them."""
    for part in dicts({key: value for key, value in cfg.items() if key != 'stages'}):
        for key, value in part.items():
            asked = re.fullmatch(r'\{stage:([\w-]+)\}/(.+\.safetensors)', value) if isinstance(value, str) else None
            before = waiting.get(stage_dir(cfg, asked[1])) if asked else None
            if before is None or asked[2] in (left := _left_files(before.cfg)):
                continue
            there = f'it writes {", ".join(left)}' if left else 'no hook of it writes a file'
            raise InputError(
                f"{key}='{value}' is read, but the stage '{asked[1]}' will leave no such file: {there} (see "
                'AnchorSelectionHook and ExportOpenCLIPHook).'
            )


def _left_files(cfg: Config) -> list[str]:
    """Names of the files that hooks write at the end of a training."""
    files = []
    for hook in all_hooks(cfg):
        kind = HOOKS.get(hook['type']) if isinstance(hook.get('type'), str) else hook.get('type')
        named = inspect.signature(kind).parameters.get('filename') if kind is not None else None
        if named is not None:
            files.append(hook.get('filename', named.default))
    return files


def _anchors(head: dict, before: Stage, path: str) -> str:
    hooks = [hook for hook in all_hooks(before.cfg) if type_name(hook) == 'AnchorSelectionHook']
    os.makedirs(osp.dirname(path))
    number = hooks[0].get('num_anchors') if hooks else None
    Anchors.stand_in(head['num_classes'], number or 64, head['in_channels']).save(path)
    return path


def _build(runner: Runner, tested: bool) -> None:
    """As MMEngine does before a training, or a test, but for the weights."""
    trained = runner._train_loop is not None
    if trained:
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        if runner._val_loop is not None and not (tested and _same_data(runner.cfg)):
            runner._val_loop = runner.build_val_loop(runner._val_loop)
    if tested and runner._test_loop is not None:
        runner._test_loop = runner.build_test_loop(runner._test_loop)
    if trained and getattr(runner, 'sharding', None) is not None:
        runner.sharding.check(runner)
    hooks = [hook for hook in runner.hooks if type(hook).__module__.split('.')[0] in _PACKAGES]
    hooks = [hook for hook in hooks if not isinstance(hook, (ProfilerHook, RuntimeInfoHook))]  # they only look on
    for hook in hooks:
        hook.before_run(runner)
    for module in unwrap(runner.model).modules():
        if isinstance(module, AnchorHead):
            module.init_weights()  # reads the anchors, and nothing else
    if trained:
        for hook in hooks:
            getattr(hook, 'check_run', hook.before_train)(runner)


def _same_data(cfg: Config) -> bool:
    return all(cfg.get(f'val_{part}') == cfg.get(f'test_{part}') for part in ('dataloader', 'evaluator'))


def _check_start(runner: Runner, state: dict[str, Tensor], part: str | bool, source: str) -> None:
    """Whether the checkpoint of an earlier stage will fit."""
    checkpoint = dict(state_dict=state)
    if isinstance(part, str):
        keep_part(checkpoint, part, source)
    runner._load_from, runner.starts_from_stage = source, True
    runner.testing = runner._train_loop is None
    for hook in runner.hooks:
        if isinstance(hook, CheckpointGuardHook):
            hook.after_load_checkpoint(runner, checkpoint)
    runner._load_from, runner.testing = None, False


def _step(runner: Runner) -> None:
    """One step of the training on two of its pictures."""
    model: BaseModel = unwrap(runner.model)
    if hasattr(model, 'set_progress'):
        model.set_progress(1, 2)
    runner.model.train()
    _stand_in_texts(model)
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.max_iters)
    runner.model.train_step(_batch(runner.train_dataloader), optim_wrapper=runner.optim_wrapper)


@torch.no_grad()
def _predict(runner: Runner, loop: BaseLoop) -> None:
    """Predict two pictures, and hand them to the metrics."""
    model = unwrap(runner.model)
    if hasattr(getattr(model, 'head', None), 'fit'):
        return  # it is fitted before the test
    runner.model.eval()
    _stand_in_texts(model)
    batch = _batch(loop.dataloader)
    step = runner.model.test_step if loop is runner._test_loop else runner.model.val_step
    loop.evaluator.process(data_samples=step(batch), data_batch=batch)


def _stand_in_texts(model) -> None:
    for module in model.modules():
        if hasattr(module, 'stand_in'):
            module.stand_in()


def _batch(loader):
    """The first and the last picture, which are of different classes in most lists."""
    dataset = loader.dataset
    number = min(2, len(dataset), loader.batch_size or 2)
    return loader.collate_fn([dataset[i] for i in (0, len(dataset) - 1)[:number]])


@contextmanager
def _no_traces():
    """What a runner leaves in MMEngine's global lists is taken out again."""
    managers = [MMLogger, MessageHub, DefaultScope, Visualizer, *_below(Visualizer)]
    before = [(manager, dict(manager._instance_dict)) for manager in managers]
    try:
        with quick_collections():
            yield
    finally:
        for manager, instances in before:
            manager._instance_dict.clear()
            manager._instance_dict.update(instances)


def _below(cls: type[Visualizer]) -> list[type[Visualizer]]:
    return [part for one in cls.__subclasses__() for part in (one, *_below(one))]
