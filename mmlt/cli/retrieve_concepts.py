"""Find the pictures nearest to texts in the joint space of an image and a text tower.

    mmlt concepts vlltr_tiny_mnist-lt_cvlp \\
        work_dirs/vlltr_tiny_mnist-lt/cvlp/epoch_20.pth --words "a round shape" "two loops" --against pretrained

The config is any with both towers: CVLP, BALLAD, ContrastivePretrainer, zero-shot. Without checkpoint its pretrained
weights are asked. Texts are encoded as they are, without prompt.
"""

from mmlt.choices import PRETRAINED
from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('config', help='config of a model with both towers')
    parser.add_argument('checkpoint', nargs='?', default=PRETRAINED, help="checkpoint file; default 'pretrained'")
    parser.add_argument('--words', nargs='+', required=True, metavar='TEXT', help='texts to look for')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='test', help='where to look; default test')
    parser.add_argument('-k', type=at_least(1), default=8, help='pictures per text; default 8')
    parser.add_argument('-o', '--out', default='concepts.png', help='PNG to write; default concepts.png')
    parser.add_argument('--against', metavar='CHECKPOINT', help="another checkpoint, or 'pretrained', side by side")
    parser.add_argument('--against-config', metavar='CONFIG', help='config of the other one; default the same')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    args = parser.parse_args(argv)
    if args.against_config and not args.against:
        parser.error('--against-config needs --against')
    return args


@verb(parse_args)
def main(args):
    from mmlt.cli.work.retrieve_concepts import draw_concepts

    return draw_concepts(args)
