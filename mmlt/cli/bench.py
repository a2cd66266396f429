"""Run a benchmark: ours beside what it is compared to, interleaved, as a ratio.

    mmlt bench                 lists them
    mmlt bench ccl --batch 512 --rounds 1

Arguments after the name go to the benchmark: mmlt bench ccl --help.
"""

import ast
import difflib
import importlib
import sys
from pathlib import Path

from mmlt.cli.common import load_package

FOLDER = Path(__file__).parents[1] / 'benchmarks'


def benchmarks() -> dict[str, str]:
    """First lines of all benchmarks by their names."""
    files = (f for f in sorted(FOLDER.glob('*.py')) if f.stem not in ('__init__', 'common'))
    return {f.stem: ast.get_docstring(ast.parse(f.read_text(encoding='utf-8'))).split('\n')[0] for f in files}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ('-h', '--help'):
        print(__doc__)
        print('\n'.join(f'{name:18s} {what}' for name, what in benchmarks().items()))
        return 0
    name, *rest = argv
    if name not in benchmarks():
        near = difflib.get_close_matches(name, benchmarks(), 1, 0.5)
        meant = f", perhaps '{near[0]}'" if near else ''
        sys.exit(f"mmlt: there is no benchmark '{name}'{meant}; 'mmlt bench' lists them.")
    sys.argv = [f'mmlt bench {name}', *rest]
    load_package()
    return importlib.import_module(f'mmlt.benchmarks.{name}').main()
