"""Draw the accuracy that a run gains over a baseline, class by class, the largest class at the left.

    mmlt plot-gain work_dirs/vlltr_tiny_mnist-lt work_dirs/ce_tiny_mnist-lt

Each is a work directory with shot_report.json, or that file.
"""

import os.path as osp

from mmlt.cli.common import verb
from mmlt.options import ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('report', help='work directory or shot_report.json')
    parser.add_argument('baseline', help='the one to compare with')
    parser.add_argument('-o', '--out', default='class_gain.png', help='PNG to write; default class_gain.png')
    return parser.parse_args(argv)


def run_name(path: str) -> str:
    path = osp.abspath(path)
    return osp.basename(path if osp.isdir(path) else osp.dirname(path))


@verb(parse_args)
def main(args):
    from mmlt.visualization import plot_class_gain, read_report

    title = f'{run_name(args.report)} over {run_name(args.baseline)}'
    plot_class_gain(read_report(args.report), read_report(args.baseline), args.out, title)
    print(f'Picture: {args.out}')
