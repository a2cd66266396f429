"""Write the neighbour classes that mmlt.CUELoss reads: those with the nearest class texts.

    mmlt neighbours cue_vit-b16_imagenet-lt \\
        -o data/imagenet/neighbours.json
    mmlt neighbours --model ViT-B-16 --pretrained openai --classes imagenet

The text tower, its prompts and the class names are those of the config, of its teacher where it has one. The paper asks
a language model for related classes; where one is at hand, ask it, and give its answer in the same form:
{"tiger": ["lion", "leopard"], ...}.
"""

from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('config', nargs='?', help='config whose text tower and class names are taken')
    parser.add_argument('--model', help='name of an open_clip model, in place of a config')
    parser.add_argument('--pretrained', help='its weights: a tag of open_clip, or a file')
    parser.add_argument('--classes', help="class list: a text file, or 'imagenet'; default that of the config")
    parser.add_argument('--templates', nargs='+', help="prompts, or their name; default the config's, or 'clip'")
    parser.add_argument('--top', type=at_least(1), default=5, help='neighbours of a class; default 5')
    parser.add_argument('-o', '--out', default='neighbours.json', help='JSON to write; default neighbours.json')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    args = parser.parse_args(argv)
    if (args.config is None) == (args.model is None):
        parser.error('give a config, or --model with --pretrained and --classes')
    if args.model and not args.classes:
        parser.error('--model needs --classes')
    return args


@verb(parse_args)
def main(args):
    from mmlt.cli.work.class_neighbours import write_neighbours

    return write_neighbours(args)
