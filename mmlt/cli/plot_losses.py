"""Draw the training and validation losses of one or several runs.

    mmlt plot-losses work_dirs/vlltr_tiny_mnist-lt work_dirs/ce_tiny_mnist-lt
    mmlt plot-losses VL-LTR=seed0,seed1,seed2 CE=other -o losses.png

A run that was resumed is one curve. The validation loss is shot/nll of mmlt.ShotAccuracy; stages of a run are in
folders of their own within its work directory.
"""

from mmlt.cli.common import verb
from mmlt.options import ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='folder, or name=folder,folder,... of seeds')
    parser.add_argument('-o', '--out', default='losses.png', help='PNG to write; default losses.png')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.visualization import named_runs, plot_losses, read_losses

    runs = {name: [read_losses(f) for f in folders] for name, folders in named_runs(args.work_dirs).items()}
    plot_losses(runs, args.out)
    for name, seeds in runs.items():
        if not any(curves.val for curves in seeds):
            print(f"'{name}' has no validation loss: only its training loss is drawn.")
    print(f'Picture: {args.out}')
