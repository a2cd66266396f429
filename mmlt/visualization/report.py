"""The result of a test: a table, a JSON file and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmlt.checkpoints import write_text
from mmlt.evaluation.meanings import CLASS_MEAN, SAMPLE_MEAN, overall_key, overall_meaning
from mmlt.visualization.figures import STYLE, class_number, count_axis, name_classes, save_png

# What a report measures of a class: in the table's caption, and at the picture's axis.
MEASURES = {
    'accuracy': ('top-1', 'top-1 accuracy'),
    'ap': ('mAP', 'average precision'),
}
# The two averages over everything, by the names under which they are shown: never as a bare 'all'.
OVERALL = {'balanced': CLASS_MEAN, 'sample_accuracy': SAMPLE_MEAN}
SHOT_COLOURS = {'many': '#1b6ca8', 'medium': '#e3a018', 'few': '#c0392b'}


def print_table(report: dict, title: str, console: Console | None = None) -> None:
    """Print the many / medium / few table.

    Args:
        report (dict): :attr:`ShotAccuracy.report` or :attr:`ShotMAP.report`.
        title (str): Above the table.
        console (Console, optional): Defaults to None, the terminal.
    """
    if console is None:
        console = Console()
        if not console.is_terminal:
            console.width = 120
    metrics = overall_figures(report)
    overall = overall_key(report)
    table = Table(title=Text(title), title_justify='left', caption_justify='left')
    columns = [(s, f'{s} ({report["classes_per_shot"][s]})') for s in SHOT_COLOURS if s in metrics]
    others = {**OVERALL, 'worst_class': 'worst class', 'harmonic_mean': 'harmonic mean', 'ece': 'ECE'}
    columns += [(key, name) for key, name in others.items() if key in metrics]
    for key, name in columns:
        table.add_column(name, justify='right', style='bold' if key == overall else None)
    table.add_row(*(f'{metrics[key]:.1f}' for key, _ in columns))
    table.caption = what_is_shown(report, f'{report["num_samples"]} test images, ')
    console.print(table)


def overall_figures(report: dict) -> dict[str, float]:
    """The metrics of a report with ``all`` under the name of what it is, 'balanced' or 'sample_accuracy'.

    Args:
        report (dict): :attr:`ShotAccuracy.report` or :attr:`ShotMAP.report`.

    Returns:
        dict[str, float]: By key.
    """
    metrics = dict(report['metrics'])
    if 'all' in metrics:
        metrics.setdefault(overall_key(report), metrics.pop('all'))
    return metrics


def what_is_shown(report: dict, images: str = '') -> str:
    """Measure, protocol, and what its averages are, for a caption.

    Args:
        report (dict): :attr:`ShotAccuracy.report` or :attr:`ShotMAP.report`.
        images (str): What to say of the test images. Defaults to ''.

    Returns:
        str: Without a full stop.
    """
    protocol, measure = report['protocol'], report.get('measure', 'accuracy')
    average = overall_meaning(protocol, measure)
    return f'{MEASURES[measure][0]} in percent, {images}protocol {protocol} (many, medium, few and all: {average})'


def plot_class_accuracy(report: dict, path: str | Path, title: str = '') -> None:
    """Draw accuracy or average precision of every class over its training images, shots in colours.

    Args:
        report (dict): :attr:`ShotAccuracy.report` or :attr:`ShotMAP.report`.
        path (str | Path): PNG to write.
        title (str): Defaults to ''.
    """
    measure = report.get('measure', 'accuracy')
    classes = [c for c in report['per_class'] if c[measure] is not None]
    order = sorted(range(len(classes)), key=lambda i: -classes[i]['train_images'])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 5), layout='constrained')
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
        ranks = np.arange(len(order))
        colours = [SHOT_COLOURS[classes[i]['shot']] for i in order]
        values = [classes[i][measure] for i in order]
        top.bar(ranks, [classes[i]['train_images'] for i in order], width=0.9, color=colours)
        count_axis(top)
        top.set_ylim(bottom=min(c['train_images'] for c in classes) / 2)  # the smallest class shows a bar, too
        bottom.bar(ranks, values, width=0.9, color=colours)
        bottom.set(ylim=(0, 100), ylabel=f'{MEASURES[measure][1]} in percent')
        for shot, colour in SHOT_COLOURS.items():
            at = [r for r, i in zip(ranks, order) if classes[i]['shot'] == shot]
            if at:
                mean = np.mean([values[r] for r in at])
                bottom.plot([at[0] - 0.45, at[-1] + 0.45], [mean, mean], color='black', linewidth=1)
                bottom.bar(0, 0, color=colour, label=f'{shot}: {mean:.1f} ({class_number(len(at))})')
        # beside the bars, which fill the axes
        bottom.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False, title='mean over classes')
        if len(order) <= 50:
            name_classes(bottom, [classes[i]['class'] for i in order])
        else:
            bottom.set_xlabel('classes, by training images')
        if title:
            top.set_title(title, loc='left', parse_math=False)
        figures = overall_figures(report)
        told = ', '.join(f'{name} {figures[key]:.1f}' for key, name in OVERALL.items() if key in figures)
        top.set_title(f'{MEASURES[measure][0]}: {told}', loc='right', fontsize=8)
        save_png(figure, path)


def write_json(report: dict, path: str | Path) -> None:
    """Write the report as JSON.

    Args:
        report (dict): :attr:`ShotAccuracy.report` or :attr:`ShotMAP.report`.
        path (str | Path): File to write.
    """
    write_text(path, json.dumps(report, indent=1))
