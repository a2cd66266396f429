"""Classify pictures with a trained model, or with a pretrained one (zero-shot).

    mmlt infer cat.jpg photos/ --config vlltr_rn50_imagenet-lt \\
        --checkpoint epoch_50.pth

A folder stands for all pictures in it. A model with the LGR head also tells which anchor sentences of the predicted
class it attended to most.
"""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmlt.cli.common import verb
from mmlt.options import CfgOptions, ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('images', nargs='+', help='pictures, or folders of pictures')
    parser.add_argument('--config', required=True, help='config file, or the name of a model')
    parser.add_argument('--checkpoint', help='its checkpoint; without one, the pretrained model (zero-shot)')
    parser.add_argument('--classes', help="class list: a text file, or 'imagenet'; default that of the checkpoint")
    parser.add_argument('--top', type=int, default=5, help='classes to tell; default 5')
    parser.add_argument('--explain', type=int, help='anchor sentences to tell; default 3 with the LGR head')
    parser.add_argument('--device', default='cpu', help='for example cuda; default cpu')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    return parser.parse_args(argv)


def result_table(result: dict) -> Table:
    """Classes with their probabilities and, below, the sentences that decided."""
    table = Table()
    table.add_column('class')
    table.add_column('probability', justify='right')
    for name, probability in result['top']:
        table.add_row(escape(name), f'{probability:.1%}')
    if 'anchor_sentences' in result:
        table.add_section()
        for weight, sentence in result['anchor_sentences']:
            table.add_row(escape(sentence), f'attention {weight:.1%}', style='dim')
    return table


@verb(parse_args)
def main(args):
    from mmlt.apis import get_model, inference
    from mmlt.apis.inference import check_numbers
    from mmlt.datasets.texts.class_names import class_list
    from mmlt.models import LGRHead

    check_numbers(args.top, args.explain)
    classes = class_list(args.classes) if args.classes else None
    model = get_model(args.config, args.checkpoint, args.device, classes, args.cfg_options)
    explain = args.explain
    if explain is None:
        explain = 3 if isinstance(model.head, LGRHead) else 0
    console = Console()
    for result in inference(model, args.images, args.top, explain):
        console.print(result['image'], style='bold', markup=False, highlight=False, soft_wrap=True)
        console.print(result_table(result))
