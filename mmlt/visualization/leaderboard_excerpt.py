"""The main rows of the leaderboard, as tables in another page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mmlt.errors import InputError
from mmlt.visualization.leaderboard import Group, Runs
from mmlt.visualization.leaderboard_page import mean_and_deviation, values

_TABLE = re.compile(r'(<!-- table of (\S+), made by tools/leaderboard.py -->\n).*?(<!-- end of table -->)', re.S)
_COLUMNS = {'many': 'many', 'medium': 'medium', 'few': 'few', 'all': 'all', 'tte': 'all, with TTE'}


def excerpt(group: Group, runs: Runs, link: Callable[[str], str]) -> str:
    """The rows with ``main`` as Markdown.

    Args:
        group (Group): The table.
        runs (Runs): See :func:`read_runs`.
        link (Callable): Where a config of a name is.
    """
    lines = [f'| {group.title} | {" | ".join(_COLUMNS.values())} |', f'| :-- |{" :-: |" * len(_COLUMNS)}']
    most = max(map(len, runs.values()))
    for row in (row for row in group.rows if row.main):
        cells = [mean_and_deviation(values(runs[row.folder], column)) for column in _COLUMNS]
        number = len(runs[row.folder])
        fewer = '' if number in (0, most) else f' ({number} of {most} seeds)'
        lines.append(f'| [{row.label}]({link(row.config)}){fewer} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def fill_excerpts(text: str, found: Mapping[str, tuple[Group, Runs]], link: Callable[[str], str]) -> str:
    """A page with its tables as the runs say now.

    Args:
        text (str): The page, with ``<!-- table of <key>, made by
            tools/leaderboard.py -->`` and ``<!-- end of table -->``.
        found (Mapping): Tables and their runs by key.
        link (Callable): See :func:`excerpt`.

    Returns:
        str: The page.

    Raises:
        InputError: A table that is not known, or a marker without its other.
    """

    def table(match: re.Match) -> str:
        if match[2] not in found:
            raise InputError(f"The page has a place for the table '{match[2]}'; there are {', '.join(found)}.")
        return f'{match[1]}{excerpt(*found[match[2]], link)}\n{match[3]}'

    filled, number = _TABLE.subn(table, text)
    if any(text.count(part) != number for part in ('made by tools/leaderboard.py -->', '<!-- end of table -->')):
        raise InputError('The page has a marker of a table without its other: mend it, or text would be lost.')
    return filled
