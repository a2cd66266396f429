"""Write both towers of one of our checkpoints as an open_clip weight file.

    mmlt to-open-clip work_dirs/ballad_rn50_imagenet-lt/phase_a/epoch_50.pth a.safetensors

open_clip reads the result with open_clip.create_model(NAME, pretrained=FILE), and so do our configs.
"""

from mmlt.cli.common import verb
from mmlt.options import ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint of a training with both towers')
    parser.add_argument('out', help='file to write, .safetensors')
    parser.add_argument('--drop', nargs='+', default=[], help='names to leave out, for example neck.')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.checkpoints import read_checkpoint
    from mmlt.checkpoints.converters import expect_kind
    from mmlt.checkpoints.open_clip_files import export_open_clip
    from mmlt.checkpoints.weights import bare_names
    from mmlt.engine.importing import check_out

    check_out(args.out)
    checkpoint = read_checkpoint(args.checkpoint)
    expect_kind(checkpoint, ['mmlt'], args.checkpoint)
    state = bare_names(checkpoint['state_dict'])
    renamed = export_open_clip(state, args.out, args.checkpoint, args.drop)
    print(f'{renamed}\nWritten to {args.out}.')
    if bool(state.get('backbone.activation.quick_gelu', False)):
        print(
            'The model has QuickGELU, which the file cannot say: create it with force_quick_gelu=True, in our configs '
            'with quick_gelu=True on both towers.'
        )
