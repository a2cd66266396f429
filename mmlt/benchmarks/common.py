"""Timing of alternatives side by side: in turn, in one process, as ratios."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table


def compare(
    title: str,
    variants: dict[str, Callable[[], object]],
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
    memory: dict[str, float] | None = None,
) -> dict[str, float]:
    """Time variants A B C A B C ... and print medians and ratios to the first.

    Args:
        title (str): Above the table.
        variants (dict): Name to callable; the first is the baseline.
        rounds (int): Counted runs of each, after one that is not counted.
            Defaults to 5.
        clock (Callable): ``time.process_time`` counts the processor's time,
            which other work on the machine disturbs less.
            Defaults to ``time.perf_counter``.
        memory (dict, optional): Peak memory of variants in MB, a further
            column. Defaults to None.

    Returns:
        dict[str, float]: Median over rounds of baseline time / variant time.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for i in range(rounds + 1):
        for name, run in variants.items():
            start = clock()
            run()
            if i:
                times[name].append(clock() - start)
    baseline = next(iter(variants))
    ratios = {name: median(b / t for b, t in zip(times[baseline], ts)) for name, ts in times.items()}
    table = Table(title=title, title_justify='left')
    columns = ['variant', 'median ms', 'min ms', 'times faster']
    for column in columns + ['peak MB', 'times less'] * bool(memory):
        table.add_column(column, justify='left' if column == 'variant' else 'right')
    for name, ts in times.items():
        row = [name, f'{1e3 * median(ts):.2f}', f'{1e3 * min(ts):.2f}', f'{ratios[name]:.2f}']
        if memory:
            known = name in memory
            row += [f'{memory[name]:.0f}' if known else '', f'{memory[baseline] / memory[name]:.1f}' if known else '']
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    return ratios


def peak_memory(run: Callable[[], object]) -> float:
    """Memory that a call needs at its peak beyond what is there before it, in MB (Linux).

    It is measured in a process of its own, forked from this one, at its first run: what a run frees may stay with
    the process.

    Args:
        run (Callable): What is measured.

    Returns:
        float: MB of 10^6 bytes.
    """
    receiver, sender = multiprocessing.get_context('fork').Pipe(duplex=False)

    def measure():
        before = _status('VmRSS')
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
        run()
        sender.send(_status('VmHWM') - before)

    process = multiprocessing.get_context('fork').Process(target=measure)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f'The measured process ended with exit code {process.exitcode}.')
    return receiver.recv() * 1024 / 1e6


def _status(key: str) -> int:
    line = next(s for s in Path('/proc/self/status').read_text().splitlines() if s.startswith(key))
    return int(line.split()[1])
