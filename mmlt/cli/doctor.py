"""Say what is installed here, and what will not work.

    mmlt doctor

Version, stack, device, precision, data and weights that are here, a line each; then what is missing, with the remedy.
"""

from mmlt.cli.common import verb
from mmlt.options import ToolParser


def parse_args(argv=None):
    return ToolParser(__doc__).parse_args(argv)


@verb(parse_args)
def main(_):
    from mmlt.cli.work.doctor import examine

    return examine()
