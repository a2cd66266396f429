"""Make pictures of one's own into a long-tailed data set with ready configs.

    mmlt prepare pictures/ --out data/mine
    mmlt train data/mine/vlltr_mine.py

The source is a folder with a folder of pictures for every class, a folder of splits (train/, test/ and perhaps val/,
each with a folder for every class), which are then taken as they are, a table (.csv, .tsv) with the columns image and
label, an annotation in MMEngine's form (.json), or a list of `relative/path label` lines. The pictures stay where
they are. Into --out go the lists of a seeded split, classes.txt, a picture of the class sizes, and a config for every
method.
"""

import os.path as osp
import shlex
import sys

from mmlt.cli.common import verb
from mmlt.options import ToolParser, at_least


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument(
        'source', nargs='+', help='folder of class folders or of splits, .csv or .tsv table, .json annotation, or list'
    )
    parser.add_argument('--out', required=True, help='folder for lists and configs')
    parser.add_argument('--name', help="the data set's name, a part of file names; default that of --out")
    parser.add_argument('--root', help='what paths in a table, annotation or list are relative to; default its folder')
    data = parser.add_argument_group('data')
    data.add_argument('--test-per-class', type=int, help='test pictures a class; default a fifth of the middle class')
    data.add_argument('--val-per-class', type=int, default=0, help='validation pictures a class; default 0, none')
    data.add_argument('--tail-ratio', type=float, help='cut the training split to this ratio of largest to smallest')
    data.add_argument('--seed', type=int, default=0, help='of split and tail; default 0')
    data.add_argument('--class-names', help='text file: a name a line, in the order of the classes')
    data.add_argument('--texts', help='class texts for VL-LTR: a folder, .json or .csv, see docs/datasets.md')
    data.add_argument('--skip-unreadable', action='store_true', help='leave out pictures that cannot be read')
    model = parser.add_argument_group('configs')
    model.add_argument('--model', default='ViT-B-16', help='open_clip model; default ViT-B-16')
    model.add_argument('--pretrained', help='tag, weight file, or none; default openai, or what --model brings')
    model.add_argument('--quick-gelu', action='store_true', default=None, help='as OpenAI trained; default by weights')
    model.add_argument('--image-size', type=at_least(1), help="pixels; default the model's")
    model.add_argument('--epochs', type=at_least(1), help='of every stage; default by the number of pictures')
    model.add_argument('--batch-size', type=at_least(1), default=64, help='default 64, or as many as there are')
    model.add_argument('--no-flip', action='store_true', help='mirrored pictures are wrong, as of letters')
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier result in --out')
    args = parser.parse_args(argv)
    args.command = shlex.join(sys.argv[1:] if argv is None else argv)  # goes into the configs
    return args


@verb(parse_args)
def main(args):
    from mmlt.engine.configs import CONFIGS
    from mmlt.preparation.prepare import PrepareOptions, prepare

    given = vars(args)
    command = given.pop('command').encode('utf-8', 'backslashreplace').decode()
    configs = prepare(PrepareOptions(**given, base=str(CONFIGS / '_base_')), f'mmlt prepare {command}')
    vlltr = next(path for path in configs if osp.basename(path).startswith('vlltr_') and not path.endswith('_cvlp.py'))
    print(f'Now: mmlt train {shlex.quote(vlltr)}')
