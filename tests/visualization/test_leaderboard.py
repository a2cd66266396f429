"""The leaderboard, of made-up run folders, against figures that are computed anew here."""

import json
import math
import re
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mmlt import InputError
from mmlt.apis.posthoc import chosen_tau_report, parse_taus
from mmlt.cli import leaderboard as tool
from mmlt.engine.configs import CONFIGS, config_names, read_config
from mmlt.engine.paper_rows import read_figures
from mmlt.evaluation import shot_accuracy
from mmlt.evaluation.scores_file import Scores, write_scores
from mmlt.evaluation.shot_metric import make_report
from mmlt.visualization import leaderboard_picture
from mmlt.visualization.leaderboard import BoardRow, BoardRun, Group, read_board, read_runs
from mmlt.visualization.leaderboard_excerpt import fill_excerpts
from mmlt.visualization.leaderboard_figures import fill_measured, fill_metafile, measured_figures
from mmlt.visualization.leaderboard_page import best_elsewhere, board_page, read_notes, sure_best
from mmlt.visualization.leaderboard_records import complete, merged, read_records, write_records

REPO = Path(__file__).parents[2]
COUNTS = np.array([400, 150, 60, 30, 10, 4])
CLASSES = np.array(list('abcdef'))
SEEDS = [0, 1, 2]
VERSIONS = {'mmlt': '1.0', 'torch': '9.8', 'device': 'CPU'}
PAPER = {('ce', 'rn50', 'imagenet-lt'): {'all': 60.5, 'source': 'A paper, Table 1'}}
tau_report = partial(chosen_tau_report, taus='0:2:0.5')


def scores(skill, rng, images=12):
    """Logits that are right more often with more skill, and lean to large classes."""
    labels = np.repeat(np.arange(len(COUNTS)), images)
    logits = rng.normal(size=(len(labels), len(COUNTS))) + 0.7 * np.log(COUNTS)
    logits[np.arange(len(labels)), labels] += skill
    return Scores(logits.astype(np.float32), labels, CLASSES, COUNTS, 'test', {'protocol': 'standard'})


def report_of(found, protocol='standard'):
    figures = shot_accuracy(found.labels, found.logits.argmax(1), COUNTS, protocol)
    per_class = figures.pop('per_class')
    return make_report(protocol, 'accuracy', figures, len(found.labels), CLASSES, COUNTS, per_class)


def accuracies(logits, labels):
    """Of every class in percent, written out."""
    found = []
    for c in range(len(COUNTS)):
        own = [z for z, y in zip(logits, labels) if y == c]
        found.append(100 * sum(max(range(len(z)), key=z.__getitem__) == c for z in own) / len(own))
    return found


def make_run(root, row, seed, skill, val='val.npz', told=None):
    """Write a run folder; returns the scores of its test and of what tau is chosen on."""
    rng = np.random.default_rng([seed, round(10 * skill)])
    folder = Path(root, row.folder, f'seed{seed}')
    (folder / 'tta').mkdir(parents=True)
    test, chosen_on = scores(skill, rng), scores(skill, rng)
    (folder / 'shot_report.json').write_text(json.dumps(report_of(test)))
    (folder / 'tta/shot_report.json').write_text(json.dumps(report_of(scores(skill + 1, rng))))
    write_scores(test, folder / 'test.npz')
    if val:
        write_scores(chosen_on, folder / val)
    step = dict(name='train', finished=True, seconds=60.0, commit='c0ffee', versions=VERSIONS)
    steps = [step, {**step, 'name': 'test', 'seconds': 5.0}, {**step, 'name': 'tta', 'seconds': 7.0}]
    found = dict(config=row.config, seed=seed, options=list(row.options), steps=steps)
    (folder / 'provenance.json').write_text(json.dumps({**found, **(told or {})}))
    return test, chosen_on


@pytest.fixture
def group():
    rows = [
        BoardRow('ce_x', 'g', 'cross entropy', paper='ce/rn50/imagenet-lt'),
        BoardRow('lift_x', 'g', 'LIFT'),
        BoardRow('lift_x', 'g', 'LIFT | centred', 'lift-centred_x', ('model.head.centre=True',)),
    ]
    return Group('g', 'A table', 'Some data.', 'standard', 'ce_x', 'mmlt.Some', rows=rows)


@pytest.fixture
def made(tmp_path, group):
    """All runs of all rows: (test, validation) by row and seed."""
    skills = {'ce_x': 1.0, 'lift_x': 6.0, 'lift-centred_x': 2.0}
    return {row.folder: [make_run(tmp_path, row, s, skills[row.folder]) for s in SEEDS] for row in group.rows}


def made_page(group, folder, old='', seeds=SEEDS):
    return board_page({group.key: (group, read_runs(group, folder, seeds, tau_report))}, seeds, PAPER, old)


def cells(text, label):
    line = next(line for line in text.splitlines() if line.startswith(f'| {label}'))
    return [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]


def shown(values):
    return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'


def test_figures_recomputed(tmp_path, group, made):
    text = made_page(group, tmp_path)
    by_class = {name: [accuracies(t.logits.tolist(), t.labels) for t, _ in runs] for name, runs in made.items()}
    everything = {name: [statistics.mean(run) for run in runs] for name, runs in by_class.items()}
    for row in group.rows:
        found = [cell.strip('*') for cell in cells(text, row.label.replace('|', r'\|'))]
        shots = [[statistics.mean(run[a:b]) for run in by_class[row.folder]] for a, b in ((0, 2), (2, 4), (4, 6))]
        assert found[1:5] == [shown(values) for values in (*shots, everything[row.folder])]
        adjusted = []
        for test, val in made[row.folder]:
            share = COUNTS / COUNTS.sum()

            def accuracy(found, tau, share=share):
                logits = found.logits.astype(np.float64) - tau * np.log(share)
                return statistics.mean(accuracies(logits.tolist(), found.labels))

            adjusted.append(accuracy(test, max((0, 0.5, 1, 1.5, 2), key=lambda tau, val=val: accuracy(val, tau))))
        assert found[6] == shown(adjusted)
    d = [b - a for a, b in zip(everything['ce_x'], everything['lift_x'])]
    half = 4.303 * statistics.stdev(d) / math.sqrt(3)
    assert cells(text, 'LIFT |')[7] == f'{statistics.mean(d):+.1f} ± {half:.1f}'
    assert cells(text, 'cross entropy')[7:] == ['', '60.5 (imagenet-lt, rn50; A paper, Table 1)']
    assert cells(text, 'LIFT |')[4].startswith('**') and cells(text, 'LIFT |')[8] == ''
    assert 'No run is missing.' in text and 'Mixed' not in text and "the paper's own, other data" in text
    assert '| `lift_x` `model.head.centre=True` | c0ffee | 1 | 60, 12 |' in text
    assert '1. mmlt 1.0, torch 9.8, device CPU' in text


def test_bold_only_where_it_is_sure():
    a = {0: 90.0, 1: 91.0, 2: 92.0}
    assert sure_best({'a': a, 'b': {s: v - 5 for s, v in a.items()}, 'c': {}}) == 'a'
    assert sure_best({'a': a, 'b': {0: 95.0, 1: 80.0, 2: 92.0}}) is None  # an interval with zero in it
    assert sure_best({'a': a, 'b': dict(a)}) is None
    assert sure_best({'a': {0: 90.0}, 'b': {0: 50.0}}) is None  # one seed has no interval
    assert sure_best({'a': a}) is None and sure_best({}) is None


def test_missing_runs_are_told(tmp_path, group):
    for seed in (0, 2):
        make_run(tmp_path, group.rows[1], seed, 2.0, val=None)
    make_run(tmp_path, group.rows[0], 2, 1.0)
    (tmp_path / 'lift_x/seed0/tta/shot_report.json').unlink()
    (tmp_path / 'lift_x/seed2/provenance.json').unlink()
    text = made_page(group, tmp_path)
    assert '- `ce_x`: run of seed 0, 1\n' in text
    assert (
        '- `lift_x`: run of seed 1; test with TTE of seed 0; scores to choose τ on of seed 0, 2; provenance of seed 2\n'
        in text
    )
    assert '- `lift-centred_x`: run of seed 0, 1, 2\n' in text
    assert cells(text, r'LIFT \| centred')[1:8] == ['–'] * 7
    lift = cells(text, 'LIFT (2 of 3 seeds)')
    assert '±' in lift[4] and '±' not in lift[5] and lift[6] == '–'  # never chosen on the test
    assert re.fullmatch(r'[+-]\d+\.\d', lift[7])  # one common seed has no interval
    nothing = made_page(group, tmp_path / 'nowhere')
    assert nothing.count('run of seed 0, 1, 2') == 3 and 'No run has told where it comes from.' in nothing


def test_tau_of_another_draw(tmp_path, group):
    row = group.rows[0]
    test, _ = make_run(tmp_path, row, 0, 1.0, val=None)
    drawn = Group(**{**vars(group), 'tau_draw': 1})
    assert cells(made_page(drawn, tmp_path, seeds=[0]), 'cross entropy')[6] == '–'
    other = tmp_path / 'ce_x/draw1'
    make_run(other.parent / 'made', row, 0, 1.5)
    (other.parent / 'made/ce_x/seed0').rename(other)
    with pytest.raises(InputError, match=r'is a run of ce_x with seed 0, and the row is of ce_x .*selection_seed=1'):
        made_page(drawn, tmp_path, seeds=[0])
    told = json.loads((other / 'provenance.json').read_text())
    told['options'] = ['test_dataloader.dataset.selection_seed=1']
    (other / 'provenance.json').write_text(json.dumps(told))
    run = read_runs(drawn, tmp_path, [0], tau_report)['ce_x'][0]
    assert run.tau == tau_report(tmp_path / 'ce_x/seed0/test.npz', other / 'test.npz')
    assert '| ce_x, draw 1 for τ | `ce_x` draw 1 | c0ffee | 1 | 60, 12 |' in made_page(drawn, tmp_path, seeds=[0])
    write_scores(test, other / 'test.npz')
    with pytest.raises(InputError, match='has images of the test'):
        made_page(drawn, tmp_path, seeds=[0])
    (other / 'provenance.json').unlink()
    with pytest.raises(InputError, match='has no provenance.json, which would say of which draw'):
        made_page(drawn, tmp_path, seeds=[0])


def test_best_elsewhere(tmp_path, group, made):
    """The row is chosen by the scores for tau alone, and its figures are those of the table's runs."""
    found = read_runs(group, tmp_path, SEEDS, tau_report)
    share, best = np.log(COUNTS / COUNTS.sum()), {}
    for row, runs in made.items():
        chosen = []
        for test, val in runs:
            at = {
                t: statistics.mean(accuracies((val.logits - t * share).tolist(), val.labels)) for t in np.arange(5) / 2
            }
            tau = max(at, key=at.get)
            own = accuracies((test.logits - tau * share).tolist(), test.labels)
            chosen.append((at[tau], statistics.mean(own[4:]), statistics.mean(own)))
        best[row] = [list(part) for part in zip(*chosen)]
    there, few, over_all = best['lift_x']
    assert statistics.mean(there) == max(statistics.mean(own[0]) for own in best.values())
    sentence, n = best_elsewhere(group, found), len(made['lift_x'][0][1].labels)
    assert (
        f'on the validation split, the best of 3 rows is **LIFT** ({statistics.mean(there):.1f} of {n} pictures there)'
        in sentence
    )
    assert f'here it has with τ {shown(few)} on few-shot classes and {shown(over_all)} over all.' in sentence
    assert sentence in made_page(group, tmp_path)
    assert best_elsewhere(group, {row.folder: {} for row in group.rows}) is None


def test_picture(tmp_path, group, made, monkeypatch):
    """Dots at means and bars of deviations, computed anew, in the order of the rows; the page shows the file."""
    figures = []
    monkeypatch.setattr(leaderboard_picture, 'save_png', lambda figure, path: figures.append(figure))
    found = read_runs(group, tmp_path, SEEDS, tau_report)
    assert leaderboard_picture.plot_board(group, found, tmp_path / 'a.png')
    (axes,) = figures[0].axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [row.label for row in group.rows]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    drawn = dict(zip([text.get_text() for text in axes.get_legend().get_texts()], axes.containers))
    by_class = {name: [accuracies(t.logits.tolist(), t.labels) for t, _ in runs] for name, runs in made.items()}
    for label, part in {'many': slice(0, 2), 'medium': slice(2, 4), 'few': slice(4, 6), 'all': slice(0, 6)}.items():
        dots, _, (bars,) = drawn[label]
        rows = [[statistics.mean(run[part]) for run in by_class[row.folder]] for row in group.rows]
        np.testing.assert_allclose(dots.get_xdata(orig=False), [statistics.mean(own) for own in rows])
        ends = [[statistics.mean(own) + k * statistics.stdev(own) for k in (-1, 1)] for own in rows]
        np.testing.assert_allclose([segment[:, 0] for segment in bars.get_segments()], ends)
    assert list(drawn) == ['many', 'medium', 'few', 'all', 'all, with τ']
    text = board_page({'g': (group, found)}, SEEDS, PAPER, '', {'g': 'leaderboard/g.png'})
    assert '](leaderboard/g.png)' in text and '.png' not in made_page(group, tmp_path)
    assert not leaderboard_picture.plot_board(group, {row.folder: {} for row in group.rows}, tmp_path / 'b.png')
    assert len(figures) == 1


def test_mixed_versions_are_told(tmp_path, group, made):
    path = tmp_path / 'lift_x/seed1/provenance.json'
    told = json.loads(path.read_text())
    told['steps'][2] |= dict(commit='deaf-dirty', versions={**VERSIONS, 'torch': '9.9'})
    path.write_text(json.dumps(told))
    text = made_page(group, tmp_path)
    assert '**Mixed**: these runs are of 2 commit(s) and 2 set(s) of versions.' in text
    assert '| lift_x, seed 1 | `lift_x` | c0ffee, deaf-dirty | 1, 2 | 60, 12 |' in text
    assert '2. mmlt 1.0, torch 9.9, device CPU' in text and 'changes that are not in git' in text


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        (dict(config='ce_y'), r'is a run of ce_y with seed 1, and the row is of ce_x with seed 1'),
        (dict(seed=4), r'with seed 4, and the row is of ce_x with seed 1'),
        (dict(options=['test_dataloader.dataset.selection_seed=3']), r'selection_seed=3 with seed 1, and the row'),
        (dict(steps=[{}]), r"provenance.json' is damaged \(KeyError"),
    ],
)
def test_runs_of_something_else_are_refused(tmp_path, group, change, why):
    make_run(tmp_path, group.rows[0], 1, 1.0, told=change)
    with pytest.raises(InputError, match=why):
        made_page(group, tmp_path)


@pytest.mark.parametrize('file', ['shot_report.json', 'tta/shot_report.json'])
def test_another_protocol_is_refused(tmp_path, group, made, file):
    path = tmp_path / 'lift_x/seed1' / file
    path.write_text(json.dumps({**json.loads(path.read_text()), 'protocol': 'inat18'}))
    with pytest.raises(InputError, match=r"lift_x/seed1' was tested by the protocol 'inat18', and the table 'g' is of"):
        made_page(group, tmp_path)


def test_other_classes_are_refused(tmp_path, group, made):
    path = tmp_path / 'lift_x/seed1/shot_report.json'
    report = json.loads(path.read_text())
    report['per_class'][2]['class'] = 'z'
    path.write_text(json.dumps(report))
    with pytest.raises(InputError, match=r"Class 2 is 'c' in .* and 'z' in .*lift_x/seed1"):
        made_page(group, tmp_path)


def test_notes_are_kept(tmp_path, group, made):
    text = made_page(group, tmp_path)
    assert read_notes(text) == {'g': ''} and made_page(group, tmp_path, text) == text
    note = 'LIFT is ahead.\n\n| a | b |\n\nMore <!-- a comment -->.\n'
    edited = text.replace('kept -->\n', f'kept -->\n{note}')
    again = made_page(group, tmp_path / 'nowhere', edited)
    assert note in again and read_notes(again) == {'g': note} and made_page(group, tmp_path, again) == edited
    with pytest.raises(InputError, match="The page has notes of 'g', which is no table any more"):
        board_page({}, SEEDS, PAPER, edited)
    for broken in (edited.replace('<!-- end of notes -->', ''), edited.replace('<!-- notes of g', '<!-- note of g')):
        with pytest.raises(InputError, match='a marker of notes without its other'):
            made_page(group, tmp_path, broken)


def test_main_rows_in_another_page(tmp_path, group, made):
    rows = [replace(row, main=row.folder != 'lift-centred_x') for row in group.rows]
    group = replace(group, rows=rows)
    found = {'g': (group, read_runs(group, tmp_path, SEEDS, tau_report))}
    marker = '<!-- table of g, made by tools/leaderboard.py -->'
    text = f'A\n{marker}\nold\n<!-- end of table -->\nB\n'
    filled = fill_excerpts(text, found, 'a/{}.py'.format)
    assert filled.startswith(f'A\n{marker}\n| A table |') and filled.endswith('<!-- end of table -->\nB\n')
    assert 'old' not in filled and 'centred' not in filled and fill_excerpts(filled, found, 'a/{}.py'.format) == filled
    all_of_it = cells(made_page(group, tmp_path), 'LIFT |')
    assert cells(filled, '[LIFT](a/lift_x.py)')[1:] == [cell.strip('*') for cell in all_of_it[1:6]]
    del found['g'][1]['lift_x'][2]
    assert '| [LIFT](a/lift_x.py) (2 of 3 seeds) |' in fill_excerpts(text, found, 'a/{}.py'.format)
    with pytest.raises(InputError, match="place for the table 'h'; there are g"):
        fill_excerpts(text.replace('of g', 'of h'), found, str)
    with pytest.raises(InputError, match='a marker of a table without its other'):
        fill_excerpts(text.replace('<!-- end', '<!--end'), found, str)


def test_figures_measured_by_us_are_those_of_the_records():
    """What ``mmlt models``, ``mmlt reproduce`` and MMPretrain's hub tell is what the leaderboard has."""
    groups, _ = read_board(REPO / 'docs/leaderboard.yml')
    found = {g.key: (g, read_records(g, REPO / 'docs/leaderboard', SEEDS)) for g in groups}
    wanted = {}
    for file in (REPO / 'docs/leaderboard').glob('*.json'):
        runs = json.loads(file.read_text())['runs'].values()
        own = wanted[file.stem] = {}
        for name, part, key in [(k, 'report', k) for k in ('many', 'medium', 'few', 'all')] + [('tta', 'tte', 'all')]:
            if figures := [run[part]['metrics'][key] for run in runs if run[part]]:
                own[name] = f'{statistics.fmean(figures):.1f}'
    configs = {row.folder for g in groups for row in g.rows if not row.options}
    assert measured_figures(found) == {name: own for name, own in wanted.items() if name in configs}
    known = {'_'.join(name): entry for name, entry in read_figures()['measured'].items()}
    for name in configs & wanted.keys():
        assert {key: f'{known[name][key]:.1f}' for key in wanted[name]} == wanted[name], name
    text = (CONFIGS / 'paper_results.yml').read_text()
    assert fill_measured(text, measured_figures(found)) == text
    for file in CONFIGS.glob('*/metafile.yml'):
        assert fill_metafile(file.read_text(), measured_figures(found)) == file.read_text(), file
    text = '  - Name: a_b_c\n    Metrics:\n      Top 1 Accuracy: 1.0\n      Top 1 Accuracy, few-shot: 2.0\n'
    text += text.replace('a_b_c', 'a_b_d')
    filled = fill_metafile(text, {'a_b_d': {'all': '5.0', 'few': '6.0'}})
    assert re.findall(r'[:] ([\d.]+)', filled) == ['1.0', '2.0', '5.0', '6.0']


def test_tool_tells_of_places_that_are_not_there(tmp_path, capsys):
    places = [f'--{name}={tmp_path / name}' for name in ('records', 'work-dir', 'readme', 'configs', 'out')]
    tool.main(places)
    said = capsys.readouterr().err
    assert f"no folder '{tmp_path}/records'" in said and f"no page '{tmp_path}/readme'" in said


def test_page_from_records_alone(tmp_path, group, made):
    """The records give the page that the run folders gave, and are as they were when they are written again."""
    runs, records = read_runs(group, tmp_path, SEEDS, tau_report), tmp_path / 'records'
    write_records(group, runs, records)
    files = {f.name: f.read_text() for f in records.iterdir()}
    assert set(files) == {f'{row.folder}.json' for row in group.rows} and max(map(len, files.values())) < 8000
    found = read_records(group, records, SEEDS)
    assert board_page({'g': (group, found)}, SEEDS, PAPER) == made_page(group, tmp_path)
    assert all(complete(run) for own in found.values() for run in own.values())
    write_records(group, found, records)
    assert {f.name: f.read_text() for f in records.iterdir()} == files
    one = read_records(group, records, [2, 7])
    assert {name: [*own] for name, own in one.items()} == dict.fromkeys(made, [2])


def test_a_record_stays_until_its_run_is_whole_again(tmp_path, group, made):
    write_records(group, read_runs(group, tmp_path, SEEDS, tau_report), tmp_path / 'records')
    records = read_records(group, tmp_path / 'records', SEEDS)
    (tmp_path / 'ce_x/seed1/tta/shot_report.json').unlink()
    make_run(tmp_path / 'new', group.rows[0], 2, 5.0)
    again = read_runs(group, tmp_path / 'new', SEEDS, tau_report)
    assert merged(records, read_runs(group, tmp_path, SEEDS, tau_report))['ce_x'][1] is records['ce_x'][1]
    found = merged(records, again)
    assert found['ce_x'][2] is again['ce_x'][2] and found['ce_x'][0] is records['ce_x'][0]
    assert found['lift_x'] == records['lift_x']


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        (('"seed": 1', '"seed": 5'), 'is a run of lift_x with seed 5, and the row is of lift_x with seed 1'),
        (('"standard"', '"inat18"'), "was tested by the protocol 'inat18'"),
        (('"d"', '"z"'), "Class 3 is 'd' in .* and 'z' in"),
        (('"tte"', '"tta"'), r"is damaged \(KeyError: 'tte'\): restore it"),
        (('"chosen_at"', '"at"'), r"is damaged \(KeyError: 'chosen_at'\)"),
        (('"classes"', '"class"'), r"is damaged \(KeyError: 'classes'\)"),
        (('{"classes"', '["classes"'), 'lift_x.json'),
    ],
)
def test_wrong_records_are_refused(tmp_path, group, made, change, why):
    write_records(group, read_runs(group, tmp_path, SEEDS, tau_report), tmp_path / 'records')
    file = tmp_path / 'records/lift_x.json'
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(InputError, match=why):
        read_records(group, tmp_path / 'records', SEEDS)


def test_unknown_paper_figure(tmp_path, group):
    group.rows[1] = BoardRow('lift_x', 'g', 'LIFT', paper='lift/rn50')
    with pytest.raises(InputError, match="names the paper's figure 'lift/rn50', which is not there"):
        made_page(group, tmp_path)


@pytest.mark.parametrize(
    ('wrong', 'why'),
    [
        (('reference: a', 'reference: b'), "has no row 'b' to compare with"),
        (('group: g', 'group: h'), "is of the group 'h', which is not there"),
        (('"0:2:1"', '0:2:0.1'), r'taus in .* is 120\.1: give a range in quotes'),
        (('taus:', 'tau:'), 'is no list of tables and rows'),
        (('label: A', 'lable: A'), 'is no list of tables and rows'),
        (('rows:', 'rows:\n  - {group: g, config: a, label: B}'), "Two rows of .* have runs in 'a'"),
    ],
)
def test_wrong_lists(tmp_path, wrong, why):
    text = (
        'taus: "0:2:1"\ngroups:\n  - {key: g, title: T, about: a, protocol: standard, reference: a, dataset: D}\n'
        'rows:\n  - {group: g, config: a, label: A}\n'
    )
    path = tmp_path / 'board.yml'
    path.write_text(text)
    assert [row.folder for row in read_board(path)[0][0].rows] == ['a']
    path.write_text(text.replace(*wrong))
    with pytest.raises(InputError, match=why):
        read_board(path)


def test_all_methods_are_in_the_list():
    with pytest.raises(InputError, match=r"nofile\.yml' cannot be read \(FileNotFoundError\): give a list like docs"):
        read_board('nofile.yml')
    groups, taus = read_board(REPO / 'docs/leaderboard.yml')
    assert len(parse_taus(taus)) > 10 and sum(len(group.rows) for group in groups) > 40
    listed = {row.config for group in groups for row in group.rows}
    wanted = {n for n in config_names() if re.search(r'_tiny.*_(mnist|twemoji)-lt', n)}
    # Stage 1 of VL-LTR and of LT-Soups are no classifiers of the whole data.
    assert listed == {n for n in wanted if not n.endswith(('_cvlp', '_subset'))}
    paper = read_figures()['paper']
    for group in groups:
        assert all(read_config(row.config).test_dataloader.dataset.type == group.dataset for row in group.rows)
        assert all(tuple(row.paper.split('/')) in paper for row in group.rows if row.paper)
        board_page({group.key: (group, {row.folder: {} for row in group.rows})}, SEEDS, paper)


@pytest.fixture
def started(monkeypatch):
    """What the tool would run: (config, seed, folder below the work directory, TTE, options)."""
    found = []

    def run_one(config, seed, folder, args):
        found.append((config, seed, folder, args.tta, args.cfg_options))
        if config.startswith('zeroshot'):
            raise InputError('there are no weights')

    monkeypatch.setattr(tool, 'run_one', run_one)
    monkeypatch.setattr(tool, 'cost', lambda row: {'zeroshot': 1, 'ce': 2}.get(row.config.split('_')[0], 3))
    return found


def test_tool_runs_what_is_asked_for(started, tmp_path, capsys):
    out = tmp_path / 'page.md'
    arguments = [
        '--run',
        '--seeds',
        '0,3',
        '--work-dir',
        str(tmp_path / 'runs'),
        '--out',
        str(out),
        '--readme',
        str(tmp_path / 'README.md'),
    ]
    arguments += ['--records', str(tmp_path / 'records'), '--configs', str(tmp_path / 'configs')]
    tool.main([*arguments, '--only', '^(la|ce)_tiny_(mnist|twemoji)-lt$'])
    assert [config for config, *_ in started] == [
        *['ce_tiny_mnist-lt'] * 5, *['ce_tiny_twemoji-lt'] * 4, *['la_tiny_mnist-lt'] * 5, *['la_tiny_twemoji-lt'] * 4
    ]  # fmt: skip
    digits, emoji = started[:5], started[5:9]
    assert [(Path(f).name, s, t) for _, s, f, t, _ in digits] == [
        ('seed0', 0, False), ('seed0', 0, True), ('seed3', 3, False), ('seed3', 3, True), ('draw1', 0, False)
    ]  # fmt: skip
    parts = ('train', 'val', 'test')
    assert digits[0][4] == [] and digits[4][4] == [f'{p}_dataloader.dataset.selection_seed=1' for p in parts]
    assert [o for *_, o in emoji][2:] == [[f'{p}_dataloader.dataset.selection_seed=3' for p in parts]] * 2
    assert 'run of seed 0, 3' in out.read_text() and f'Page: {out}' in capsys.readouterr().out


def test_tool_leaves_out_what_is_recorded(started, tmp_path):
    groups, _ = read_board(REPO / 'docs/leaderboard.yml')
    group = next(g for g in groups if g.key == 'mnist-lt-resnet')
    row = next(r for r in group.rows if r.config == 'ce_tiny_mnist-lt')
    told = dict(config=row.config, seed=3, options=[], steps=[])
    report = dict(
        protocol='standard', num_samples=9, metrics={'all': 5.0, 'few': 4.0}, per_class=[{'class': 'digit zero'}]
    )
    runs = {
        row.folder: {
            3: BoardRun(Path('x'), report, report, {**report, 'tau': 1.0, 'chosen_at': 5.0, 'chosen_on': 9}, told)
        }
    }
    write_records(Group(**{**vars(group), 'rows': [row]}), runs, tmp_path / 'records')
    arguments = ['--run', '--only', '^ce_tiny_mnist-lt$', '--work-dir', str(tmp_path / 'runs')]
    arguments += ['--records', str(tmp_path / 'records'), '--out', str(tmp_path / 'page.md')]
    arguments += ['--configs', str(tmp_path / 'configs')]
    arguments += ['--readme', str(tmp_path / 'README.md')]
    tool.main([*arguments, '--seeds', '3'])
    assert not started and '| cross entropy | – | – | 4.0 | 5.0 |' in (tmp_path / 'page.md').read_text()
    tool.main([*arguments, '--seeds', '2-3'])
    assert [Path(folder).name for _, _, folder, *_ in started] == ['seed2', 'seed2', 'draw1']


def test_tool_goes_on_after_a_failure(started, tmp_path, capsys):
    arguments = ['--run', '--work-dir', str(tmp_path), '--out', str(tmp_path / 'page.md')]
    arguments += ['--readme', str(tmp_path / 'README.md')]
    arguments += ['--records', str(tmp_path / 'records'), '--configs', str(tmp_path / 'configs')]
    with pytest.raises(
        SystemExit, match=r'(?s)4 run\(s\) failed:\nzeroshot_tiny_mnist-lt, seed0: there are no weights'
    ):
        tool.main([*arguments, '--only', '(zeroshot|tau-norm)_tiny_mnist-lt'])
    assert {config for config, *_ in started} == {'zeroshot_tiny_mnist-lt', 'tau-norm_tiny_mnist-lt'}
    own = 'stages.ce.options.test_dataloader.dataset.selection_seed=1'
    assert own in started[-1][4] and (tmp_path / 'page.md').is_file()
    with pytest.raises(SystemExit, match="No row has 'nothing'"):
        tool.main([*arguments, '--only', 'nothing'])
    with pytest.raises(SystemExit):
        tool.main(['--only', 'lift'])
    assert '--only belongs to --run' in capsys.readouterr().err


def test_cost_counts_all_stages():
    cost = {name: tool.cost(BoardRow(name, 'g', name)) for name in ('ce-scratch_tiny_mnist-lt', 'ce_tiny_mnist-lt')}
    epochs = read_config('ce-scratch_tiny_mnist-lt').train_cfg.max_epochs
    assert cost['ce-scratch_tiny_mnist-lt'] == epochs * (988 // 64) * 64 < cost['ce_tiny_mnist-lt']


def test_a_run_without_a_figure():
    run = BoardRun(Path('x'), {'metrics': {'all': 50.0}})
    assert run.figure('all') == 50.0 and run.figure('many') is None and run.figure('tte') is None
