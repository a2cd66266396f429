"""Turn a checkpoint that BALLAD's authors published into one of ours.

    mmlt import ballad final_model_checkpoint.pth \\
        ballad_rn50_imagenet-lt --out ballad_rn50.pth

The config is that of phase B, or, for a checkpoint without adapter, of phase A. Everything that is in the checkpoint
finds its place, or nothing is written. The published adapter has neither ReLU nor bias; the command to test with, which
is printed at the end, says so.
"""

from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.converters import fill, from_ballad
from mmlt.cli.common import told
from mmlt.engine.importing import build_to_fill, check_out, tell_head_classes, write_imported
from mmlt.engine.options import CfgOptions, ToolParser

ADAPTER = {'model.neck.relu': False, 'model.neck.bias': False}  # as published


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('checkpoint', help='published file, final_model_checkpoint.pth')
    parser.add_argument('config', help='one of configs/ballad/, of the same backbone and data set')
    parser.add_argument('--out', required=True, help='checkpoint to write, .pth')
    parser.add_argument('--classes', help="class list: a text file, or 'imagenet'; default that of the config")
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    return parser.parse_args(argv)


def convert_ballad(args) -> None:
    check_out(args.out)
    renamed = from_ballad(read_checkpoint(args.checkpoint), args.checkpoint)
    cfg, model = build_to_fill(args.config, args.cfg_options)
    options = ''
    if 'neck.linear.weight' in renamed.state and cfg.model.get('neck'):
        cfg, model = build_to_fill(args.config, {**(args.cfg_options or {}), **ADAPTER})
        options = ' --cfg-options ' + ' '.join(f'{key}={value}' for key, value in ADAPTER.items())
    classes = tell_head_classes(cfg, model, args.classes)
    fill(model, renamed, args.checkpoint)
    write_imported(args.out, cfg, model, classes, args.checkpoint)
    print(f'{renamed}\nWritten to {args.out}. To test it:\nmmlt test {args.config} {args.out}{options}')


@told
def main(argv=None):
    return convert_ballad(parse_args(argv))
