"""Write the neighbour classes that mmlt.CUELoss reads: those with the nearest class texts.

    mmlt neighbours cue_vit-b16_imagenet-lt \\
        -o data/imagenet/neighbours.json
    mmlt neighbours --model ViT-B-16 --pretrained openai --classes imagenet

The text tower, its prompts and the class names are those of the config, of its teacher where it has one. The paper asks
a language model for related classes; where one is at hand, ask it, and give its answer in the same form:
{"tiger": ["lion", "leopard"], ...}.
"""

import json
import os.path as osp

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from mmlt.checkpoints import write_text
from mmlt.cli.common import told
from mmlt.datasets.texts.class_names import class_list, config_classes
from mmlt.engine.configs import read_config
from mmlt.engine.options import CfgOptions, ToolParser, at_least
from mmlt.engine.stages import resolve_placeholders, starting_checkpoint
from mmlt.errors import InputError
from mmlt.models import TextClsHead
from mmlt.models.losses import nearest_classes
from mmlt.models.open_clip_towers import carries_weights

SHOWN = 10  # classes in the printed table


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('config', nargs='?', help='config whose text tower and class names are taken')
    parser.add_argument('--model', help='name of an open_clip model, in place of a config')
    parser.add_argument('--pretrained', help='its weights: a tag of open_clip, or a file')
    parser.add_argument('--classes', help="class list: a text file, or 'imagenet'; default that of the config")
    parser.add_argument('--templates', nargs='+', help="prompts, or their name; default the config's, or 'clip'")
    parser.add_argument('--top', type=at_least(1), default=5, help='neighbours of a class; default 5')
    parser.add_argument('-o', '--out', default='neighbours.json', help='JSON to write; default neighbours.json')
    parser.add_argument('--overwrite', action='store_true', help='replace the JSON, which one may have edited')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, key=value')
    args = parser.parse_args(argv)
    if (args.config is None) == (args.model is None):
        parser.error('give a config, or --model with --pretrained and --classes')
    if args.model and not args.classes:
        parser.error('--model needs --classes')
    return args


def find_tower(model: dict, where: str) -> tuple[dict, str | list[str]]:
    """Arguments of a config's text tower, and its prompts: the teacher's, the head's, or those of a pretraining."""
    head = model.get('head') or {}
    for tower, owner in (
        (model.get('teacher'), model.get('teacher')),
        (head.get('text'), head),
        (model.get('text'), {}),
    ):
        if tower:
            names = ('model', 'pretrained', 'quick_gelu')
            return {key: tower[key] for key in names if key in tower}, owner.get('templates', 'clip')
    raise InputError(f"The model of '{where}' has no text tower: give a config of a model that has, or --model.")


def read_arguments(args) -> tuple[dict, str | list[str], tuple[str, ...]]:
    """Arguments of the text tower, prompts and class names."""
    classes = class_list(args.classes) if args.classes else None
    templates: str | list[str]
    if args.model:
        tower, templates = dict(model=args.model, pretrained=args.pretrained), 'clip'
    else:
        cfg = read_config(args.config, args.cfg_options)
        if not cfg.get('work_dir'):
            cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
        starting_checkpoint(cfg)  # an earlier stage that makes the weights must be finished
        resolve_placeholders(cfg)
        tower, templates = find_tower(cfg.model, args.config)
        classes = classes or config_classes(cfg)
    if classes is None:
        raise InputError(f"The class names of '{args.config}' are in files that are not there: give --classes.")
    if tower.get('pretrained') is None and not carries_weights(tower['model']):
        raise InputError(f"'{args.config or args.model}' names no pretrained weights: give --pretrained, or a config.")
    if args.templates:
        templates = args.templates[0] if len(args.templates) == 1 else args.templates
    return tower, templates, classes


@torch.no_grad()
def embed(tower: dict, templates: str | list[str], classes: tuple[str, ...]) -> Tensor:
    """Embeddings of the classes' texts, (C, D)."""
    text = dict(type='mmlt.OpenCLIPText', frozen=True, **tower)
    head = TextClsHead(text=text, templates=templates, classes=classes).eval()
    head.init_weights()
    return head.class_embeddings()


def neighbours_table(found: dict[str, list[tuple[str, float]]]) -> Table:
    """The first classes with their neighbours."""
    table = Table()
    table.add_column('class')
    table.add_column('neighbours, by cosine')
    for name, nearest in list(found.items())[:SHOWN]:
        table.add_row(escape(name), escape(', '.join(f'{other} {cosine:.2f}' for other, cosine in nearest)))
    if len(found) > SHOWN:
        table.caption = f'the first {SHOWN} of {len(found)} classes'
    return table


@told
def main(argv=None):
    args = parse_args(argv)
    if osp.exists(args.out) and not args.overwrite:
        raise InputError(f"'{args.out}' exists: give another -o, or --overwrite.")
    tower, templates, classes = read_arguments(args)
    found = nearest_classes(embed(tower, templates, classes), classes, args.top)
    names = {name: [other for other, _ in nearest] for name, nearest in found.items()}
    write_text(args.out, json.dumps(names, indent=1, ensure_ascii=False) + '\n')
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(neighbours_table(found))
    print(f'Neighbours: {args.out}')
