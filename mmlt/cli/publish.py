"""Make a checkpoint ready to be given away: merged, without optimizer and logs.

    mmlt publish IN.pth OUT.pth

A checkpoint of MORE becomes one of the plain config; its logits before and
after are compared on random images. Of any other checkpoint the weights and
the meta data stay.
"""

from mmlt.cli.common import verb
from mmlt.options import ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('in_file', help='checkpoint of a training')
    parser.add_argument('out_file', help='where the published one goes')
    parser.add_argument('--config', help='a plain config that the result must fit; default the one in the checkpoint')
    parser.add_argument(
        '--size', type=at_least(1), help="pixels of the images of the check; default the backbone's, or 224"
    )
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.cli.work.publish import publish

    return publish(args)
