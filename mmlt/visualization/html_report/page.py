"""One HTML file of one or several runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmlt.checkpoints import write_bytes
from mmlt.errors import InputError
from mmlt.version import __version__
from mmlt.visualization.html_report.data import RunData
from mmlt.visualization.html_report.sections import overview, run_section, text
from mmlt.visualization.report import MEASURES

_FOLDER = Path(__file__).parent


def html_path(path: str | Path) -> Path:
    """The path of a page to write.

    Raises:
        InputError: The name does not end with ``.html``.
    """
    path = Path(path)
    if path.suffix.lower() not in ('.html', '.htm'):
        raise InputError(f"The report is a page of HTML, but its name is '{path}': let it end with .html.")
    return path


def write_page(runs: Sequence[RunData], groups: Mapping[str, Sequence[str]], path: str | Path, title: str = '') -> int:
    """Write the page, whole or not at all.

    Args:
        runs (Sequence[RunData]): See :func:`collect_runs`.
        groups (Mapping[str, Sequence[str]]): What they were collected from.
        path (str | Path): File to write.
        title (str): Defaults to '', the names of the runs.

    Returns:
        int: Its size in bytes.

    Raises:
        InputError: Runs of different classes; a name that is not one of a page.
    """
    data = page(runs, groups, title).encode('utf-8', 'replace')  # names of files need not be UTF-8
    write_bytes(html_path(path), data)
    return len(data)


def page(runs: Sequence[RunData], groups: Mapping[str, Sequence[str]], title: str = '') -> str:
    """The page as text, see :func:`write_page`."""
    left = iter(runs)
    by_group = {label: [next(left) for _ in folders] for label, folders in groups.items()}
    title = title or ', '.join(by_group)
    table = overview(by_group)
    # Another baseline than the first would need other classes, which the overview has refused.
    comparable = [run if len({r.measure for r in runs}) == 1 else None for run in runs]
    sections = '\n'.join(run_section(run, comparable[0] if i else None) for i, run in enumerate(runs))
    buttons = ''.join(f'<button type="button">{text(run.name)}</button>' for run in runs) if len(runs) > 1 else ''
    body = (
        f'<h1>{text(title)}</h1><p class="soft">Long-tailed recognition, written by mmlt {text(__version__)}</p>\n'
        f'{table}\n<div class="tabs">{buttons}</div>\n{sections}'
    )
    tables = [class_table(run, comparable[0] if i else None) for i, run in enumerate(runs)]
    parts = dict(title=text(title), body=body, data=script_json(tables), css=_asset('page.css'), js=_asset('page.js'))
    # In one pass: what is filled in may hold braces itself.
    return re.sub(r'\{\{(\w+)\}\}', lambda match: parts[match[1]], _asset('page.html'))


def script_json(value) -> str:
    """JSON that may stand inside a script element: no ``</script>`` or ``<!--`` ends it or opens a comment."""
    return json.dumps(value, separators=(',', ':')).replace('<', '\\u003c')


def class_table(run: RunData, baseline: RunData | None = None) -> dict:
    """The table of all classes for the page's script.

    Args:
        run (RunData): The run.
        baseline (RunData, optional): A run with the same classes, to compare
            with. Defaults to None.

    Returns:
        dict: ``columns`` (key, label, kind, digits) and ``rows`` of values,
        None where something is not known. Columns without any value are left
        out.
    """
    figure = f'{MEASURES[run.measure][0]} in %'.replace('-', '\u2011').replace(' ', '\u00a0')  # in one piece
    columns = [
        dict(key='class', label='class', kind='text'),
        dict(key='shot', label='group', kind='group'),
        dict(key='train_images', label='training images', kind='number', digits=0),
        dict(key='test_images', label='test images', kind='number', digits=0),
        dict(key='figure', label=figure, kind='number', digits=1),
        dict(key='mistake', label='most often taken for', kind='text'),
        dict(key='times', label='times', kind='number', digits=0),
        dict(key='confidence', label='mean confidence in %', kind='number', digits=1),
        dict(key='difference', label='difference', kind='number', digits=1),
    ]
    rows = [_row(run, c, baseline) for c in range(len(run.classes))]
    kept = [i for i, column in enumerate(columns) if i < 2 or any(row[i] is not None for row in rows)]
    return dict(columns=[columns[i] for i in kept], rows=[[row[i] for i in kept] for row in rows])


def _row(run: RunData, number: int, baseline: RunData | None) -> list:
    c = run.classes[number]
    other, times = c['mistake'] or (None, None)
    before = None if baseline is None else baseline.classes[number]['figure']
    return [
        c['name'],
        c['shot'],
        c['train_images'],
        c['test_images'],
        _rounded(c['figure']),
        None if other is None else run.classes[other]['name'],
        times,
        _rounded(c['confidence']),
        None if before is None or c['figure'] is None else _rounded(c['figure'] - before),
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)  # the page shows one place


def _asset(file: str) -> str:
    return (_FOLDER / file).read_text(encoding='utf-8').rstrip()
