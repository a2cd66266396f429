"""Turn a checkpoint that VL-LTR's authors published into one of ours.

Stage 1, with its sentence embeddings and scores, from which the anchor sentences are selected; the config is that of
the pretraining:

    mmlt import vlltr checkpoint.pth vlltr_rn50_imagenet-lt_cvlp \\
        --out cvlp/epoch_50.pth --embeddings txt_embed.npy --scores train_txt_ce.npy --texts data/imagenet/wiki

Stage 2; the config is that of the LGR head:

    mmlt import vlltr checkpoint.pth vlltr_rn50_imagenet-lt --out lgr.pth

The published files do not say how many sentences a class has: --counts gives them (one number a line), or, for stage 1,
--texts, the corpus, which also gives the sentences themselves. Without --counts, stage 2 takes zero embeddings for
padding. Everything that is in the checkpoint finds its place, or nothing is written.
"""

from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('checkpoint', help='published file, checkpoint.pth, of stage 1 or 2')
    parser.add_argument('config', help='one of configs/vlltr/, of the same stage, backbone and data set')
    parser.add_argument('--out', required=True, help='checkpoint to write, .pth; anchors.safetensors goes beside it')
    parser.add_argument('--embeddings', help='stage 1: txt_embed.npy')
    parser.add_argument('--scores', help='stage 1: train_txt_ce.npy or val_txt_ce.npy')
    parser.add_argument('--num-anchors', type=int, help='stage 1: anchor sentences a class; default 64')
    known = parser.add_mutually_exclusive_group()
    known.add_argument('--counts', help='text file, how many sentences every class has')
    known.add_argument('--texts', help='stage 1: the corpus, a folder, .json or .csv file')
    parser.add_argument('--templates', help="with --texts: prompts before the texts; default 'imagenet'")
    parser.add_argument('--classes', help="class list: a text file, or 'imagenet'; default that of the config")
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.cli.work.import_vlltr import convert_vlltr

    return convert_vlltr(args)
