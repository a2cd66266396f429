"""How long the tail of a data set is: a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmlt.evaluation.functional import SHOTS, get_protocol, shot_groups
from mmlt.visualization.figures import STYLE, class_number, count_axis, name_classes, save_png
from mmlt.visualization.report import SHOT_COLOURS

_NAMED = 50  # up to so many classes have their names under the picture


def class_size_report(
    class_counts: Sequence[int], classes: Sequence[str] | None = None, protocol: str = 'standard'
) -> dict:
    """Facts about the sizes of the classes.

    Args:
        class_counts (Sequence[int]): Training images of C classes.
        classes (Sequence[str], optional): Their names. Defaults to None, the
            labels' numbers.
        protocol (str): What many, medium and few mean, see
            ``SHOT_PROTOCOLS``. Defaults to 'standard'.

    Returns:
        dict: ``num_classes``, ``num_images`` (a sum over classes), ``largest``,
        ``smallest``, ``ratio`` (inf with an empty class),
        ``classes_per_shot``, ``protocol``, and ``per_class``: a list of dicts
        with ``class``, ``train_images`` and ``shot``.
    """
    counts = np.asarray(class_counts)
    groups = shot_groups(counts, get_protocol(protocol))
    names = range(len(counts)) if classes is None else classes
    return dict(
        protocol=protocol,
        num_classes=len(counts),
        num_images=int(counts.sum()),
        largest=int(counts.max()),
        smallest=int(counts.min()),
        ratio=float(counts.max() / counts.min()) if counts.min() > 0 else float('inf'),
        classes_per_shot={shot: int((groups == i).sum()) for i, shot in enumerate(SHOTS)},
        per_class=[
            {'class': str(c), 'train_images': int(n), 'shot': SHOTS[g]} for c, n, g in zip(names, counts, groups)
        ],
    )


def print_class_sizes(report: dict, title: str, console: Console | None = None) -> None:
    """Print the facts as a table of one row.

    Args:
        report (dict): Of :func:`class_size_report`.
        title (str): Above the table.
        console (Console, optional): Defaults to None, the terminal.
    """
    if console is None:
        console = Console()
        if not console.is_terminal:
            console.width = 120
    table = Table(title=Text(title), title_justify='left', caption_justify='left')
    for name in ('classes', 'training images', 'largest', 'smallest', 'ratio', *SHOTS):
        table.add_column(name, justify='right')
    sizes = (f'{report[key]:,}' for key in ('num_classes', 'num_images', 'largest', 'smallest'))
    table.add_row(*sizes, f'{report["ratio"]:.1f}', *(f'{report["classes_per_shot"][s]:,}' for s in SHOTS))
    table.caption = f'many, medium and few in classes, protocol {report["protocol"]}'
    console.print(table)


def plot_class_sizes(report: dict, path: str | Path, title: str = '') -> None:
    """Draw the training images of every class, the largest at the left, shots in colours.

    Args:
        report (dict): Of :func:`class_size_report`.
        path (str | Path): PNG to write.
        title (str): Defaults to ''.
    """
    classes = sorted(report['per_class'], key=lambda c: -c['train_images'])
    counts = np.array([c['train_images'] for c in classes])
    shots = np.array([c['shot'] for c in classes])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout='constrained')
        axes = figure.subplots()
        for shot, colour in SHOT_COLOURS.items():
            at = np.flatnonzero(shots == shot)
            if not len(at):
                continue
            label = f'{shot}: {class_number(len(at))}, {counts[at].sum():,} images'
            edges = np.arange(at[0], at[-1] + 2) - 0.5
            axes.stairs(counts[at[0] : at[-1] + 1], edges, fill=True, color=colour, label=label)
        count_axis(axes)
        axes.set_ylim(bottom=max(counts.min(), 1) / 2)  # the smallest class shows a bar, too
        axes.margins(x=0.01)
        if len(classes) <= _NAMED:
            name_classes(axes, [c['class'] for c in classes])
        else:
            axes.set_xlabel('classes, by training images')
        axes.legend(loc='upper right', framealpha=0.9)
        if title:
            axes.set_title(title, loc='left', parse_math=False)
        save_png(figure, path)
