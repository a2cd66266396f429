"""Several runs side by side, mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from mmlt.errors import InputError
from mmlt.visualization.report import SHOT_COLOURS
from mmlt.visualization.runs import check_same_classes

COLUMNS = (*SHOT_COLOURS, 'all')


def summarise(groups: Mapping[str, Sequence[dict]]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Mean and standard deviation of the accuracies of every group of reports.

    Args:
        groups (Mapping[str, Sequence[dict]]): Names, and the reports of one or
            several seeds.

    Returns:
        dict: By name and column (many, medium, few, all): the mean, and the
        sample standard deviation, divided by n - 1; None of one seed. A column
        that a report lacks is left out.

    Raises:
        InputError: The reports have different classes or protocols.
    """
    named = {f"'{name}'" if i == 0 else f"'{name}' ({i + 1})": r for name, g in groups.items() for i, r in enumerate(g)}
    check_same_classes(named)
    protocols = {report['protocol']: name for name, report in named.items()}
    if len(protocols) > 1:
        (a, first), (b, second), *_ = protocols.items()
        raise InputError(f"{first} was tested by the protocol '{a}' and {second} by '{b}': test them by the same one.")
    rows = {}
    for name, group in groups.items():
        rows[name] = {}
        for column in COLUMNS:
            if all(column in report['metrics'] for report in group):
                values = np.array([report['metrics'][column] for report in group])
                rows[name][column] = (float(values.mean()), float(values.std(ddof=1)) if len(group) > 1 else None)
    return rows


def _cells(values: dict[str, tuple[float, float | None]]) -> list[str]:
    cells = []
    for column in COLUMNS:
        mean, deviation = values.get(column, (None, None))
        cell = '–' if mean is None else f'{mean:.1f}'
        cells.append(cell if deviation is None else f'{cell} ± {deviation:.1f}')
    return cells


def comparison_table(rows: Mapping[str, dict], title: str = '') -> Table:
    """The table for the terminal.

    Args:
        rows (Mapping[str, dict]): See :func:`summarise`.
        title (str): Defaults to ''.

    Returns:
        Table: One row a name.
    """
    table = Table(title=Text(title), title_justify='left', box=box.SIMPLE_HEAD)
    table.add_column('')
    for column in COLUMNS:
        table.add_column(column, justify='right', style='bold' if column == 'all' else None)
    for name, values in rows.items():
        table.add_row(Text(name), *_cells(values))
    return table


def comparison_markdown(rows: Mapping[str, dict]) -> str:
    """The table for a README.

    Args:
        rows (Mapping[str, dict]): See :func:`summarise`.

    Returns:
        str: Lines of Markdown.
    """
    lines = [f'| | {" | ".join(COLUMNS)} |', f'| :-- |{" :-: |" * len(COLUMNS)}']
    for name, values in rows.items():
        escaped = name.replace('|', r'\|')
        lines.append(f'| {escaped} | {" | ".join(_cells(values))} |')
    return '\n'.join(lines)
