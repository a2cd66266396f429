"""Check a row of a paper's table: train all stages, or take a published checkpoint, test, and compare.

    mmlt reproduce vlltr tiny mnist-lt
    mmlt reproduce vlltr rn50 imagenet-lt --dry-run --step-time 0.4
    mmlt reproduce vlltr rn50 imagenet-lt --checkpoint checkpoint.pth --data data/imagenet

The config is configs/*/METHOD_BACKBONE_DATASET.py. The data are checked first; what was trained before in the work
directory is not trained again. At the end stands a table of the paper's figures and these, and reproduce.json.
"""

from mmlt.cli.common import verb
from mmlt.options import ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('method', help='for example vlltr, ballad, lift, more, zeroshot, ce')
    parser.add_argument('backbone', help='for example rn50, vit-b16, tiny')
    parser.add_argument('dataset', help='for example imagenet-lt, places-lt, inat18, mnist-lt')
    parser.add_argument('--checkpoint', help='test this one, published or our own, and train nothing')
    parser.add_argument('--data', metavar='ROOT', help="the data set's folder; default that of the config")
    parser.add_argument('--dry-run', action='store_true', help='print commands, costs and what is missing')
    parser.add_argument('--work-dir', help='default work_dirs/<config name>, with --checkpoint <config name>_published')
    parser.add_argument('--gpus', type=at_least(1), help='processes that train; default all GPUs of this machine, or 1')
    parser.add_argument(
        '--step-time', type=float, nargs='+', metavar='SECONDS', help='--dry-run: of a step, for all stages or for each'
    )
    parser.add_argument('--measure', action='store_true', help='--dry-run: measure a step here, on random pictures')
    parser.add_argument('--seed', type=at_least(0), help='default that of the config')
    parser.add_argument('--tta', action='store_true', help="test-time ensembling, as in LIFT's second row")
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision in every stage')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale learning rates to the actual batch size')
    parser.add_argument('--restart', nargs='*', metavar='STAGE', help='train anew, see mmlt train')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='settings to override, see mmlt train')
    args = parser.parse_args(argv)
    if (args.step_time or args.measure) and not args.dry_run:
        parser.error('--step-time and --measure belong to --dry-run')
    return args


@verb(parse_args)
def main(args):
    from mmlt.cli.work.reproduce import dry_run, reproduce

    return dry_run(args) if args.dry_run else reproduce(args)
