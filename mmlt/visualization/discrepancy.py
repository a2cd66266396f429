"""What MORE's low-rank part does to frequent and to rare classes."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mmlt.checkpoints import save_figure
from mmlt.visualization.report import SHOT_COLOURS


def plot_discrepancy(history: dict, path: str | Path, title: str = '') -> None:
    """Draw the mean discrepancy of every shot group over the training, and alpha.

    Args:
        history (dict): Lists of equal length: 'iteration', 'alpha', and
            'many', 'medium', 'few' with None where there was no sample.
        path (str | Path): PNG to write.
        title (str): Defaults to ''.
    """
    with matplotlib.rc_context({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False}):
        figure = Figure(figsize=(9, 5), layout='constrained')
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
        top.plot(history['iteration'], history['alpha'], color='black', linewidth=1)
        top.set(ylabel='alpha')
        top.set_ylim(bottom=0)
        for shot, colour in SHOT_COLOURS.items():
            points = [(t, v) for t, v in zip(history['iteration'], history[shot]) if v is not None]
            if points:
                bottom.plot(*zip(*points), color=colour, label=shot, marker='.', markersize=4)
        bottom.set(xlabel='iteration', ylabel='mean discrepancy of a sample')
        bottom.set_yscale('symlog', linthresh=_smallest(history))
        bottom.legend(loc='best', framealpha=0.9)
        if title:
            top.set_title(title, loc='left', parse_math=False)
        save_figure(figure, path, dpi=130)


def _smallest(history: dict) -> float:
    """Where the logarithmic axis begins: a thousandth of the largest value."""
    largest = max((v for shot in SHOT_COLOURS for v in history[shot] if v is not None), default=0)
    return largest / 1000 or 1.0
