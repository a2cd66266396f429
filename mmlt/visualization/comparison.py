"""Several runs side by side, mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from mmlt.errors import InputError
from mmlt.visualization.report import OVERALL, SHOT_COLOURS, overall_figures, what_is_shown
from mmlt.visualization.runs import check_comparable

COLUMNS = {**{shot: shot for shot in SHOT_COLOURS}, **OVERALL}


def summarise(groups: Mapping[str, Sequence[dict]]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Mean and standard deviation of the figures of every group of reports.

    Args:
        groups (Mapping[str, Sequence[dict]]): Names, and the reports of one or
            several seeds.

    Returns:
        dict: By name and column, the keys of :data:`COLUMNS`: the mean, and
        the sample standard deviation, divided by n - 1; None of one seed. A
        column that a report lacks is left out. Where the groups differ in
        measure or protocol, every name tells its own.

    Raises:
        InputError: The reports have different classes, or those of one group
            different measures or protocols.
    """
    named = {f"'{name}'" if i == 0 else f"'{name}' ({i + 1})": r for name, g in groups.items() for i, r in enumerate(g)}
    check_comparable(named)
    shown = {name: what_is_shown(group[0]) for name, group in groups.items()}
    rows: dict[str, dict[str, tuple[float, float | None]]] = {}
    for name, group in groups.items():
        if other := next((text for text in map(what_is_shown, group) if text != shown[name]), None):
            raise InputError(f"The runs of '{name}' are not of one kind: {shown[name]}; {other}. Test them alike.")
        figures = [overall_figures(report) for report in group]
        row = rows[name if len(set(shown.values())) == 1 else f'{name}: {shown[name]}'] = {}
        for column in COLUMNS:
            if all(column in each for each in figures):
                values = np.array([each[column] for each in figures])
                row[column] = (float(values.mean()), float(values.std(ddof=1)) if len(group) > 1 else None)
    return rows


def _columns(rows: Mapping[str, dict]) -> dict[str, str]:
    """Keys and headings; accuracy over samples only where a run has it, which mean average precision never does."""
    return {
        key: heading
        for key, heading in COLUMNS.items()
        if key in (*SHOT_COLOURS, 'balanced') or any(key in values for values in rows.values())
    }


def _cells(values: dict[str, tuple[float, float | None]], columns: Iterable[str]) -> list[str]:
    cells = []
    for column in columns:
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
    columns = _columns(rows)
    for key, heading in columns.items():
        table.add_column(heading, justify='right', style='bold' if key in OVERALL else None)
    for name, values in rows.items():
        table.add_row(Text(name), *_cells(values, columns))
    return table


def comparison_markdown(rows: Mapping[str, dict], title: str = '') -> str:
    """The table for a README.

    Args:
        rows (Mapping[str, dict]): See :func:`summarise`.
        title (str): In the corner. Defaults to ''.

    Returns:
        str: Lines of Markdown.
    """
    columns = _columns(rows)
    headings = ' | '.join(columns.values())
    lines = [f'| {title} | {headings} |' if title else f'| | {headings} |', f'| :-- |{" :-: |" * len(columns)}']
    for name, values in rows.items():
        escaped = name.replace('|', r'\|')
        lines.append(f'| {escaped} | {" | ".join(_cells(values, columns))} |')
    return '\n'.join(lines)
