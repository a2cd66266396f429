"""Test a model; the arguments are those of MMPretrain's tools/test.py.

    mmlt test zeroshot_tiny_mnist-lt
    mmlt test vlltr_tiny_mnist-lt work_dirs/vlltr_tiny_mnist-lt/epoch_15.pth --save-logits test.npz

The checkpoint may be left out: then the model is tested with its pretrained
weights, which for an image-text model is its zero-shot result.
"""

import os

from mmlt.cli.common import told
from mmlt.engine.options import CfgOptions, ToolParser, at_least
from mmlt.engine.testing import TestOptions, test
from mmlt.utils import leave_together


def parse_args(argv=None) -> TestOptions:
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
    return TestOptions(**vars(args))


@told
def main(argv=None):
    result = test(parse_args(argv))
    leave_together()
    return result
