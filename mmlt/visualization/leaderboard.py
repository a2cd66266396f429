"""A table of all methods: what stands in it, and the runs it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mmlt.errors import InputError
from mmlt.utils.text_files import read_json
from mmlt.visualization.runs import check_comparable, read_report

# Keys of the columns of a table, and how a cell's figure is found in a run, see Run.figure.
SHOT_COLUMNS = ('many', 'medium', 'few', 'all')
COLUMNS = (*SHOT_COLUMNS, 'tte', 'tau')

_TOLD = 'see docs/leaderboard.yml'


@dataclass(frozen=True)
class BoardRow:
    """A method in a table.

    Args:
        config (str): Name of its config.
        group (str): Key of its table.
        label (str): What it is called.
        name (str): Of the folder of its runs. Defaults to '', the config's.
        options (tuple[str, ...]): As for ``--cfg-options``. Defaults to none.
        paper (str): Key of the paper's own figure in
            ``configs/paper_results.yml``, 'method/backbone/data set'. Defaults
            to '', none.
        main (bool): Whether it stands in the README, too. Defaults to False.
    """

    config: str
    group: str
    label: str
    name: str = ''
    options: tuple[str, ...] = ()
    paper: str = ''
    main: bool = False

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        return self.name or self.config


@dataclass(frozen=True)
class Group:
    """A table: one data set and one tower.

    Args:
        key (str): For markers.
        title (str): Its heading.
        about (str): A paragraph about the data.
        protocol (str): That of all reports.
        reference (str): Folder name of the row to which differences are.
        dataset (str): Type of the data set in the configs.
        draws (bool): Whether the seed of a run is that of the split, too.
            Defaults to False.
        tau_draw (int, optional): Draw of the split on which tau is chosen,
            where there is no validation split. Defaults to None.
        rows (list[Row]): Defaults to none.
    """

    key: str
    title: str
    about: str
    protocol: str
    reference: str
    dataset: str
    draws: bool = False
    tau_draw: int | None = None
    rows: list[BoardRow] = field(default_factory=list)


@dataclass
class BoardRun:
    """What a run folder holds.

    Args:
        folder (Path): The folder.
        report (dict): Of the test.
        tte (dict, optional): Of the test with TTE. Defaults to None.
        tau (dict, optional): Of the test after an adjustment. Defaults to None.
        provenance (dict, optional): Defaults to None.
        draw (dict, optional): Provenance of the run of another draw on whose
            scores tau was chosen. Defaults to None.
    """

    folder: Path
    report: dict
    tte: dict | None = None
    tau: dict | None = None
    provenance: dict | None = None
    draw: dict | None = None

    def figure(self, column: str) -> float | None:
        """A figure in percent, None where the run has none.

        Args:
            column (str): One of :data:`COLUMNS`.
        """
        report = {'tte': self.tte, 'tau': self.tau}.get(column, self.report)
        return None if report is None else report['metrics'].get(column if column in SHOT_COLUMNS else 'all')


# Runs by row's folder name and seed.
Runs = Mapping[str, Mapping[int, BoardRun]]


def read_board(path: str | Path) -> tuple[list[Group], str]:
    """The tables and their rows.

    Args:
        path (str | Path): ``docs/leaderboard.yml``.

    Returns:
        tuple[list[Group], str]: With their rows, and the strengths of the
        adjustment to choose from.

    Raises:
        InputError: A key that is not known or is missing; a row of no table;
            two rows whose runs would share a folder; no row to compare with.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise InputError(f"'{path}' cannot be read ({type(e).__name__}): give a list like docs/leaderboard.yml.") from e
    try:
        groups = {g['key']: Group(**g) for g in content['groups']}
        rows = [BoardRow(**{**r, 'options': tuple(r.get('options', ()))}) for r in content['rows']]
        taus = content['taus']
    except (KeyError, TypeError) as e:
        raise InputError(f"'{path}' is no list of tables and rows ({type(e).__name__}: {e}).") from e
    if not isinstance(taus, str) or ':' not in taus:  # YAML takes 0:2:0.1 for hours, minutes and seconds
        raise InputError(f"taus in '{path}' is {taus!r}: give a range in quotes, as '0:2:0.1'.")
    folders = [row.folder for row in rows]
    if twice := next((f for f in folders if folders.count(f) > 1), None):
        raise InputError(f"Two rows of '{path}' have runs in '{twice}': give one of them a name.")
    for row in rows:
        if row.group not in groups:
            raise InputError(f"The row '{row.folder}' of '{path}' is of the group '{row.group}', which is not there.")
        groups[row.group].rows.append(row)
    for group in groups.values():
        if group.reference not in [row.folder for row in group.rows]:
            raise InputError(f"The group '{group.key}' of '{path}' has no row '{group.reference}' to compare with.")
    return list(groups.values()), taus


def read_runs(group: Group, folder: str | Path, seeds: Sequence[int], adjusted: Callable[[Path, Path], dict]) -> Runs:
    """The runs of a table that are there.

    Args:
        group (Group): The table.
        folder (str | Path): With ``<row>/seed<k>``.
        seeds (Sequence[int]): Those to be shown.
        adjusted (Callable): Gives the report of a test after an adjustment
            that is chosen on other scores, of the two files.

    Returns:
        Runs: Without those that are missing.

    Raises:
        InputError: A run of another protocol, other classes, another config,
            other options or another seed than the row's.
    """
    found: dict[str, dict[int, BoardRun]] = {}
    for row in group.rows:
        own = found[row.folder] = {}
        for seed in seeds:
            place = Path(folder, row.folder, f'seed{seed}')
            if (place / 'shot_report.json').is_file():
                own[seed] = _read_run(group, row, seed, place, adjusted)
    return check_runs(group, found)


def check_runs(group: Group, found: Runs) -> Runs:
    """Refuse runs that do not belong into one table.

    Args:
        group (Group): The table.
        found (Runs): Its runs.

    Returns:
        Runs: The same.

    Raises:
        InputError: A run of another protocol or other classes.
    """
    runs = [run for own in found.values() for run in own.values()]
    if runs:
        check_comparable({f"'{run.folder}'": run.report for run in runs})
    for run in runs:
        for report in (run.report, run.tte, run.tau):
            if report is not None and (protocol := report['protocol']) != group.protocol:
                raise InputError(
                    f"'{run.folder}' was tested by the protocol '{protocol}', and the table '{group.key}' is of "
                    f"'{group.protocol}': test it again with that one ({_TOLD})."
                )
    return found


def _read_run(group: Group, row: BoardRow, seed: int, place: Path, adjusted: Callable[[Path, Path], dict]) -> BoardRun:
    run = BoardRun(place, read_report(place))
    if (place / 'tta' / 'shot_report.json').is_file():
        run.tte = read_report(place / 'tta')
    run.provenance = _provenance(row, seed, place, seed if group.draws else None)
    test, val = place / 'test.npz', place / 'val.npz'
    if group.tau_draw is not None:
        other = place.parent / f'draw{group.tau_draw}'
        val = other / 'test.npz'
        run.draw = _provenance(row, 0, other, group.tau_draw)
        # Scores that do not tell of which draw they are may be those of the test.
        if val.is_file() and run.draw is None:
            raise InputError(f"'{other}' has no provenance.json, which would say of which draw it is: make it again.")
    if test.is_file() and val.is_file():
        run.tau = adjusted(test, val)
    return run


def _provenance(row: BoardRow, seed: int, place: Path, draw: int | None) -> dict | None:
    path = place / 'provenance.json'
    if not path.is_file():
        return None
    found = read_json(str(path))
    check_provenance(found, row, seed, draw, path)
    return found


def check_provenance(found: dict, row: BoardRow, seed: int, draw: int | None, place: str | Path) -> None:
    """Raise an InputError if a run is of another config, other options, another seed or draw than the row's.

    Args:
        found (dict): What ``provenance.json`` holds.
        row (BoardRow): The row.
        seed (int): Of the run.
        draw (int, optional): Of the split; None for the default one.
        place (str | Path): What to name.
    """
    try:
        config, own, options = found['config'], found['seed'], found['options']
        _ = [(s['name'], s['seconds'], s['commit'], s['versions']) for s in found['steps']]
    except (KeyError, TypeError) as e:
        raise InputError(f"'{place}' is damaged ({type(e).__name__}: {e}): remove the run and make it again.") from e
    drawn = f'test_dataloader.dataset.selection_seed={draw}'
    wanted = [*row.options, *([] if draw is None else [drawn])]
    strange = draw is None and any('selection_seed=' in o for o in {*options} - {*row.options})
    if config != row.config or own != seed or not set(wanted) <= set(options) or strange:
        asked = ' '.join((row.config, *wanted))
        raise InputError(
            f"'{place}' is a run of {' '.join((config, *options))} with seed {own}, and the row is of {asked} with "
            f'seed {seed}: remove it, or give the row another name ({_TOLD}).'
        )
