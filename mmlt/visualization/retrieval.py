"""Pictures found by texts (VL-LTR, Fig. 6)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmlt.visualization.figures import STYLE, save_png

_TEXT = 2.2  # room for the texts, in widths of a picture
Found = Sequence[tuple[np.ndarray, float]]  # pictures (H, W, 3) and similarities of one text


def plot_retrieval(
    texts: Sequence[str], blocks: Mapping[str, Sequence[Found]], path: str | Path, title: str = ''
) -> None:
    """Draw a row of pictures per text, with the similarity below each; blocks stand side by side.

    Args:
        texts (Sequence[str]): At the left of the rows.
        blocks (Mapping[str, Sequence[Found]]): Heading of a block, for example
            a model, and per text its pictures, (H, W, 3) uint8 in RGB, with
            their similarities.
        path (str | Path): PNG to write.
        title (str): Defaults to ''.
    """
    widths = [max(len(found) for found in block) for block in blocks.values()]
    total = sum(widths) + 0.4 * (len(widths) - 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.8 * (_TEXT + total), 0.7 + 0.95 * len(texts)), layout='constrained')
        axes = figure.subplots()
        left = 0.0
        for (heading, block), width in zip(blocks.items(), widths):
            wrapped = textwrap.fill(heading, 10 * max(width, 2))  # no further than the block
            axes.text(left, -0.1, wrapped, va='bottom', weight='bold', parse_math=False)
            for row, found in enumerate(block):
                for column, (picture, similarity) in enumerate(found):
                    x, y = left + column, row * 1.2
                    # Small pictures stay sharp, large ones are smoothed.
                    smooth = 'nearest' if picture.shape[0] < 100 else 'antialiased'
                    axes.imshow(picture, extent=(x + 0.03, x + 0.97, y + 0.97, y + 0.03), interpolation=smooth)
                    axes.text(x + 0.5, y + 1.0, f'{similarity:.3f}', ha='center', va='top', fontsize=7)
            left += width + 0.4
        for row, text in enumerate(texts):
            wrapped = textwrap.fill(text, 20, max_lines=4)
            axes.text(-0.1, row * 1.2 + 0.5, wrapped, ha='right', va='center', parse_math=False)
        axes.set(xlim=(-_TEXT, total), ylim=(1.2 * len(texts), -0.4), aspect='equal')
        axes.set_axis_off()
        if title:
            axes.set_title(title, loc='left', parse_math=False)
        save_png(figure, path)
