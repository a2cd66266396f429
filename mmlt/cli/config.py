"""List the configs that mmlt comes with, print one, or copy one to be edited.

    mmlt config                                   all, by method
    mmlt config mnist-lt                          those with these letters in their name
    mmlt config lift_tiny-vit_mnist-lt            prints it, resolved
    mmlt config lift_tiny-vit_mnist-lt --copy my.py

The copy names the original as its base, so it holds only what you change.
"""

from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('name', nargs='?', help='name, or letters of names; default all')
    parser.add_argument('--copy', metavar='FILE', help='write a config that builds on it, to be edited')
    parser.add_argument('--overwrite', action='store_true', help='replace FILE')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.cli.work.config import show

    return show(args)
