"""A test of a checkpoint, or of a pretrained model."""

from __future__ import annotations

import os
import os.path as osp
import re
from copy import deepcopy
from dataclasses import dataclass

import mmengine
import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.hooks import EMAHook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmlt.checkpoints.read import check_is_file
from mmlt.engine.arguments import check_arguments
from mmlt.engine.build_errors import explained
from mmlt.engine.configs import change_config, read_config, take_options
from mmlt.engine.options import RunOptions, at_least, option
from mmlt.engine.stages import RunRecord, stage_dir
from mmlt.engine.workers import end_workers
from mmlt.errors import InputError
from mmlt.evaluation.save_logits import save_logits
from mmlt.evaluation.scores_file import check_npz_path
from mmlt.registry import HOOKS

# Top-level keys that a test reads.
TESTED = (
    'custom_hooks',
    'data_preprocessor',
    'default_hooks',
    'env_cfg',
    'model',
    'randomness',
    'test_cfg',
    'test_dataloader',
    'test_evaluator',
)


@dataclass
class TestOptions(RunOptions):
    """What can be said of a test beside its config: the arguments of ``mmlt test``."""

    __test__ = False  # for pytest, which collects by the name

    checkpoint: str | None = option(
        'checkpoint file; without it the pretrained model is tested', names=('checkpoint',), nargs='?'
    )
    out: str | None = option('file for predictions or metrics')
    out_item: str | None = option('what goes into --out; default pred', choices=('metrics', 'pred'))
    save_logits: str | None = option('.npz for all scores, see mmlt posthoc', metavar='FILE')
    show_dir: str | None = option('folder for pictures of the predictions')
    show: bool = option('show the predictions in a window', False)
    interval: int = option('visualise every n-th sample', 1, type=at_least(1))
    wait_time: float = option('seconds to show each', 2, type=float)
    tta: bool = option('test-time augmentation, flips by default', False)


def _augment(cfg: Config) -> None:
    """Test by the config's augmentation, or by flips."""
    cfg.setdefault('tta_model', dict(type='mmpretrain.AverageClsScoreTTA'))
    if 'tta_pipeline' not in cfg:
        pipeline = deepcopy(cfg.test_dataloader.dataset.pipeline)
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.tta_pipeline = [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])]
    cfg.custom_hooks = _without_averaging(cfg)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def _without_averaging(cfg: Config) -> list:
    """The custom hooks but an EMAHook, which would average the augmenting model, whose weights have other names.

    The averaged weights are what a checkpoint has as its model's, so they are tested all the same.
    """
    kept = []
    for hook in cfg.get('custom_hooks') or []:
        kind = hook.get('type') if isinstance(hook, dict) else type(hook)
        kind = HOOKS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(kind, type) and issubclass(kind, EMAHook)):
            kept.append(hook)
        elif isinstance(hook, dict) and not hook.get('evaluate_on_ema', True):
            raise InputError(
                'Test-time augmentation tests the averaged weights, but the EMAHook has evaluate_on_ema=False: leave '
                'out --tta or that setting.'
            )
    return kept


def read_test(args: TestOptions) -> Config:
    cfg = read_config(args.config)
    take_options(cfg, args)
    if args.checkpoint:
        if '://' not in args.checkpoint:
            check_is_file(args.checkpoint, work_dir=cfg.work_dir)
        cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        cfg.default_hooks.visualization = dict(
            type='mmlt.PredictionPicturesHook',
            enable=True,
            show=args.show,
            wait_time=args.wait_time,
            out_dir=args.show_dir,
            interval=args.interval,
        )
    loader = ConfigDict(
        pin_memory=torch.cuda.is_available() and not args.no_pin_memory, collate_fn=dict(type='default_collate')
    )
    loader.update(deepcopy(cfg.test_dataloader))
    cfg.test_dataloader = loader
    options = args.cfg_options or {}
    if args.tta:  # the model's settings, also as MMPretrain's tools name them inside the augmenting model
        options = {re.sub(r'^model\.module\.', 'model.', key): value for key, value in options.items()}
    change_config(cfg, options)
    if args.tta:
        _augment(cfg)
    _check_stages(cfg, args)
    _keep_report(cfg, args)
    return cfg


def _keep_report(cfg: Config, args: TestOptions) -> None:
    """Give a test that is not the training's own a folder below the work directory, where none was named."""
    if args.work_dir or 'work_dir' in (args.cfg_options or {}):
        return
    record = RunRecord(cfg.work_dir)
    try:
        own = record.result or ''
    except InputError:  # a damaged record, or the best checkpoint is gone: none is known to be the training's own
        own = ''
    other = args.cfg_options or osp.realpath(args.checkpoint or '') != osp.realpath(own)
    if not args.tta and not (other and osp.isfile(record.path)):
        return
    for name, stage in (cfg.get('stages') or {}).items():
        stage.work_dir = stage_dir(cfg, name)  # they stay where they are
    cfg.work_dir = osp.join(cfg.work_dir, 'tta' if args.tta else 'test')
    if int(os.environ.get('RANK', 0)) == 0:
        print(f"Results go to '{cfg.work_dir}', and no other report is overwritten; --work-dir names another folder.")


def _check_stages(cfg: Config, args: TestOptions) -> None:
    """A head that is not trained is tested on a finished stage's weights; any other last stage has its own."""
    starts = [name for name, stage in (cfg.get('stages') or {}).items() if stage.get('load_from')]
    if args.checkpoint or cfg.get('load_from') or not starts:
        return
    if cfg.get('train_cfg') or not all(RunRecord(stage_dir(cfg, name)).finished for name in starts):
        raise InputError(
            f"'{args.config}' is the last of several stages, so there is no pretrained model of it: give its "
            'checkpoint, for example the last of its work directory.'
        )


def test(args: TestOptions) -> dict:
    """Test a model.

    Args:
        args (TestOptions): See there.

    Returns:
        dict: Its figures.

    Raises:
        InputError: Something is wrong with the config, checkpoint or data.
    """
    cfg = read_test(args)
    if args.save_logits:
        check_npz_path(args.save_logits)
    check_arguments(cfg, keys=TESTED)
    with explained(cfg):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        if args.out and args.out_item != 'metrics':
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        if args.save_logits:
            tested = runner.test_dataloader.dataset
            save_logits(runner.test_evaluator, runner.cfg, runner.model, args.save_logits, args.tta, tested)
        metrics = runner.test()
    end_workers(runner)
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)
    return metrics
