"""Runs as they are named on the command line, and the reports that they left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmlt.errors import InputError


def named_runs(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Names and folders of runs.

    Args:
        arguments (Sequence[str]): Each is a folder, whose name is that of its
            last part, or ``name=folder,folder,...`` for several seeds; a folder
            of ``mmlt seeds`` stands for the seeds in it.

    Returns:
        dict[str, list[str]]: In the order given.

    Raises:
        InputError: A name that comes twice, or one without folder.
    """
    plain = [a for a in arguments if '=' not in a or Path(a).exists()]
    last_parts = [Path(a).resolve().name for a in plain]
    runs: dict[str, list[str]] = {}
    for argument in arguments:
        if argument in plain:
            last = Path(argument).resolve().name
            name, folders = last if last_parts.count(last) == 1 else argument, _seeds(argument) or [argument]
        else:
            name, _, rest = argument.partition('=')
            folders = [f for f in rest.split(',') if f]
        if not name or not folders:
            raise InputError(f"'{argument}' is neither a folder nor of the form name=folder,folder,...")
        if name in runs:
            raise InputError(f"Two runs are named '{name}': write name=folder with names that differ.")
        runs[name] = folders
    return runs


def _seeds(folder: str) -> list[str]:
    """Reports of the seeds in a folder of ``mmlt seeds``; none in one that has a report itself."""
    if (Path(folder) / 'shot_report.json').exists():
        return []
    seeds = [path.parent for path in Path(folder).glob('seed*/shot_report.json') if path.parent.name[4:].isdigit()]
    return [str(path) for path in sorted(seeds, key=lambda path: int(path.name[4:]))]


def read_report(path: str | Path) -> dict:
    """A report that :class:`ShotReportHook` has written.

    Args:
        path (str | Path): ``shot_report.json``, or the work directory with it.

    Returns:
        dict: :attr:`ShotAccuracy.report`.

    Raises:
        InputError: There is none, or the file is something else.
    """
    file = Path(path)
    if file.is_dir():
        file = file / 'shot_report.json'
    if not file.is_file():
        raise InputError(
            f"There is no report '{file}': mmlt.ShotReportHook writes it at the end of mmlt train, or with mmlt test; "
            'several runs of one name are given as name=folder,folder,...'
        )
    try:
        report = json.loads(file.read_text(encoding='utf-8'))
    except ValueError as e:
        raise InputError(f"'{file}' is no JSON ({e}): test the run again.") from e
    if not isinstance(report, dict) or not {'protocol', 'metrics', 'per_class'} <= report.keys():
        raise InputError(f"'{file}' is not a report of mmlt.ShotReportHook: give its shot_report.json.")
    return report


def check_comparable(reports: Mapping[str, dict]) -> None:
    """Refuse reports of different class lists.

    Args:
        reports (Mapping[str, dict]): Names to tell them apart, and reports.

    Raises:
        InputError: Names the first difference.
    """
    (first, reference), *others = ((name, [c['class'] for c in r['per_class']]) for name, r in reports.items())
    for name, classes in others:
        if len(classes) != len(reference):
            raise InputError(
                f'{first} has {len(reference)} classes and {name} has {len(classes)}: compare runs on one data set.'
            )
        for i, (a, b) in enumerate(zip(reference, classes)):
            if a != b:
                raise InputError(
                    f"Class {i} is '{a}' in {first} and '{b}' in {name}: compare runs on one data set with one class "
                    'list.'
                )
