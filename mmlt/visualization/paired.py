"""Differences of two methods that were run with the same seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from mmlt.errors import InputError
from mmlt.visualization.comparison import COLUMNS
from mmlt.visualization.report import overall_figures

# Quantiles of Student's t at 97.5 %, by degrees of freedom; beyond, those of the next that is here, which are larger.
_T = {
    **dict(enumerate((12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228), 1)),
    **dict(enumerate((2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086), 11)),
    **{25: 2.060, 30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980},
}


def t_quantile(degrees: int) -> float:
    """97.5 % of Student's t distribution lie below it; between tabled degrees the larger value.

    Args:
        degrees (int): Degrees of freedom, at least 1.
    """
    return _T[max(known for known in _T if known <= degrees)]


def paired_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float | None]:
    """Mean of b - a, and half of its 95 % interval (paired t).

    Args:
        a (Sequence[float]): Figures of n seeds.
        b (Sequence[float]): Those of another method with the same seeds.

    Returns:
        tuple[float, float | None]: ``t * s / sqrt(n)`` with s the sample
        deviation of the differences; None of one seed.

    Raises:
        InputError: Different numbers of seeds, or none.
    """
    if len(a) != len(b) or not len(a):
        raise InputError(f'There are {len(a)} and {len(b)} runs: paired differences need the same seeds, one at least.')
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    n = len(differences)
    half = t_quantile(n - 1) * differences.std(ddof=1) / math.sqrt(n) if n > 1 else None
    return float(differences.mean()), None if half is None else float(half)


def paired_differences(groups: Mapping[str, Sequence[dict]]) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Every method against the first, by column.

    Args:
        groups (Mapping[str, Sequence[dict]]): Names, and the reports of the
            same seeds in the same order.

    Returns:
        dict: By name and column, see :func:`paired_interval`; columns that a
        report lacks are left out.
    """
    (first, reference), *others = groups.items()
    found = {}
    for name, reports in others:
        figures = [[overall_figures(r) for r in group] for group in (reference, reports)]
        columns = [c for c in COLUMNS if all(c in each for group in figures for each in group)]
        found[f'{name} - {first}'] = {
            c: paired_interval(*([each[c] for each in group] for group in figures)) for c in columns
        }
    return found


def _cell(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return '–'
    mean, half = value
    return f'{mean:+.1f}' if half is None else f'{mean:+.1f} ± {half:.1f}'


def _columns(rows: Mapping[str, dict]) -> list[str]:
    return [c for c in COLUMNS if any(c in row for row in rows.values())]


def difference_table(rows: Mapping[str, dict]) -> Table:
    """For the terminal; a difference whose interval leaves out zero is bold.

    Args:
        rows (Mapping[str, dict]): See :func:`paired_differences`.
    """
    table = Table('', title='Paired differences with 95 % intervals', title_justify='left', box=box.SIMPLE_HEAD)
    columns = _columns(rows)
    for column in columns:
        table.add_column(COLUMNS[column], justify='right')
    for name, row in rows.items():
        sure = {c: row.get(c) and row[c][1] is not None and abs(row[c][0]) > row[c][1] for c in columns}
        table.add_row(Text(name), *(Text(_cell(row.get(c)), style='bold' if sure[c] else '') for c in columns))
    return table


def difference_markdown(rows: Mapping[str, dict]) -> str:
    """For a README; what :func:`difference_table` shows."""
    columns = _columns(rows)
    lines = [f'| difference | {" | ".join(COLUMNS[c] for c in columns)} |', f'| :-- |{" :-: |" * len(columns)}']
    lines += [f'| {name} | {" | ".join(_cell(row.get(c)) for c in columns)} |' for name, row in rows.items()]
    return '\n'.join(lines)
