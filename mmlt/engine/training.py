"""A training with all stages of its method, and the test at its end."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmlt.checkpoints.read import check_is_file
from mmlt.engine.arguments import check_arguments
from mmlt.engine.build_errors import explained
from mmlt.engine.configs import read_config, take_options
from mmlt.engine.identity import PRECISION, type_name
from mmlt.engine.lock import lock_folder
from mmlt.engine.options import RunOptions, option
from mmlt.engine.stages import RunRecord, Stage, plan
from mmlt.engine.trial import try_stages
from mmlt.engine.workers import end_workers
from mmlt.errors import InputError


@dataclass
class TrainOptions(RunOptions):
    """What can be said of a training beside its config: the arguments of ``mmlt train``."""

    resume: str | None = option(
        'resume from this checkpoint, or from the latest of the work directory, even if the config changed',
        nargs='?',
        const='auto',
    )
    restart: list[str] | None = option(
        'train anew what was trained in the work directory; names of stages, default the last one',
        nargs='*',
        metavar='STAGE',
    )
    no_validate: bool = option('no validation while training', False)
    no_trial: bool = option('no try of a step of later stages before the first', False)
    no_test: bool = option('no test at the end', False)
    auto_scale_lr: bool = option('scale learning rates to the actual batch size', False)
    no_persistent_workers: bool = option('no persistent dataloader workers', False)


def read_training(args: TrainOptions) -> Config:
    """The config of the last stage, with its own options."""
    cfg = read_config(args.config, args.cfg_options)
    take_options(cfg, args)
    return cfg


def merge_args(cfg: Config, args: TrainOptions) -> Config:
    """Apply the arguments that hold for every stage."""
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp and cfg.get('optim_wrapper'):
        kind = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
        if kind not in PRECISION:
            raise InputError(f"--amp: '{cfg.filename}' has an optimizer wrapper of its own, {kind}: leave out --amp.")
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr'):
            raise InputError(
                f"--auto-scale-lr: '{cfg.filename}' does not say for which batch size its learning rate is; add "
                'auto_scale_lr=dict(base_batch_size=...).'
            )
        cfg.auto_scale_lr.enable = True
    for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(field) is None:
            continue
        loader = ConfigDict(
            pin_memory=torch.cuda.is_available(), persistent_workers=True, collate_fn=dict(type='default_collate')
        )
        loader.update(deepcopy(cfg[field]))
        if args.no_pin_memory:
            loader.pin_memory = False
        if args.no_persistent_workers or not loader.get('num_workers'):
            loader.persistent_workers = False
        cfg[field] = loader
    return cfg


def planned(args: TrainOptions) -> list[Stage]:
    """All stages of a config with what the options say, earliest first."""
    stages = plan(read_training(args))
    for stage in stages:
        merge_args(stage.cfg, args)
    return stages


def restarts(stage: Stage, last: bool, args: TrainOptions) -> bool:
    return args.restart is not None and (stage.name in args.restart or (last and not args.restart))


def build_runner(cfg: Config) -> Runner:
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def prepare_stage(stage: Stage, last: bool, args: TrainOptions, anew: Collection[str]) -> bool:
    """Decide how a stage goes on; return whether there is anything to train."""
    cfg, record = stage.cfg, RunRecord(stage.work_dir)
    if cfg.get('train_cfg') is None:
        return False  # nothing is trained, only tested
    if last and args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        if cfg.load_from and '://' not in cfg.load_from:
            check_is_file(cfg.load_from)
        return True
    if restarts(stage, last, args) or record.read() is None:
        return True
    started = record.started
    difference = record.difference(cfg, ('randomness',) if stage.shared else (), anew)
    if started and difference is not None:
        elsewhere = f'--cfg-options {stage.key}.work_dir=<folder>' if stage.shared else 'another --work-dir'
        names = [*(args.restart or ()), *([] if last and not args.restart else [stage.name])]
        raise InputError(
            f"'{stage.work_dir}' holds a run of another config: {difference}. Give {elsewhere}, or train it anew with "
            f'{" ".join(["--restart", *names])}.'
        )
    if record.finished:
        return False
    if started:
        cfg.resume, cfg.load_from = True, None
    return True


def decide(stages: Sequence[Stage], args: TrainOptions) -> list[Stage]:
    """Stages that are to be run: those that are not finished, and the last one if it is only tested."""
    todo: list[Stage] = []
    anew: set[str] = set()
    for stage in stages:
        last = stage is stages[-1]
        trains = prepare_stage(stage, last, args, anew)
        if trains and not stage.cfg.get('resume'):
            anew.add(stage.work_dir)
        if trains or (last and stage.cfg.get('train_cfg') is None):
            todo.append(stage)
    return todo


def _lock_and_decide(stages: Sequence[Stage], args: TrainOptions, main_process: bool) -> list[Stage]:
    """See :func:`decide`; a refused training leaves no folders."""
    folders = [stage.work_dir for stage in stages] if main_process else []
    for folder in filter(os.path.isdir, folders):  # others hold nothing that a decision could change with
        lock_folder(folder)
    todo = decide(stages, args)
    for folder in folders:
        lock_folder(folder)
    return todo


def _announce(i: int, stages: Sequence[Stage], trains: bool) -> None:
    cfg = stages[i].cfg
    state = 'resuming' if cfg.get('resume') else 'training'
    if not trains:
        state = 'already finished' if cfg.get('train_cfg') else 'nothing to train'
    print(f'== Stage {i + 1}/{len(stages)}: {stages[i].name} ({stages[i].work_dir}): {state}', flush=True)


def train(args: TrainOptions) -> dict | None:
    """Train what is not trained yet, stage by stage, and test the last.

    Args:
        args (TrainOptions): See there.

    Returns:
        dict | None: Figures of the test, None without one.

    Raises:
        InputError: Something is wrong with the config, data or folders.
    """
    stages = planned(args)
    cfg = stages[-1].cfg
    names = {s.name for s in stages}
    if unknown := [name for name in args.restart or () if name not in names]:
        raise InputError(f"There is no stage '{unknown[0]}' to restart; the stages are {', '.join(sorted(names))}.")
    main_process = int(os.environ.get('RANK', 0)) == 0
    todo = _lock_and_decide(stages, args, main_process)
    for stage in reversed(stages):
        if stage in todo:
            check_arguments(stage.cfg, f'{stage.key}.options.' if stage.key else '')
    if len(todo) > 1 and not args.no_trial:
        if main_process:
            print(f'== A step of {", ".join(s.name for s in todo[1:])} is tried first', flush=True)
        try_stages(todo, tested=not args.no_test)
    runner = None
    for i, stage in enumerate(stages):
        last = stage is stages[-1]
        trains = stage in todo and stage.cfg.get('train_cfg') is not None
        if main_process:
            _announce(i, stages, trains)
        if not trains and not last:
            continue
        stage.cfg.stage_name = stage.name
        if not trains and stage.cfg.get('train_cfg') is not None:
            stage.cfg.load_from = RunRecord(stage.work_dir).result
        with explained(stage.cfg):
            runner = build_runner(stage.cfg)
            if last and not args.no_test and stage.cfg.get('test_dataloader') is not None:
                _ = runner.test_loop  # built now: what is wrong with the test is not found after the training
            if trains:
                runner.train()
                barrier()
        end_workers(runner)
    metrics = None
    if not args.no_test and cfg.get('test_dataloader') is not None:
        with explained(cfg):
            metrics = runner.test()
    end_workers(runner)
    return metrics
