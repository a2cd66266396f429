"""What the pictures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from mmlt.checkpoints import whole_file
from mmlt.errors import InputError

STYLE: dict = {'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False}


def png_path(path: str | Path) -> Path:
    """The path of a picture to write, whose folder is made if need be.

    Raises:
        InputError: The name does not end with ``.png``.
    """
    path = Path(path)
    if path.suffix.lower() != '.png':
        raise InputError(f"The picture is a PNG, but its name is '{path}': let it end with .png.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def class_number(number: int) -> str:
    """``'1 class'``, ``'2 classes'``."""
    return f'{number:,} class{"" if number == 1 else "es"}'


def count_axis(axes) -> None:
    """Make the ordinate one of numbers of images, by decades; its ticks are plain numbers.

    Args:
        axes (matplotlib.axes.Axes): Of a picture.
    """
    axes.set(yscale='log', ylabel='training images')
    axes.yaxis.set_major_formatter(lambda count, _: f'{count:,g}')
    axes.yaxis.set_minor_formatter(LogFormatter())


def name_classes(axes, names: Sequence[str]) -> None:
    """Write the names of classes below their places, the steeper the more there are.

    Args:
        axes (matplotlib.axes.Axes): Of a picture whose abscissa are places.
        names (Sequence[str]): In their order.
    """
    rotation = 20 if len(names) <= 12 else 45 if len(names) <= 25 else 90
    ha = 'center' if rotation == 90 else 'right'
    axes.set_xticks(range(len(names)), names, rotation=rotation, ha=ha, parse_math=False)


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure, 130 pixels per inch.

    Args:
        figure (Figure): What is drawn.
        path (str | Path): See :func:`png_path`.
    """
    with matplotlib.rc_context(STYLE), whole_file(png_path(path)) as part:
        figure.savefig(part, dpi=130, format='png')
