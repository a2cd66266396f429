"""Where a method gains over a baseline, class by class (VL-LTR, Fig. 4)."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmlt.errors import InputError
from mmlt.visualization.figures import STYLE, name_classes, save_png
from mmlt.visualization.report import MEASURES, SHOT_COLOURS
from mmlt.visualization.runs import check_comparable

_NAMED = 50  # classes whose names can be read below the axis


def class_gains(report: dict, baseline: dict) -> list[dict]:
    """Accuracy or average precision over that of the baseline, of every class that both have tested.

    Args:
        report (dict): :attr:`ShotAccuracy.report`.
        baseline (dict): The one to compare with.

    Returns:
        list[dict]: ``class``, ``train_images``, ``shot`` (as ``report`` has
        it) and ``gain`` in points of percent; the largest class first.

    Raises:
        InputError: The reports have different measures or classes, other training images
            of a class, or no class that both have tested.
    """
    check_comparable({'the report': report, 'the baseline': baseline})
    measure, other = (r.get('measure', 'accuracy') for r in (report, baseline))
    if measure != other:
        raise InputError(
            f'The report is of {MEASURES[measure][1]} and the baseline of {MEASURES[other][1]}: compare runs that were '
            'tested alike.'
        )
    gains = []
    for ours, theirs in zip(report['per_class'], baseline['per_class']):
        if ours['train_images'] != theirs['train_images']:
            raise InputError(
                f"Class '{ours['class']}' has {ours['train_images']} training images in the report and "
                f'{theirs["train_images"]} in the baseline: compare runs on the same training data.'
            )
        if ours[measure] is not None and theirs[measure] is not None:
            kept = {key: ours[key] for key in ('class', 'train_images', 'shot')}
            gains.append({**kept, 'gain': ours[measure] - theirs[measure]})
    if not gains:
        raise InputError('No class was tested in both reports: compare runs on the same test data.')
    return sorted(gains, key=lambda c: -c['train_images'])


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over a window around every value; at the ends over the part of it that is there.

    Args:
        values (np.ndarray): Shape (N, ).
        window (int): Width, odd, at most N.

    Returns:
        np.ndarray: Shape (N, ).
    """
    ones = np.ones(window)
    return np.convolve(values, ones, 'same') / np.convolve(np.ones(len(values)), ones, 'same')


def plot_class_gain(report: dict, baseline: dict, path: str | Path, title: str = '') -> None:
    """Draw the gain of every class over a baseline, the largest class at the left, shots in colours.

    Above 50 classes a line shows the moving average over a twentieth of them.

    Args:
        report (dict): :attr:`ShotAccuracy.report`.
        baseline (dict): The one to compare with.
        path (str | Path): PNG to write.
        title (str): Defaults to ''.

    Raises:
        InputError: See :func:`class_gains`.
    """
    classes = class_gains(report, baseline)
    gain = np.array([c['gain'] for c in classes])
    shots = np.array([c['shot'] for c in classes])
    many_classes = len(classes) > _NAMED
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout='constrained')
        axes = figure.subplots()
        for shot, colour in SHOT_COLOURS.items():
            at = np.flatnonzero(shots == shot)
            if not len(at):
                continue
            label = f'{shot}: {gain[at].mean():+.1f} ({len(at)} classes)'
            if many_classes:  # one outline a group: thousands of bars would take seconds
                edges = np.arange(at[0], at[-1] + 2) - 0.5
                axes.stairs(gain[at[0] : at[-1] + 1], edges, fill=True, color=colour, label=label)
            else:
                axes.bar(at, gain[at], width=0.9, color=colour, label=label)
        axes.axhline(0, color='black', linewidth=0.8)
        if many_classes:
            window = max(5, len(classes) // 20 | 1)
            axes.plot(moving_average(gain, window), color='black', label=f'mean of {window} classes around')
            axes.set_xlabel('classes, by training images')
        else:
            name_classes(axes, [c['class'] for c in classes])
        axes.set_ylabel(f'gain in {MEASURES[report.get("measure", "accuracy")][1]}, points')
        axes.margins(x=0.01)
        title_of_means = f'mean over classes, all: {gain.mean():+.1f}'
        axes.legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False, title=title_of_means)
        if title:
            axes.set_title(title, loc='left', parse_math=False)
        save_png(figure, path)
