"""Export a trained classifier for use without this project, and without its text tower.

    mmlt export CONFIG CHECKPOINT --format onnx --out model.onnx

Class or anchor embeddings become constants, an adapter is kept, low-rank weights are merged. The input `images` is RGB
in 0..255 as float, resized and cropped, of shape (N, 3, H, W): normalisation is in the graph. The outputs are `logits`
and `probabilities`, (N, C). Beside the file stands <out>.json with class names, input size, how
pictures are read (EXIF's orientation is applied), and the test's transforms.

The logits are compared with those of the trained model, then both are timed in turns.
"""

from mmlt.choices import EXPORT_FORMATS
from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('config', help='config file, or the name of a model')
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint; without one, the pretrained model (zero-shot)')
    parser.add_argument('--format', choices=list(EXPORT_FORMATS), default='onnx', help='default onnx')
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument('--image-size', type=int, nargs='+', help="height and width; default the backbone's")
    parser.add_argument('--batch', default='dynamic', help='how many pictures; default dynamic, any number')
    parser.add_argument('--classes', help="class list: a text file, or 'imagenet'; default that of the checkpoint")
    parser.add_argument('--time-batch', type=int, default=8, help='pictures a batch, besides 1, to time; default 8')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.apis.exporting import ExportOptions, export_model

    return export_model(ExportOptions(**vars(args)))
