"""Turn a checkpoint that BALLAD's authors published into one of ours.

    mmlt import ballad final_model_checkpoint.pth \\
        ballad_rn50_imagenet-lt --out ballad_rn50.pth

The config is that of phase B, or, for a checkpoint without adapter, of phase A. Everything that is in the checkpoint
finds its place, or nothing is written. The published adapter has neither ReLU nor bias; the command to test with, which
is printed at the end, says so.
"""

from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('checkpoint', help='published file, final_model_checkpoint.pth')
    parser.add_argument('config', help='one of configs/ballad/, of the same backbone and data set')
    parser.add_argument('--out', required=True, help='checkpoint to write, .pth')
    parser.add_argument('--classes', help="class list: a text file, or 'imagenet'; default that of the config")
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.cli.work.import_ballad import convert_ballad

    return convert_ballad(args)
