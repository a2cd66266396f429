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
from mmlt.engine.options import ToolParser
from mmlt.engine.training import TrainOptions, train
from mmlt.utils import leave_together


def parse_args(argv=None) -> TrainOptions:
    args = ToolParser(__doc__).parse_options(TrainOptions, argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def interrupt(*_) -> None:
    raise KeyboardInterrupt


@told
def main(argv=None):
    args = parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
    try:
        result = train(args)
        leave_together()
        return result
    except KeyboardInterrupt:
        # What the signal left half made, such as the workers of a dataloader, may fail as it is thrown away.
        sys.unraisablehook = lambda _: None
        print('mmlt: stopped. The same command goes on from the last checkpoint.', file=sys.stderr)
        sys.exit(130)
