"""Loss curves from the logs of MMEngine (VL-LTR, Fig. 5)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mmlt.errors import InputError
from mmlt.visualization.figures import STYLE, save_png


@dataclass
class LossCurves:
    """Losses of one training.

    Args:
        unit (str): What the positions count, 'epoch' or 'iteration'.
        train (list[tuple[float, float]]): Positions and losses.
        val (dict[str, list[tuple[float, float]]]): The same of every
            validation loss. Defaults to none.
    """

    unit: str
    train: list[tuple[float, float]]
    val: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def merge_logs(logs: Sequence[Sequence[dict]]) -> list[tuple[int, dict]]:
    """One log of a training that was interrupted and resumed, or trained anew.

    Where a later log begins, what earlier ones have of the same iterations and
    of later ones is dropped; so a training from the start replaces all.

    Args:
        logs (Sequence[Sequence[dict]]): Entries of every log, the oldest
            first; those of training have ``iter``.

    Returns:
        list[tuple[int, dict]]: Every entry with the training iteration at
        which, or after which, it was written.
    """
    merged: list[tuple[int, dict]] = []
    for entries in logs:
        iters = [entry['iter'] for entry in entries if 'iter' in entry]
        if not iters:
            continue  # nothing was trained
        # The first entry tells of the iterations before it, as many as there are between the first two.
        start = iters[0] - (iters[1] - iters[0] if len(iters) > 1 else 1)
        merged = [(at, entry) for at, entry in merged if at <= start]
        at = max(start, 0)
        for entry in entries:
            at = entry.get('iter', at)
            merged.append((at, entry))
    return merged


def loss_curves(entries: Sequence[tuple[int, dict]]) -> LossCurves:
    """Training loss and validation losses of a log.

    A validation loss is a value whose name ends with ``nll`` (that of
    :class:`ShotAccuracy`) or contains ``loss``. Positions are epochs where the
    training counts them, otherwise iterations.

    Args:
        entries (Sequence): See :func:`merge_logs`.

    Returns:
        LossCurves: Without any point where the log has no ``loss``.
    """
    epochs = [(at, entry['epoch']) for at, entry in entries if entry.get('epoch')]
    per_epoch = math.ceil(max(at / epoch for at, epoch in epochs)) if epochs else 1
    curves = LossCurves('epoch' if epochs else 'iteration', [])
    for at, entry in entries:
        if 'iter' in entry:
            if 'loss' in entry:
                curves.train.append((at / per_epoch, entry['loss']))
            continue
        for name, value in entry.items():
            if name.endswith('nll') or 'loss' in name:
                # MMEngine's step of a validation is the epoch; of a training by iterations that tells nothing.
                curves.val.setdefault(name, []).append((entry['step'] if epochs else at, value))
    return curves


def figure_curves(entries: Sequence[tuple[int, dict]]) -> dict[str, list[tuple[float, float]]]:
    """Figures of the validations by shot, at the positions of :func:`loss_curves`.

    Args:
        entries (Sequence): See :func:`merge_logs`.

    Returns:
        dict[str, list[tuple[float, float]]]: Points of ``all``, ``many``,
        ``medium`` and ``few``, as far as the log has them.
    """
    by_epoch = any(entry.get('epoch') for _, entry in entries)
    found: dict[str, list[tuple[float, float]]] = {}
    for at, entry in entries:
        for shot in ('all', 'many', 'medium', 'few'):
            if 'iter' not in entry and f'shot/{shot}' in entry:
                found.setdefault(shot, []).append((entry['step'] if by_epoch else at, entry[f'shot/{shot}']))
    return found


def read_losses(work_dir: str | Path) -> LossCurves:
    """Loss curves of a work directory, over all of its resumed runs.

    Args:
        work_dir (str | Path): With ``<time>/vis_data/scalars.json``, as
            MMEngine's ``LocalVisBackend`` writes them.

    Returns:
        LossCurves: See :func:`loss_curves`.

    Raises:
        InputError: No log, a broken one, or one without a training loss.
    """
    if not _logs(work_dir):
        raise InputError(
            f"'{work_dir}' holds no log (<time>/vis_data/scalars.json): give the work directory of a training."
        )
    curves = loss_curves(read_log(work_dir))
    if not curves.train:
        raise InputError(
            f"The log in '{work_dir}' has no training loss: its runs only tested, or ended before the first log line."
        )
    return curves


def read_log(work_dir: str | Path) -> list[tuple[int, dict]]:
    """The log of a work directory, over all of its resumed runs.

    Args:
        work_dir (str | Path): See :func:`read_losses`.

    Returns:
        list[tuple[int, dict]]: See :func:`merge_logs`; empty where nothing
        was trained.

    Raises:
        InputError: A broken log.
    """
    return merge_logs([_read_log(file) for file in _logs(work_dir)])


def _logs(work_dir: str | Path) -> list[Path]:
    return sorted(Path(work_dir).glob('*/vis_data/scalars.json'))


def _read_log(file: Path) -> list[dict]:
    lines = file.read_text(encoding='utf-8').splitlines()
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as e:
            if number == len(lines):
                break  # the process was killed while it wrote
            raise InputError(f"Line {number} of '{file}' is no JSON ({e.msg}): remove that line.") from e
    return entries


def plot_losses(runs: Mapping[str, Sequence[LossCurves]], path: str | Path, title: str = '') -> None:
    """Draw training losses as lines, validation losses dashed with points, every run in its colour.

    Args:
        runs (Mapping[str, Sequence[LossCurves]]): Names, and the curves of
            one or several seeds.
        path (str | Path): PNG to write.
        title (str): Defaults to ''.

    Raises:
        InputError: Some runs count epochs and some iterations.
    """
    units = {curves.unit: name for name, seeds in runs.items() for curves in seeds}
    if len(units) > 1:
        raise InputError(
            f"'{units['epoch']}' was trained by epochs and '{units['iteration']}' by iterations: plot them apart."
        )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout='constrained')
        axes = figure.subplots()
        for i, (name, seeds) in enumerate(runs.items()):
            for first, curves in zip([True] + [False] * len(seeds), seeds):
                colour = f'C{i}'
                label = f'{name}, train' if first else None
                axes.plot(*zip(*curves.train), color=colour, label=label)
                for key, style in zip(curves.val, ('--', ':', '-.') * len(curves.val)):
                    label = f'{name}, {key}' if first else None
                    axes.plot(*zip(*curves.val[key]), style, marker='o', markersize=3, color=colour, label=label)
        axes.set(xlabel=next(iter(units)), ylabel='loss')
        axes.set_xlim(left=0)
        legend = axes.legend(loc='best', framealpha=0.9)
        for text in legend.get_texts():
            text.set_parse_math(False)
        if title:
            axes.set_title(title, loc='left', parse_math=False)
        save_png(figure, path)
