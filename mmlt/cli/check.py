"""Check a downloaded data set: all files there and whole, its statistics the published ones.

    mmlt check imagenet-lt data/imagenet

It prints the long tail, draws it, and names every fault; the exit code is 1 if there is one. --out writes the
annotation as `relative/path label` lines, for tools that read nothing else; the configs do not need it.
"""

from mmlt.cli.common import verb
from mmlt.errors import InputError
from mmlt.options import ToolParser
from mmlt.preparation.published import published_facts


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('name', choices=sorted(published_facts()), help='which data set')
    parser.add_argument('root', help='the folder that docs/datasets.md shows, for example data/imagenet')
    parser.add_argument('--decode', action='store_true', help='read every picture; takes minutes')
    parser.add_argument(
        '--out', help='write <split>.txt and classes.txt here; not for CIFAR, whose files hold many pictures each'
    )
    parser.add_argument('--picture', help='PNG of the class sizes; default class_sizes_<name>.png')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    import mmlt.preparation.multi_label_checks  # noqa: F401  adds VOC-LT and COCO-LT
    from mmlt.preparation.checks import DOWNLOADS, check_contents, write_annotation
    from mmlt.visualization import class_size_report, plot_class_sizes, print_class_sizes

    download = DOWNLOADS[args.name]
    contents = check_contents(download, args.root, args.decode)
    if contents.counts is not None:
        named = len(contents.classes) == len(contents.counts)
        report = class_size_report(contents.counts, contents.classes if named else None, download.protocol)
        print_class_sizes(report, download.title)
        picture = args.picture or f'class_sizes_{args.name}.png'
        plot_class_sizes(report, picture, download.title)
        print(f'Picture: {picture}')
    if download.note:
        print(download.note)
    for problem in contents.problems:
        print(f'FAULT: {problem}')
    if contents.problems:
        print(f"docs/datasets.md shows what '{args.root}' should hold, and where to get it.")
    if args.out and contents.problems:
        raise InputError('No annotation is written, since the data set has the faults above.')
    if args.out:
        print(f'Written: {", ".join(write_annotation(contents, args.out))}')
    if not contents.problems:
        print(f'{download.title} is complete.')
    return int(bool(contents.problems))
