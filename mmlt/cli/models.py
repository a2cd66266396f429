"""List the models that mmlt comes with, and what papers report and we measured of them.

    mmlt models
    mmlt models lift

Accuracies over all classes in percent; the column 'paper' has the papers' own figures, 'measured' ours.
"""

from rich.console import Console
from rich.table import Table

from mmlt.cli.common import verb
from mmlt.errors import InputError
from mmlt.options import ToolParser


def parse_args(argv=None):
    parser = ToolParser(__doc__)
    parser.add_argument('letters', nargs='?', default='', help='letters of the names; default all')
    return parser.parse_args(argv)


@verb(parse_args)
def main(args):
    from mmlt.apis import list_models
    from mmlt.engine.paper_rows import read_figures, shown

    letters = args.letters.lower()
    names = [name for name in list_models() if letters in name]
    if not names:
        raise InputError(f"No model has '{letters}' in its name: 'mmlt models' lists all.")
    figures = read_figures()
    table = Table('model', 'paper', 'measured')
    for name in names:
        key = tuple(name.split('_', 2))
        overall = [(figures[part].get(key) or {}).get('all') for part in ('paper', 'measured')]
        table.add_row(name, *('-' if x in (None, '-') else shown(float(x)) for x in overall))
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
