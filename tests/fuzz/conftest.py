"""The table of what was tried."""

from collections import Counter

import pytest

TABLE: dict[str, Counter] = {}
COLUMNS = ('tried', 'accepted', 'one sentence', 'other')


@pytest.fixture(scope='session')
def note():
    """Count an outcome of a kind."""

    def count(kind: str, outcome: str) -> None:
        TABLE.setdefault(kind, Counter()).update(['tried', outcome])

    return count


def pytest_terminal_summary(terminalreporter):
    if TABLE:
        terminalreporter.write_line(f'{"damaged inputs":28}' + ''.join(f'{name:>15}' for name in COLUMNS))
        for kind, counts in TABLE.items():
            terminalreporter.write_line(f'{kind:28}' + ''.join(f'{counts[name]:15}' for name in COLUMNS))
