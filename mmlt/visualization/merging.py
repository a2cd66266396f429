"""Pictures of merged models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mmlt.visualization.figures import STYLE, save_png
from mmlt.visualization.report import SHOT_COLOURS

_COLOURS = {**SHOT_COLOURS, 'all': 'black'}


def plot_sweep(
    alphas: Sequence[float],
    figures: Mapping[str, Sequence[float]],
    chosen: float,
    path: str | Path,
    where: str = 'validation',
    title: str = '',
) -> None:
    """Draw accuracy over the share of the fine-tuned model, as WiSE-FT does.

    Args:
        alphas (Sequence[float]): T shares, ascending.
        figures (Mapping[str, Sequence[float]]): By 'many', 'medium', 'few' and
            'all', in percent, T each; what there is none of is left out.
        chosen (float): The share that was taken.
        path (str | Path): PNG to write.
        where (str): What it was measured on. Defaults to 'validation'.
        title (str): Defaults to ''.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.8), layout='constrained')
        axes = figure.subplots()
        for name, colour in _COLOURS.items():
            if name in figures:
                width = 1.8 if name == 'all' else 1.2
                axes.plot(alphas, figures[name], color=colour, linewidth=width, marker='.', markersize=5, label=name)
        axes.axvline(chosen, color='grey', linewidth=1, linestyle='--', label=f'chosen: {chosen:g}')
        axes.set(xlabel='alpha: 0 is the zero-shot model, 1 the fine-tuned one', ylabel=f'accuracy on {where}, percent')
        # Beside the curves, which may be anywhere.
        axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
        if title:
            axes.set_title(title, loc='left', parse_math=False)
        save_png(figure, path)
