"""Print the many / medium / few table of several runs, mean and standard deviation over seeds.

    mmlt compare work_dirs/vlltr_tiny_mnist-lt work_dirs/ce_tiny_mnist-lt
    mmlt compare VL-LTR=seed0,seed1,seed2 CE=ce0,ce1,ce2 --markdown

Each is a work directory with shot_report.json, or that file. The deviation is that of a sample (n - 1). The mean over
classes and the accuracy over samples stand side by side, whichever the protocol calls 'all'; runs of different
measures or protocols say so in their rows.
"""

from rich.console import Console

from mmlt.cli.common import verb
from mmlt.options import ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='folder, or name=folder,folder,... of seeds')
    parser.add_argument('--markdown', action='store_true', help='print the table as Markdown')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.visualization import (
        comparison_markdown,
        comparison_table,
        named_runs,
        read_report,
        summarise,
        what_is_shown,
    )

    reports = {name: [read_report(f) for f in folders] for name, folders in named_runs(args.work_dirs).items()}
    rows = summarise(reports)
    shown = {what_is_shown(group[0]) for group in reports.values()}
    title = shown.pop() if len(shown) == 1 else 'in percent'  # else every row tells its own
    if args.markdown:
        print(comparison_markdown(rows, title))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(comparison_table(rows, title))
