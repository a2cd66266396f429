"""Test a model; the arguments are those of MMPretrain's tools/test.py.

The checkpoint may be left out: then the model is tested with its pretrained
weights, which for an image-text model is its zero-shot result.
"""

import os
import os.path as osp
import sys
from copy import deepcopy

import mmengine
import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

sys.path.insert(0, osp.dirname(osp.dirname(osp.abspath(__file__))))

from mmlt.engine.arguments import check_arguments
from mmlt.engine.build_errors import explained
from mmlt.engine.configs import change_config, read_config
from mmlt.engine.options import CfgOptions, ToolParser, at_least
from mmlt.errors import InputError
from mmlt.evaluation.save_logits import save_logits
from mmlt.evaluation.scores_file import check_npz_path
from mmlt.utils import leave_together

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


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('config', help='test config file path')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file; without it the pretrained model is tested')
    parser.add_argument('--work-dir', help='where the report goes; default work_dirs/<config name>')
    parser.add_argument('--out', help='file for predictions or metrics')
    parser.add_argument('--out-item', choices=['metrics', 'pred'], help='what goes into --out; default pred')
    parser.add_argument(
        '--save-logits', metavar='FILE', help='.npz for all scores, see tools/analysis_tools/posthoc.py'
    )
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--interval', type=at_least(1), default=1, help='visualise every n-th sample')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show each')
    parser.add_argument('--no-pin-memory', action='store_true', help='no pinned memory in dataloaders')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, flips by default')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    if args.out is None and args.out_item is not None:
        parser.error('--out-item needs --out')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args) -> Config:
    cfg = read_config(args.config)
    if args.checkpoint and '://' not in args.checkpoint and not osp.isfile(args.checkpoint):
        raise InputError(f"The checkpoint '{args.checkpoint}' does not exist: give one of the work directory.")
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    if args.checkpoint:
        cfg.load_from = args.checkpoint
    elif any(stage.get('load_from') for stage in (cfg.get('stages') or {}).values()):
        raise InputError(
            f"'{args.config}' is the last of several stages, so there is no pretrained model of it: give its "
            'checkpoint, for example the last of its work directory.'
        )
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
    if args.tta:
        cfg.setdefault('tta_model', dict(type='mmpretrain.AverageClsScoreTTA'))
        if 'tta_pipeline' not in cfg:
            pipeline = deepcopy(cfg.test_dataloader.dataset.pipeline)
            flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
            cfg.tta_pipeline = [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])]
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    loader = ConfigDict(
        pin_memory=torch.cuda.is_available() and not args.no_pin_memory, collate_fn=dict(type='default_collate')
    )
    loader.update(deepcopy(cfg.test_dataloader))
    cfg.test_dataloader = loader
    change_config(cfg, args.cfg_options)
    return cfg


def run(args) -> dict:
    cfg = load_config(args)
    if args.save_logits:
        check_npz_path(args.save_logits)
    check_arguments(cfg, keys=TESTED)
    with explained(cfg):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        if args.out and args.out_item != 'metrics':
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        if args.save_logits:
            save_logits(runner.test_evaluator, cfg, runner.model, args.save_logits, args.tta)
        metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)
    return metrics


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
