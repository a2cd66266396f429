"""The parts of a page, as HTML. Every text of a run goes through :func:`text`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from mmlt.evaluation.functional import SHOTS
from mmlt.visualization.comparison import COLUMNS, summarise
from mmlt.visualization.html_report import svg
from mmlt.visualization.html_report.data import RunData
from mmlt.visualization.report import MEASURES, overall_figures, what_is_shown

_OTHERS = {'worst_class': 'worst class', 'harmonic_mean': 'harmonic mean', 'ece': 'ECE', 'nll': 'NLL in nats'}


def text(value) -> str:
    """A text as HTML."""
    return escape(str(value))


def name(value) -> str:
    """The name of a class as HTML: its direction is its own, whatever the words around it."""
    return f'<bdi>{escape(str(value))}</bdi>'


def _percent(value: float | None) -> str:
    return '–' if value is None else f'{value:.1f}'


def _key(kind: str, label: str) -> str:
    return f'<span class="key {kind}">{text(label)}</span>'


def _figure(title: str, content: str, caption: str = '') -> str:
    caption = f'<figcaption>{caption}</figcaption>' if caption else ''
    return f'<figure><b>{text(title)}</b>{content}{caption}</figure>'


def overview(groups: Mapping[str, Sequence[RunData]]) -> str:
    """The many / medium / few table of all runs, of seeds mean and deviation.

    Args:
        groups (Mapping[str, Sequence[RunData]]): Names, and the runs of one or
            several seeds.

    Returns:
        str: HTML.

    Raises:
        InputError: Runs of different classes, see :func:`summarise`.
    """
    reports = {label: [run.report for run in runs] for label, runs in groups.items()}
    rows = summarise(reports)
    for row, own in zip(rows.values(), reports.values()):
        figures = [overall_figures(report) for report in own]
        for key in _OTHERS:
            if all(key in each for each in figures):
                values = np.array([each[key] for each in figures])
                row[key] = (float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)
    first = next(iter(groups.values()))[0]
    sizes = {shot: sum(c['shot'] == shot for c in first.classes) for shot in SHOTS}
    columns = {k: v for k, v in {**COLUMNS, **_OTHERS}.items() if any(k in row for row in rows.values())}
    heads = ''.join(f'<th>{text(v)}{f" ({sizes[k]})" if k in sizes else ""}</th>' for k, v in columns.items())
    body = ''
    for label, row in rows.items():
        cells = ''.join(f'<td>{_overview_cell(key, row.get(key))}</td>' for key in columns)
        body += f'<tr><td class="text">{text(label)}</td>{cells}</tr>'
    shown = {what_is_shown(report) for own in reports.values() for report in own}
    caption = text(shown.pop()) + '; in brackets the number of classes' if len(shown) == 1 else 'In percent'
    table = f'<table class="overview"><thead><tr><th class="text">run</th>{heads}</tr></thead>'
    return f'<div class="scroll names">{table}<tbody>{body}</tbody></table></div><p class="soft">{caption}.</p>'


def _overview_cell(key: str, value: tuple[float, float | None] | None) -> str:
    if value is None:
        return '–'
    digits = 3 if key == 'nll' else 1
    mean, deviation = value
    return f'{mean:.{digits}f}' + ('' if deviation is None else f' ± {deviation:.{digits}f}')


def run_section(run: RunData, baseline: RunData | None) -> str:
    """All of one run.

    Args:
        run (RunData): The run.
        baseline (RunData, optional): Another one, with which the table of
            classes compares it.

    Returns:
        str: HTML.
    """
    images = run.report.get('num_samples')
    shown = what_is_shown(run.report, '' if images is None else f'{images:,} test images, ')
    notes = ''.join(f'<li dir="auto">{text(note)}</li>' for note in run.notes)
    parts = [
        f'<section class="run"><h2>{text(run.name)}</h2><p class="soft">{text(run.folder)}: {text(shown)}.</p>',
        f'<ul class="notes">{notes}</ul>' if notes else '',
        f'<div class="figures">{_figures(run)}</div>',
        _worst(run),
        _classes(run, baseline),
        _details('Recipe', run.recipe),
        _details('Versions and devices of the newest start in the folder', run.versions),
        '</section>',
    ]
    return '\n'.join(part for part in parts if part)


def _figures(run: RunData) -> str:
    label = f'{MEASURES[run.measure][1]} in percent'
    keys = ''.join(_key(shot, shot) for shot in SHOTS)
    found = [_figure('Every class over its size', svg.class_scatter(run.classes, label), keys)]
    if run.bins:
        title = f'Reliability: ECE {run.ece:.1f} %'
        caption = (
            _key('train square', 'accuracy')
            + _key('few square', 'mean confidence')
            + '<span class="key none">paler: fewer pictures</span>'
        )
        found.append(_figure(title, svg.reliability_chart(run.bins), caption))
    if run.confusion is not None:
        found.append(_figure('Confusion between and within shots', _confusion(run.confusion)))
    if run.losses is not None:
        found.append(_losses(run))
    if run.figures:
        lines = {shot: (f'{shot} points', points) for shot, points in run.figures.items()}
        drawn = svg.curves(lines, (run.losses.unit, MEASURES[run.measure][0] + ' in percent'), percent=True)
        found.append(_figure('Validation', drawn, ''.join(_key(shot, shot) for shot in lines)))
    return '\n'.join(found)


def _losses(run: RunData) -> str:
    lines = {'training': ('train', run.losses.train)}
    for i, (key, points) in enumerate(run.losses.val.items()):
        lines[key] = (f'{"val" if i % 2 == 0 else "val2"} dashed points', points)
    drawn = svg.curves(lines, (run.losses.unit, 'loss'))
    return _figure('Loss', drawn, ''.join(_key(kind.split()[0], label) for label, (kind, _) in lines.items()))


def _confusion(found: dict) -> str:
    heads = ''.join(f'<th>{shot}</th>' for shot in SHOTS)
    body = ''
    for i, shot in enumerate(SHOTS):
        cells = ''.join(
            f'<td{" class=own" if i == j else ""}>{_percent(share)}</td>' for j, share in enumerate(found['share'][i])
        )
        body += (
            f'<tr><td class="group {shot}">{shot}</td>{cells}<td>{_percent(found["within"][i])}</td>'
            f'<td>{found["images"][i]:,}</td></tr>'
        )
    return (
        f'<div class="scroll"><table><thead><tr><th class="text">true</th>{heads}<th>wrong within</th>'
        f'<th>pictures</th></tr></thead><tbody>{body}</tbody></table></div>'
        '<figcaption>Percent of the pictures of a group that were taken for a class of each group; wrong within: for a '
        'wrong class of their own group, which the share in bold contains.</figcaption>'
    )


def _worst(run: RunData) -> str:
    if not run.worst:
        return ''
    cards = ''.join(_card(run, own) for own in run.worst)
    told = ''
    if any(own['sentences'] for own in run.worst):
        told = (
            ' Anchor sentences are those of the lowest scores in the selection, the most telling ones of the class; '
            'which ones a single picture attended to tells a test with model.head.explain=3.'
        )
    pictures = any(own['pictures'] for own in run.worst)
    shown = ' Pictures are the surest mistakes, with what they were taken for.' if pictures else ''
    return (
        f'<h3>The worst classes</h3><p class="soft">The lowest first.{shown}{told}</p><div class="cards">{cards}</div>'
    )


def _card(run: RunData, own: dict) -> str:
    c = run.classes[own['index']]
    taken = ', '.join(f'{name(run.classes[k]["name"])}\u00a0×\u00a0{n:,}' for k, n in own['taken_for'])
    images = '' if c['test_images'] is None else f', {c["test_images"]:,} to test'
    parts = [
        f'<h4>{name(c["name"])}</h4>',
        f'<p class="soft"><span class="chip {c["shot"]}">{c["shot"]}</span>{c["figure"]:.1f}\u00a0%, '
        f'{c["train_images"]:,} training images{images}</p>',
        f'<p>taken for {taken}</p>' if taken else '',
        f'<div class="thumbs">{"".join(_thumb(run, picture) for picture in own["pictures"])}</div>'
        if own['pictures']
        else '',
    ]
    if own['sentences']:
        items = ''.join(
            f'<li dir="auto">{text(sentence)}{"" if score is None else f" ({score:.2f})"}</li>'
            for sentence, score in own['sentences']
        )
        parts.append(f'<p class="soft">anchor sentences</p><ul>{items}</ul>')
    return f'<div class="card">{"".join(parts)}</div>'


def _thumb(run: RunData, picture: dict) -> str:
    taken = name(run.classes[picture['taken_for']]['name'])
    sure = '' if picture['confidence'] is None else f' {picture["confidence"]:.0f}\u00a0%'
    return f'<div><img src="{text(picture["image"])}" alt=""><span>{taken}{sure}</span></div>'


def _classes(run: RunData, baseline: RunData | None) -> str:
    options = ''.join(f'<option value="{shot}">{shot}</option>' for shot in SHOTS)
    told = '' if baseline is None else f' The last column is the difference to {text(baseline.name)} in points.'
    return (
        f'<h3>All classes</h3><p class="soft">A heading sorts.{told}</p><div class="classtable names">'
        '<div class="controls"><input type="search" placeholder="class or mistake" aria-label="class or mistake">'
        f'<select aria-label="shot group"><option value="">all groups</option>{options}</select>'
        '<span class="count soft"></span></div><div class="scroll"><table class="classes"><thead><tr></tr></thead>'
        '<tbody></tbody></table></div><p><button type="button" class="more" hidden></button></p></div>'
        '<noscript><p>The table needs JavaScript.</p></noscript>'
    )


def _details(title: str, facts: Mapping[str, str]) -> str:
    if not facts:
        return ''
    items = ''.join(f'<dt>{text(key)}</dt><dd>{text(value)}</dd>' for key, value in facts.items())
    return f'<details><summary>{text(title)}</summary><dl>{items}</dl></details>'
