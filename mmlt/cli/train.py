"""Train a model, all stages of its method.

    mmlt train vlltr_tiny_mnist-lt
    mmlt train lift_tiny-vit_mnist-lt --work-dir runs/lift --cfg-options train_cfg.max_epochs=5

The arguments are those of MMPretrain's tools/train.py. A config that names
earlier stages has those run first, unless they are finished; an interrupted
stage goes on from its last checkpoint. The result is tested at the end.
"""

import os
import signal
import sys
import threading

from mmlt.cli.common import told
from mmlt.engine.options import CfgOptions, ToolParser
from mmlt.engine.training import TrainOptions, train
from mmlt.utils import leave_together


def parse_args(argv=None) -> TrainOptions:
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
    return TrainOptions(**vars(args))


def stop(*_) -> None:
    raise KeyboardInterrupt


@told
def main(argv=None):
    args = parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    try:
        result = train(args)
        leave_together()
        return result
    except KeyboardInterrupt:
        print('mmlt: stopped. The same command goes on from the last checkpoint.', file=sys.stderr)
        sys.exit(130)
