"""Train a model, all stages of its method.

The arguments are those of MMPretrain's tools/train.py. A config that names
earlier stages has those run first, unless they are finished; an interrupted
stage goes on from its last checkpoint. The result is tested at the end.
"""

import os
import os.path as osp
import sys
from collections.abc import Collection, Sequence
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmlt.checkpoints import newest_checkpoint
from mmlt.engine.arguments import check_arguments
from mmlt.engine.build_errors import explained
from mmlt.engine.configs import read_config
from mmlt.engine.identity import PRECISION, type_name
from mmlt.engine.options import CfgOptions, ToolParser
from mmlt.engine.stages import RunRecord, Stage, plan
from mmlt.engine.trial import try_stages
from mmlt.errors import InputError
from mmlt.utils import leave_together


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('config', help='train config file path')
    parser.add_argument('--work-dir', help='where logs and models go; default work_dirs/<config name>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or from the latest of the work directory, even if the config changed',
    )
    parser.add_argument(
        '--restart',
        nargs='*',
        metavar='STAGE',
        help='train anew what was trained in the work directory; names of stages, default the last one',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision in every stage')
    parser.add_argument('--no-validate', action='store_true', help='no validation while training')
    parser.add_argument('--no-trial', action='store_true', help='no try of a step of later stages before the first')
    parser.add_argument('--no-test', action='store_true', help='no test at the end')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale learning rates to the actual batch size')
    parser.add_argument('--no-pin-memory', action='store_true', help='no pinned memory in dataloaders')
    parser.add_argument('--no-persistent-workers', action='store_true', help='no persistent dataloader workers')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        help='settings to override, key=value; stages.<name>.options.<key>=<value> for an earlier stage',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args) -> Config:
    cfg = read_config(args.config, args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    cfg.launcher = args.launcher
    return cfg


def merge_args(cfg: Config, args) -> Config:
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


def restarts(stage: Stage, last: bool, args) -> bool:
    return args.restart is not None and (stage.name in args.restart or (last and not args.restart))


def build_runner(cfg: Config) -> Runner:
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def prepare(stage: Stage, last: bool, args, anew: Collection[str]) -> bool:
    """Decide how a stage goes on; return whether there is anything to train."""
    cfg, record = stage.cfg, RunRecord(stage.work_dir)
    if cfg.get('train_cfg') is None:
        return False  # nothing is trained, only tested
    if last and args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        return True
    if restarts(stage, last, args) or record.read() is None:
        return True
    # A run that failed before its first checkpoint, for a wrong setting perhaps, binds nobody.
    started = record.finished or newest_checkpoint(stage.work_dir) is not None
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


def decide(stages: Sequence[Stage], args) -> list[Stage]:
    """Stages that are to be run: those that are not finished, and the last one if it is only tested."""
    todo, anew = [], set()
    for stage in stages:
        last = stage is stages[-1]
        trains = prepare(stage, last, args, anew)
        if trains and not stage.cfg.get('resume'):
            anew.add(stage.work_dir)
        if trains or (last and stage.cfg.get('train_cfg') is None):
            todo.append(stage)
    return todo


def run(args) -> dict | None:
    cfg = load_config(args)
    stages = plan(cfg)
    for stage in stages:
        merge_args(stage.cfg, args)
    names = {s.name for s in stages}
    if unknown := [name for name in args.restart or () if name not in names]:
        raise InputError(f"There is no stage '{unknown[0]}' to restart; the stages are {', '.join(sorted(names))}.")
    todo = decide(stages, args)
    main_process = int(os.environ.get('RANK', 0)) == 0
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
            state = 'resuming' if stage.cfg.get('resume') else 'training'
            if not trains:
                state = 'already finished' if stage.cfg.get('train_cfg') else 'nothing to train'
            print(f'== Stage {i + 1}/{len(stages)}: {stage.name} ({stage.work_dir}): {state}', flush=True)
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
    if args.no_test or cfg.get('test_dataloader') is None:
        return None
    with explained(cfg):
        return runner.test()


def main(argv=None):
    args = parse_args(argv)
    try:
        result = run(args)
        leave_together()
        return result
    except InputError as e:
        sys.exit(f'mmlt: {e}')


if __name__ == '__main__':
    main()
