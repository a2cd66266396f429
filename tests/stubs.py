"""The files in tools/, which only call a module of mmlt."""

import importlib
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).parents[1] / 'tools'
STUB = """import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[{}]))

from {} import main

if __name__ == '__main__':
    {}
"""


def tool(path: str) -> ModuleType:
    """The module that a tool calls.

    Args:
        path (str): Of the tool, below tools/ and without suffix.
    """
    text = (TOOLS / f'{path}.py').read_text()
    name = text.partition('\nfrom mmlt')[2].partition(' import')[0]
    calls = (STUB.format(1 + path.count('/'), f'mmlt{name}', call) for call in ('main()', 'sys.exit(main())'))
    assert text in calls, f'tools/{path}.py is more than a call'
    return importlib.import_module(f'mmlt{name}')
