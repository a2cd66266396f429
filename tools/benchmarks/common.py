"""Timing of alternatives side by side: in turn, in one process, as ratios."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from rich.console import Console
from rich.table import Table


def compare(title: str, variants: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """Time variants A B C A B C ... and print medians and ratios to the first.

    Args:
        title (str): Above the table.
        variants (dict): Name to callable; the first is the baseline.
        rounds (int): Counted runs of each, after one that is not counted.
            Defaults to 5.

    Returns:
        dict[str, float]: Median over rounds of baseline time / variant time.
    """
    times = {name: [] for name in variants}
    for i in range(rounds + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if i:
                times[name].append(time.perf_counter() - start)
    baseline = next(iter(variants))
    ratios = {name: median(b / t for b, t in zip(times[baseline], ts)) for name, ts in times.items()}
    table = Table(title=title, title_justify='left')
    for column in ('variant', 'median ms', 'min ms', 'times faster'):
        table.add_column(column, justify='left' if column == 'variant' else 'right')
    for name, ts in times.items():
        table.add_row(name, f'{1e3 * median(ts):.2f}', f'{1e3 * min(ts):.2f}', f'{ratios[name]:.2f}')
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    return ratios
