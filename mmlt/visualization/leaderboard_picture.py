"""The tables of all methods as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmlt.visualization.figures import STYLE, save_png
from mmlt.visualization.leaderboard import Group, Runs
from mmlt.visualization.leaderboard_page import values
from mmlt.visualization.report import SHOT_COLOURS

# Label and look of every column that is drawn; TTE is left to the table.
_MARKS: dict[str, dict[str, Any]] = {
    **{shot: dict(label=shot, color=colour, marker='o') for shot, colour in SHOT_COLOURS.items()},
    'all': dict(label='all', color='black', marker='D'),
    'tau': dict(label='all, with τ', color='black', marker='D', markerfacecolor='white'),
}


def plot_board(group: Group, runs: Runs, path: str | Path) -> bool:
    """Draw many, medium, few and all of every row, means and sample deviations over seeds.

    Args:
        group (Group): The table.
        runs (Runs): See :func:`read_runs`.
        path (str | Path): PNG to write.

    Returns:
        bool: Whether there was anything to draw; nothing is written if not.
    """
    rows = [row for row in group.rows if runs[row.folder]]
    if not rows:
        return False
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.2 + 0.28 * len(rows)), layout='constrained')
        axes = figure.subplots()
        for column, mark in _MARKS.items():
            found = {place: list(values(runs[row.folder], column).values()) for place, row in enumerate(rows)}
            found = {place: own for place, own in found.items() if own}
            spread = [float(np.std(own, ddof=1)) if len(own) > 1 else 0.0 for own in found.values()]
            look: dict[str, Any] = dict(markersize=4, linestyle='none', elinewidth=0.8, capsize=2)
            axes.errorbar([np.mean(own) for own in found.values()], list(found), xerr=spread, **look, **mark)
        axes.set_yticks(range(len(rows)), [row.label for row in rows], parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row is at the top, as in the table
        axes.grid(axis='y', linewidth=0.4)
        axes.set_xlabel('top-1 in percent, mean and deviation over seeds')
        axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
        axes.set_title(group.title, loc='left', parse_math=False)
        save_png(figure, path)
    return True
