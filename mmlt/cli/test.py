"""Test a model; the arguments are those of MMPretrain's tools/test.py.

    mmlt test zeroshot_tiny_mnist-lt
    mmlt test vlltr_tiny_mnist-lt work_dirs/vlltr_tiny_mnist-lt/epoch_20.pth --save-logits test.npz

The checkpoint may be left out: then the model is tested with its pretrained
weights, which for an image-text model is its zero-shot result.
"""

import os

from mmlt.cli.common import verb
from mmlt.options import TestOptions, ToolParser


def parse_args(argv=None) -> TestOptions:
    parser = ToolParser(__doc__)
    args = parser.parse_options(TestOptions, argv)
    if args.out is None and args.out_item is not None:
        parser.error('--out-item needs --out')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@verb(parse_args)
def main(args):
    from mmlt.engine.testing import test
    from mmlt.utils import leave_together

    result = test(args)
    leave_together()
    return result
