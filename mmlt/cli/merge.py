"""Merge checkpoints of one architecture into one: soups, WiSE-FT, and the recursion of LT-Soups.

    mmlt merge A.pth B.pth --out soup.pth
    mmlt merge A.pth B.pth --out soup.pth --weights 2 1
    mmlt merge A.pth B.pth C.pth --out soup.pth --greedy CONFIG
    mmlt merge A.pth --out wise.pth --wise-ft ZEROSHOT.pth --config CONFIG
    mmlt merge A.pth --out wise.pth --wise-ft pretrained --config CONFIG
    mmlt merge A.pth --out wise.pth --wise-ft ZEROSHOT.pth --alphas 0.5
    mmlt merge I1.pth I2.pth I4.pth --out soup.pth --lt-soups ZEROSHOT.pth

--greedy and a range of --alphas choose on the validation set of CONFIG, never on its test set unless --on-test says so.
With --wise-ft several checkpoints are merged first. alpha is the share of the fine-tuned model; the sweep's table and
picture go to --work-dir. --wise-ft pretrained is the model as CONFIG begins. --bn-images measures the statistics of
BatchNorm on training images of CONFIG, for all that is compared and for the result; without it they are averaged.
"""

import os.path as osp

from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('checkpoints', nargs='+', help='of trainings')
    parser.add_argument('--out', required=True, help='where the merged one goes')
    parser.add_argument('--weights', nargs='+', type=float, help='a share for each checkpoint; default equal ones')
    parser.add_argument('--greedy', metavar='CONFIG', help='take only what does not hurt on its validation set')
    parser.add_argument('--lt-soups', metavar='ANCHOR', help='merge one by one into ANCHOR, the most balanced first')
    parser.add_argument('--ratio', type=float, help='share of each with --lt-soups; default 0.7')
    parser.add_argument('--wise-ft', metavar='ZEROSHOT', help="a checkpoint, or 'pretrained' for CONFIG's own")
    parser.add_argument('--alphas', help='with --wise-ft, a number or first:last:step; default 0:1:0.1')
    parser.add_argument('--config', help='whose validation set the alpha is chosen on; default that of --greedy')
    parser.add_argument('--figure', default='all', help='of the shot metric, to choose by; default all')
    parser.add_argument('--on-test', action='store_true', help='choose on the test set; the result is no estimate')
    parser.add_argument('--bn-images', type=at_least(1), help='training images of CONFIG to measure BatchNorm on')
    parser.add_argument('--work-dir', help='for log, table and picture; default OUT_merging')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    args = parser.parse_args(argv)
    ways = [name for name in ('weights', 'greedy', 'lt_soups') if getattr(args, name) is not None]
    if len(ways) > 1:
        parser.error(f'--{ways[0]} and --{ways[1]} are two ways to merge: give one'.replace('_', '-'))
    for option, needed in (('alphas', 'wise_ft'), ('ratio', 'lt_soups')):
        if getattr(args, option) is not None and getattr(args, needed) is None:
            parser.error(f'--{option} needs --{needed}'.replace('_', '-'))
    if args.bn_images and not (args.config or args.greedy):
        parser.error('--bn-images needs --config, whose training images are looked at')
    if len(args.checkpoints) == 1 and not (args.wise_ft or args.lt_soups):
        parser.error('one checkpoint is nothing to merge: give several, or --wise-ft')
    args.work_dir = args.work_dir or f'{osp.splitext(args.out)[0]}_merging'
    return args


@verb(parse_args)
def main(args):
    from mmlt.cli.work.merge import merge_files

    return merge_files(args)
