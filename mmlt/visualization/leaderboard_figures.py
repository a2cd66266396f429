"""Figures of the leaderboard in the files that ``mmlt models`` and ``mmlt reproduce`` read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mmlt.visualization.leaderboard import Group, Runs
from mmlt.visualization.leaderboard_page import mean_and_deviation, values

_COLUMNS = {'many': 'many', 'medium': 'medium', 'few': 'few', 'all': 'all', 'tte': 'tta'}


def measured_figures(found: Mapping[str, tuple[Group, Runs]]) -> dict[str, dict[str, str]]:
    """Means over seeds as the tables have them, of every row that is a config as it stands.

    Args:
        found (Mapping): Tables and their runs by key.

    Returns:
        dict: 'many', 'medium', 'few', 'all' and, where there is one, 'tta' by
        the config's name; without rows that have no run.
    """
    figures = {}
    for group, runs in found.values():
        for row in group.rows:
            own = {name: values(runs[row.folder], column) for column, name in _COLUMNS.items()}
            if own['all'] and not row.options:
                figures[row.config] = {name: mean_and_deviation(v).split()[0] for name, v in own.items() if v}
    return figures


def fill_measured(text: str, figures: Mapping[str, Mapping[str, str]]) -> str:
    """``paper_results.yml`` with these figures in its part ``measured``, which is the last.

    Args:
        text (str): The file.
        figures (Mapping): See :func:`measured_figures`.

    Returns:
        str: The file; rows that have no figures here are as they were.
    """
    head, mark, rest = text.partition('\nmeasured:\n')
    lines = {tuple(re.findall(r'(?:method|backbone|dataset): ([^,]+)', line)): line for line in rest.splitlines()}
    for config, own in figures.items():
        name = tuple(config.split('_', 2))
        told = ', '.join(
            f'{key}: {value}' for key, value in (*zip(('method', 'backbone', 'dataset'), name), *own.items())
        )
        lines[name] = f'  - {{{told}}}'
    return head + mark + '\n'.join(lines.values()) + '\n'


def fill_metafile(text: str, figures: Mapping[str, Mapping[str, str]]) -> str:
    """A ``metafile.yml`` with these figures where a model has any.

    Args:
        text (str): The file.
        figures (Mapping): See :func:`measured_figures`.
    """

    def model(match: re.Match) -> str:
        own = figures.get(match[1])
        if own is None:
            return match[0]
        filled = re.sub(r'(Top 1 Accuracy: ).*', rf'\g<1>{own["all"]}', match[0])
        return re.sub(r'(Top 1 Accuracy, few-shot: ).*', rf'\g<1>{own["few"]}', filled)

    return re.sub(r'^  - Name: (\S+)\n(?:    .*\n)*', model, text, flags=re.M)
