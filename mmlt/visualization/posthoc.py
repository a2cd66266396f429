"""Pictures of what is done to scores after the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmlt.visualization.figures import STYLE, save_png
from mmlt.visualization.report import SHOT_COLOURS

_COLOURS = {'all': 'black', **SHOT_COLOURS}


def plot_tau(taus: Sequence[float], accuracy: np.ndarray, chosen: float, path: str | Path, title: str = '') -> None:
    """Draw accuracy over the strength of the logit adjustment.

    Args:
        taus (Sequence[float]): T strengths, ascending.
        accuracy (np.ndarray): In percent, (T, ).
        chosen (float): The strength that was taken.
        path (str | Path): PNG to write.
        title (str): Defaults to ''.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.5), layout='constrained')
        axes = figure.subplots()
        axes.plot(taus, accuracy, color='black', marker='.', markersize=4)
        axes.axvline(chosen, color='grey', linestyle='--', linewidth=1, label=f'chosen: {chosen:g}')
        axes.set(xlabel='tau', ylabel='validation, mean over classes, percent')
        axes.legend(loc='best', framealpha=0.9)
        if title:
            axes.set_title(title, loc='left', parse_math=False)
        save_png(figure, path)


def plot_reliability(steps: Mapping[str, Mapping[str, dict]], path: str | Path, title: str = '') -> None:
    """Draw accuracy over confidence, a panel for every step, all images and shot groups in colours.

    Below every panel stands how many images the bins have.

    Args:
        steps (Mapping[str, Mapping[str, dict]]): By name, what
            :func:`shot_reliability` gives.
        path (str | Path): PNG to write.
        title (str): Defaults to ''.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1 + 3.2 * len(steps), 4.6), layout='constrained')
        panels = figure.subplots(2, len(steps), sharex=True, sharey='row', squeeze=False, height_ratios=(3, 1))
        for (name, groups), top, bottom in zip(steps.items(), *panels):
            top.plot([0, 1], [0, 1], color='grey', linewidth=0.8, linestyle='--')
            for group, found in groups.items():
                seen = found['count'] > 0
                width = 1.6 if group == 'all' else 1
                label = f'{group}: ECE {found["ece"]:.1f}'
                points = found['confidence'][seen], found['accuracy'][seen]
                top.plot(*points, color=_COLOURS[group], linewidth=width, marker='.', markersize=5, label=label)
            count = groups['all']['count']
            bottom.stairs(count, np.linspace(0, 1, len(count) + 1), fill=True, color='lightgrey')
            top.set(xlim=(0, 1), ylim=(0, 1))
            top.set_title(name, loc='left', parse_math=False)
            top.legend(loc='upper left', framealpha=0.9, fontsize=7)
            bottom.set_xlabel('confidence')
        panels[0][0].set_ylabel('accuracy')
        panels[1][0].set_ylabel('images')
        if title:
            figure.suptitle(title, x=0.01, ha='left', parse_math=False)
        save_png(figure, path)
