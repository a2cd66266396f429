"""The page with the tables of all methods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mmlt.errors import InputError
from mmlt.evaluation.meanings import overall_meaning
from mmlt.visualization.leaderboard import COLUMNS, BoardRow, BoardRun, Group, Runs
from mmlt.visualization.paired import paired_interval

_NOTES = re.compile(r'<!-- notes of (\S+), written by hand and kept -->\n(.*?)<!-- end of notes -->', re.S)

_INTRO = """# Leaderboard

Made by `python tools/leaderboard.py` from run folders, seeds {seeds}; only what stands below "Notes" is written by
hand. Top-1 in percent, mean ± sample deviation over seeds. **With TTE**: the test with test-time ensembling. **With
τ**: after a logit adjustment whose strength was chosen on a validation split or on another draw of the data, never on
the test; "–" where there is neither. **Against CE**: paired difference over all, seed by seed, to plain cross entropy,
with its 95 % interval (t). Bold is the best of a column where the 95 % interval of its paired difference to the second
leaves out zero; it is that of one pair, and the best of many rows is always lucky, too. The last column is **not
ours**: the paper's own figure, of other data and a larger model, from `configs/paper_results.yml`.
"""


def values(runs: Mapping[int, BoardRun], column: str) -> dict[int, float]:
    """Figures of a row by seed, of the runs that have one.

    Args:
        runs (Mapping[int, Run]): By seed.
        column (str): See :data:`COLUMNS`.
    """
    found = {seed: run.figure(column) for seed, run in runs.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float | None] | None:
    """Mean of b - a over the seeds of both and half of its interval, see :func:`paired_interval`; None without any."""
    common = sorted(a.keys() & b.keys())
    return paired_interval([a[s] for s in common], [b[s] for s in common]) if common else None


def sure_best(rows: Mapping[str, Mapping[int, float]]) -> str | None:
    """The row with the highest mean, if it is surely better than the second.

    Args:
        rows (Mapping[str, Mapping[int, float]]): Figures by name and seed.

    Returns:
        str | None: None where the 95 % interval of the paired difference has
        zero in it, or there is no interval.
    """
    order = sorted((name for name in rows if rows[name]), key=lambda name: -np.mean(list(rows[name].values())))
    found = difference(rows[order[1]], rows[order[0]]) if len(order) > 1 else None
    sure = found is not None and found[1] is not None and found[0] > found[1]
    return order[0] if sure else None


def mean_and_deviation(figures: Mapping[int, float]) -> str:
    """Mean and sample deviation over seeds; a dash without any."""
    if not figures:
        return '–'
    numbers = list(figures.values())
    spread = f' ± {np.std(numbers, ddof=1):.1f}' if len(numbers) > 1 else ''
    return f'{np.mean(numbers):.1f}{spread}'


def _against(row: BoardRow, group: Group, runs: Runs) -> str:
    if row.folder == group.reference:
        return ''
    found = difference(*(values(runs[name], 'all') for name in (group.reference, row.folder)))
    if found is None:
        return '–'
    return f'{found[0]:+.1f}' + ('' if found[1] is None else f' ± {found[1]:.1f}')


def paper_cell(row: BoardRow, paper: Mapping[tuple[str, str, str], dict]) -> str:
    """The paper's own figure and where it stands.

    Args:
        row (Row): The row.
        paper (Mapping): By method, backbone and data set.

    Raises:
        InputError: The row names a figure that is not known.
    """
    if not row.paper:
        return ''
    method, backbone, dataset = (*row.paper.split('/'), '', '')[:3]
    entry = paper.get((method, backbone, dataset))
    if entry is None:
        raise InputError(f"The row '{row.folder}' names the paper's figure '{row.paper}', which is not there.")
    return f'{entry["all"]:.1f} ({dataset}, {backbone}; {entry["source"]})'


def _cell(text: str) -> str:
    return text.replace('|', r'\|')


def table(group: Group, runs: Runs, seeds: Sequence[int], paper: Mapping[tuple[str, str, str], dict]) -> str:
    """The figures of a group as Markdown.

    Args:
        group (Group): The table.
        runs (Runs): See :func:`read_runs`.
        seeds (Sequence[int]): Those that a row should have.
        paper (Mapping): See :func:`paper_cell`.
    """
    overall = overall_meaning(group.protocol)
    headings = ['', 'many', 'medium', 'few', f'all ({overall})', 'all, with TTE', 'all, with τ', 'all, against CE']
    headings.append("the paper's own, other data")
    lines = [f'| {" | ".join(headings)} |', f'| :-- |{" :-: |" * (len(headings) - 1)}']
    best = {column: sure_best({name: values(own, column) for name, own in runs.items()}) for column in COLUMNS}
    for row in group.rows:
        cells = [mean_and_deviation(values(runs[row.folder], column)) for column in COLUMNS]
        cells = [f'**{cell}**' if best[c] == row.folder else cell for c, cell in zip(COLUMNS, cells)]
        number = len(runs[row.folder])
        label = row.label if number in (0, len(seeds)) else f'{row.label} ({number} of {len(seeds)} seeds)'
        cells = [label, *cells, _against(row, group, runs), paper_cell(row, paper)]
        lines.append(f'| {" | ".join(map(_cell, cells))} |')
    return '\n'.join(lines)


def best_elsewhere(group: Group, runs: Runs) -> str | None:
    """What the row has here that is best by the scores on which tau was chosen, which are not those of the test.

    Args:
        group (Group): The table.
        runs (Runs): See :func:`read_runs`.

    Returns:
        str | None: A sentence by the accuracies at which tau was chosen, mean
        over seeds; None where nothing was chosen.
    """
    at = {name: [run.tau['chosen_at'] for run in own.values() if run.tau] for name, own in runs.items()}
    at = {name: figures for name, figures in at.items() if figures}
    if not at:
        return None
    best = next(row for row in group.rows if row.folder == max(at, key=lambda name: np.mean(at[name])))
    figures = {
        column: {seed: run.tau['metrics'][column] for seed, run in runs[best.folder].items() if run.tau}
        for column in ('few', 'all')
    }
    number = '/'.join(sorted({str(run.tau['chosen_on']) for run in runs[best.folder].values() if run.tau}))
    where = 'the validation split' if group.tau_draw is None else f'draw {group.tau_draw}'
    return (
        f'By accuracy over all classes with τ on {where}, the best of {len(at)} rows is **{best.label}** '
        f'({np.mean(at[best.folder]):.1f} of {number} pictures there); here it has with τ '
        f'{mean_and_deviation(figures["few"])} on few-shot classes and {mean_and_deviation(figures["all"])} over all.'
    )


def missing(group: Group, runs: Runs, seeds: Sequence[int]) -> str:
    """Which runs and parts of runs are not there, a line a row; says so where nothing is missing.

    Args:
        group (Group): The table.
        runs (Runs): See :func:`read_runs`.
        seeds (Sequence[int]): Those that a row should have.
    """
    lines = []
    for row in group.rows:
        own = runs[row.folder]
        parts = {
            'run': [s for s in seeds if s not in own],
            'test with TTE': [s for s in own if own[s].tte is None],
            'scores to choose τ on': [s for s in own if own[s].tau is None],
            'provenance': [s for s in own if own[s].provenance is None],
        }
        told = [f'{what} of seed {", ".join(map(str, absent))}' for what, absent in parts.items() if absent]
        if told:
            lines.append(f'- `{row.folder}`: {"; ".join(told)}')
    return 'Missing:\n\n' + '\n'.join(lines) if lines else 'No run is missing.'


def _made(group: Group, runs: Runs) -> list[tuple[str, dict]]:
    """Names of the runs that tell where they come from, and what they tell."""
    found = []
    for row in group.rows:
        own = runs[row.folder]
        found += [(f'{row.folder}, seed {s}', run.provenance) for s, run in own.items() if run.provenance is not None]
        draw = next((run.draw for run in own.values() if run.draw is not None), None)
        found += [] if draw is None else [(f'{row.folder}, draw {group.tau_draw} for τ', draw)]
    return found


def _asked(found: dict) -> str:
    """Config and options; a draw of the data, which is an option for every list of every stage, as one word."""
    draws = {o.rpartition('=')[2] for o in found['options'] if 'selection_seed=' in o}
    options = [f'`{o}`' for o in found['options'] if 'selection_seed=' not in o]
    return ' '.join((f'`{found["config"]}`', *options, *(f'draw {d}' for d in sorted(draws))))


def provenance(group: Group, runs: Runs) -> str:
    """Where the runs come from: a table, the sets of versions, and whether they are mixed.

    Args:
        group (Group): The table.
        runs (Runs): See :func:`read_runs`.
    """
    sets: dict[str, int] = {}
    commits: dict[str, None] = {}
    lines = []
    for name, found in _made(group, runs):
        steps = found['steps']
        own = [', '.join(f'{k} {v}' for k, v in step['versions'].items()) for step in steps]
        numbers = [str(sets.setdefault(text, len(sets) + 1)) for text in own]
        made = [step['commit'] or 'not in git' for step in steps]
        commits |= dict.fromkeys(made)
        seconds = [sum(s['seconds'] for s in steps if (s['name'] == 'train') is training) for training in (True, False)]
        told = ', '.join(f'{s:.0f}' for s in seconds)
        cells = (name, _asked(found), ', '.join(dict.fromkeys(made)), ', '.join(dict.fromkeys(numbers)), told)
        lines.append(f'| {" | ".join(map(_cell, cells))} |')
    if not lines:
        return 'No run has told where it comes from.'
    head = [
        '| run | config and options | commit | versions | seconds: training, tests |',
        '| :-- | :-- | :-- | :-: | :-: |',
    ]
    text = '\n'.join([*head, *lines, '', 'Versions:', '', *(f'{n}. {versions}' for versions, n in sets.items())])
    text += '\n\nThe first run that needs a shared pretraining has its seconds.'
    if len(sets) > 1 or len(commits) > 1:
        text += f'\n\n**Mixed**: these runs are of {len(commits)} commit(s) and {len(sets)} set(s) of versions.'
    if any(c.endswith('-dirty') for c in commits):
        text += '\n\nA commit that ends with `-dirty` had changes that are not in git.'
    return text


def read_notes(text: str) -> dict[str, str]:
    """What a person wrote, by the table's key.

    Args:
        text (str): The page as it is, '' where there is none.

    Raises:
        InputError: A marker was broken, so that what it held would be lost.
    """
    found = _NOTES.findall(text)
    if any(text.count(part) != len(found) for part in ('<!-- notes of ', '<!-- end of notes -->')):
        raise InputError('The page has a marker of notes without its other: mend it, or the notes would be lost.')
    return dict(found)


def board_page(
    groups: Mapping[str, tuple[Group, Runs]],
    seeds: Sequence[int],
    paper: Mapping[tuple[str, str, str], dict],
    old: str = '',
    pictures: Mapping[str, str] | None = None,
) -> str:
    """The whole page.

    Args:
        groups (Mapping): Tables and their runs by key.
        seeds (Sequence[int]): Those that a row should have.
        paper (Mapping): See :func:`paper_cell`.
        old (str): The page as it was, whose notes are kept. Defaults to ''.
        pictures (Mapping[str, str], optional): Files of the tables' pictures,
            from the page's folder, by the table's key. Defaults to None.

    Raises:
        InputError: Notes of a table that is no more; see also
            :func:`read_notes`.
    """
    notes = read_notes(old)
    if lost := next((key for key in notes if key not in groups and notes[key].strip()), None):
        raise InputError(f"The page has notes of '{lost}', which is no table any more: move them before they are lost.")
    parts = [_INTRO.format(seeds=', '.join(map(str, seeds)))]
    for key, (group, runs) in groups.items():
        own = notes.get(key, '')
        parts += [f'## {group.title}', ' '.join(group.about.split()), table(group, runs, seeds, paper)]
        if picture := (pictures or {}).get(key):
            parts.append(f'![many, medium, few and all of every row]({picture})')
        parts += [p for p in (best_elsewhere(group, runs), missing(group, runs, seeds), '### Notes') if p]
        parts.append(f'<!-- notes of {key}, written by hand and kept -->\n{own}<!-- end of notes -->')
        parts += ['<details>\n<summary>Where the runs come from</summary>', provenance(group, runs), '</details>']
    return '\n\n'.join(part.strip('\n') for part in parts) + '\n'
