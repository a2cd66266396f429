"""Write one HTML page about one or several runs, which opens from the disk and needs no network.

    mmlt report work_dirs/vlltr_tiny_mnist-lt -o work_dirs/report.html
    mmlt report VL-LTR=seed0,seed1,seed2 CE=work_dirs/ce_tiny_mnist-lt

Each is a work directory with shot_report.json, or that file. On the page: the many / medium / few table of all runs; of
every run all classes to be sorted and filtered, accuracy over class size, calibration, confusion between shots, the
worst classes with pictures that were taken for others, learning curves, anchor sentences, recipe and versions. Pictures
and mistakes need predictions.npz, which mmlt test writes.
"""

from mmlt.cli.common import verb
from mmlt.options import ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('work_dirs', nargs='+', metavar='RUN', help='folder, or name=folder,folder,... of seeds')
    parser.add_argument('-o', '--out', default='report.html', help='HTML file to write; default report.html')
    parser.add_argument('--title', help='heading of the page; default the names of the runs')
    parser.add_argument('--worst', type=at_least(0), default=12, help='worst classes to show; default 12')
    parser.add_argument('--pictures', type=at_least(0), default=4, help='pictures of each of them; default 4')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.visualization import named_runs
    from mmlt.visualization.html_report import collect_runs, html_path, write_page

    html_path(args.out)  # before the work, not after it
    groups = named_runs(args.work_dirs)
    runs = collect_runs(groups, args.worst, args.pictures)
    for each in runs:
        for note in each.notes:
            print(f'{each.name}: {note}')
    size = write_page(runs, groups, args.out, args.title or '')
    print(f'Report: {args.out} ({size / 1e6:.1f} MB)')
