"""What the page keeps of run folders: a small JSON file a row, from which it can be made again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmlt.checkpoints import write_text
from mmlt.errors import InputError
from mmlt.utils.text_files import read_json
from mmlt.visualization.leaderboard import BoardRow, BoardRun, Group, Runs, check_provenance, check_runs

_REPORTS, _PROVENANCE = ('report', 'tte', 'tau'), ('provenance', 'draw')
_CHOICE = ('tau', 'chosen_at', 'chosen_on')
_KEPT = ('protocol', 'num_samples', 'metrics')


def write_records(group: Group, runs: Runs, folder: str | Path) -> None:
    """Write the figures and the provenance of all runs of a table, a file a row.

    Args:
        group (Group): The table.
        runs (Runs): Of the table.
        folder (str | Path): For ``<row>.json``; a row without runs has none.
    """
    for row in group.rows:
        if own := runs[row.folder]:
            classes = [c['class'] for c in next(iter(own.values())).report['per_class']]
            # A line a run: a run that is made anew is a line in a diff.
            lines = ',\n'.join(f'{json.dumps(str(seed))}: {json.dumps(_record(own[seed]))}' for seed in sorted(own))
            text = f'{{"classes": {json.dumps(classes)},\n"runs": {{\n{lines}\n}}}}\n'
            write_text(Path(folder, f'{row.folder}.json'), text)


def _record(run: BoardRun) -> dict:
    found = {key: getattr(run, key) for key in _PROVENANCE}
    for key in _REPORTS:
        report = getattr(run, key)
        found[key] = report and {k: v for k, v in report.items() if k in (*_KEPT, *_CHOICE)}
    return found


def read_records(group: Group, folder: str | Path, seeds: Sequence[int]) -> Runs:
    """What :func:`write_records` has written.

    Args:
        group (Group): The table.
        folder (str | Path): With ``<row>.json``.
        seeds (Sequence[int]): Those to be shown.

    Returns:
        Runs: Without those that are missing.

    Raises:
        InputError: A file that is damaged; a run that is not of the table, see
            :func:`read_runs`.
    """
    files = {row: Path(folder, f'{row.folder}.json') for row in group.rows}
    found = {row.folder: _read(group, row, file, seeds) if file.is_file() else {} for row, file in files.items()}
    return check_runs(group, found)


def _read(group: Group, row: BoardRow, file: Path, seeds: Sequence[int]) -> Mapping[int, BoardRun]:
    content = read_json(str(file))
    try:
        classes = [{'class': name} for name in content['classes']]
        stored = {int(seed): run for seed, run in content['runs'].items()}
        found = {}
        for seed in (s for s in seeds if s in stored):
            kept = {key: stored[seed][key] for key in (*_REPORTS, *_PROVENANCE)}
            for key in _REPORTS:
                wanted = (*_KEPT, *_CHOICE) if key == 'tau' else _KEPT
                kept[key] = kept[key] and {**{k: kept[key][k] for k in wanted}, 'per_class': classes}
            found[seed] = BoardRun(file, **kept)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise InputError(f"'{file}' is damaged ({type(e).__name__}: {e}): restore it, or make its runs again.") from e
    for seed, run in found.items():
        for told, own, draw in (
            (run.provenance, seed, seed if group.draws else None),
            (run.draw, 0, group.tau_draw),
        ):
            if told is not None:
                check_provenance(told, row, own, draw, file)
    return found


def merged(records: Runs, runs: Runs) -> Runs:
    """Runs of folders, and those of the records where a folder is not there or has less."""
    found = {}
    for name, own in runs.items():
        kept = {seed: run for seed, run in records[name].items() if complete(run) and not complete(own.get(seed))}
        found[name] = {**records[name], **own, **kept}
    return found


def complete(run: BoardRun | None) -> bool:
    """Whether a run has all that a row shows."""
    return run is not None and None not in (run.tte, run.tau, run.provenance)
