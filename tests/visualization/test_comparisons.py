"""Gains, loss curves, tables of seeds and rows of pictures: the numbers behind them, and the PNGs."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mmlt import InputError
from mmlt.visualization import (
    class_gains,
    comparison_markdown,
    comparison_table,
    loss_curves,
    merge_logs,
    named_runs,
    plot_class_gain,
    plot_losses,
    plot_retrieval,
    read_losses,
    read_report,
    summarise,
)
from mmlt.visualization.gain import moving_average
from mmlt.visualization.losses import LossCurves
from mmlt.visualization.report import SHOT_COLOURS


def make_report(counts, accuracy, names=None, protocol='standard') -> dict:
    """The parts of ``ShotAccuracy.report`` that are compared."""
    shots = ['many' if n > 100 else 'few' if n < 20 else 'medium' for n in counts]
    tested = [(a, s) for a, s in zip(accuracy, shots) if a is not None]
    metrics = {'all': float(np.mean([a for a, _ in tested]))}
    for shot in {s for _, s in tested}:
        metrics[shot] = float(np.mean([a for a, s in tested if s == shot]))
    return {
        'protocol': protocol,
        'metrics': metrics,
        'per_class': [
            {'class': name, 'train_images': n, 'shot': s, 'accuracy': a}
            for name, n, s, a in zip(names or [f'class {i}' for i in range(len(counts))], counts, shots, accuracy)
        ],
    }


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == 'PNG'
        return np.asarray(image.convert('RGB'))


def where(image: np.ndarray, colour: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels in a colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero((image == rgb).all(-1))


# Gains


def test_gains_are_sorted_by_class_size():
    counts, names = [3, 200, 50, 19], ['a', 'b', 'c', 'd']
    ours, theirs = (
        make_report(counts, [40.0, 90.0, 70.0, 55.0], names),
        make_report(counts, [10.0, 92.5, 70.0, None], names),
    )
    assert class_gains(ours, theirs) == [
        {'class': 'b', 'train_images': 200, 'shot': 'many', 'gain': -2.5},
        {'class': 'c', 'train_images': 50, 'shot': 'medium', 'gain': 0.0},
        {'class': 'a', 'train_images': 3, 'shot': 'few', 'gain': 30.0},
    ]


@pytest.mark.parametrize(
    'other, sentence',
    [
        (make_report([200, 50], [1.0, 1.0]), 'the report has 3 classes and the baseline has 2'),
        (
            make_report([200, 50, 3], [1.0] * 3, ['class 0', 'b', 'class 2']),
            "Class 1 is 'class 1' in the report and 'b'",
        ),
        (make_report([200, 50, 4], [1.0] * 3), "'class 2' has 3 training images in the report and 4 in the baseline"),
        (make_report([200, 50, 3], [None, None, 1.0]), 'No class was tested in both'),
    ],
)
def test_gains_need_the_same_data(other, sentence):
    with pytest.raises(InputError, match=sentence):
        class_gains(make_report([200, 50, 3], [1.0, 1.0, None]), other)


def test_moving_average_is_that_of_a_loop():
    values = np.random.default_rng(0).normal(size=60)
    expected = [values[max(0, i - 3) : i + 4].mean() for i in range(60)]
    np.testing.assert_allclose(moving_average(values, 7), expected, atol=1e-12)


def test_picture_of_gains(tmp_path):
    counts = [3, 200, 50]
    plot_class_gain(
        make_report(counts, [80.0, 50.0, 60.0]), make_report(counts, [20.0, 90.0, 40.0]), tmp_path / 'g.png'
    )
    image = pixels(tmp_path / 'g.png')
    bars = {}
    for shot, colour in SHOT_COLOURS.items():
        rows, columns = where(image, colour)
        middle = np.median(columns)  # of the bar, which is far wider than the patch in the legend
        bars[shot] = middle, *(rows[columns == int(middle)].astype(int)[[0, -1]])
    # Bars from the largest class at the left to the smallest; heights as 40 : 20 : 60 points.
    assert bars['many'][0] < bars['medium'][0] < bars['few'][0]
    height = {shot: bottom - top + 1 for shot, (_, top, bottom) in bars.items()}
    assert height['few'] / height['many'] == pytest.approx(1.5, abs=0.05)
    assert height['medium'] / height['many'] == pytest.approx(0.5, abs=0.05)
    # A loss hangs from the line on which the gains stand.
    assert bars['many'][1] == pytest.approx(bars['few'][2], abs=4)
    assert bars['medium'][2] == bars['few'][2]


def test_picture_of_gains_of_2000_classes(tmp_path):
    rng = np.random.default_rng(0)
    counts = [int(1280 * 0.004 ** (c / 1999)) for c in range(2000)]
    gains = np.linspace(0, 20, 2000)  # the smaller the class, the larger the gain
    order = rng.permutation(2000)
    ours = make_report([counts[i] for i in order], [50 + gains[i] for i in order])
    plot_class_gain(ours, make_report([counts[i] for i in order], [50.0] * 2000), tmp_path / 'g.png', 'a $_$ b')
    image = pixels(tmp_path / 'g.png')
    heights = [np.bincount(where(image, c)[1]).max() for c in SHOT_COLOURS.values()]
    assert heights == sorted(heights) and heights[0] > 20
    assert [where(image, c)[1].max() for c in SHOT_COLOURS.values()] == sorted(
        where(image, c)[1].max() for c in SHOT_COLOURS.values()
    )


def test_picture_must_be_a_png(tmp_path):
    report = make_report([200], [1.0])
    with pytest.raises(InputError, match=r"its name is '.*g\.jpg': let it end with \.png"):
        plot_class_gain(report, report, tmp_path / 'g.jpg')
    plot_class_gain(report, report, tmp_path / 'new' / 'g.png')
    assert len(np.unique(pixels(tmp_path / 'new/g.png').reshape(-1, 3), axis=0)) > 10


# Loss curves


def train(epochs, per_epoch, interval, start=0, loss=float):
    """The lines that LoggerHook writes: every ``interval`` iterations of an epoch."""
    return [
        {'loss': loss(e * per_epoch + i), 'epoch': e + 1, 'iter': e * per_epoch + i, 'step': e * per_epoch + i}
        for e in range(start, epochs)
        for i in range(interval, per_epoch + 1, interval)
    ]


def val(epoch, nll):
    return {'shot/all': 50.0, 'shot/nll': nll, 'step': epoch}


def test_curves_of_one_log():
    entries = [*train(1, 50, 20), val(1, 0.75), *train(2, 50, 20, start=1), val(2, 0.5)]
    curves = loss_curves(merge_logs([entries]))
    assert curves.unit == 'epoch'
    # 50 iterations an epoch are seen as at least 90 / 2.
    assert curves.train == [(20 / 45, 20.0), (40 / 45, 40.0), (70 / 45, 70.0), (90 / 45, 90.0)]
    assert curves.val == {'shot/nll': [(1, 0.75), (2, 0.5)]}


@pytest.mark.parametrize('per_epoch, interval', [(50, 20), (30, 20), (25, 20), (15, 15), (100, 10)])
@pytest.mark.parametrize('saved, killed', [(1, 2), (3, 4), (2, 5)])
def test_resumed_training_is_one_curve(per_epoch, interval, saved, killed):
    def run(first, last, sign):
        lines = []
        for e in range(first, last):
            lines += train(e + 1, per_epoch, interval, e, lambda i: sign * float(i))
            lines.append(val(e + 1, sign * (e + 1.0)))
        return lines

    whole = loss_curves(merge_logs([run(0, 6, 1)]))
    resumed = loss_curves(merge_logs([run(0, killed, 1), run(saved, 6, -1)]))
    assert [(x, abs(y)) for x, y in resumed.train] == whole.train
    assert [(x, abs(y)) for x, y in resumed.val['shot/nll']] == whole.val['shot/nll']
    # Up to the checkpoint the first log, the second from there.
    assert [y > 0 for _, y in resumed.val['shot/nll']] == [True] * saved + [False] * (6 - saved)


def test_training_from_the_start_replaces_the_old_one():
    old, new = [*train(6, 50, 10), val(6, 9.0)], [*train(3, 50, 20, loss=lambda i: -i), val(3, 0.5)]
    assert merge_logs([old, new]) == merge_logs([new])
    tested = [{'shot/all': 1.0, 'step': 0}]  # a validation alone
    assert merge_logs([old, tested]) == merge_logs([old])


def test_training_by_iterations():
    entries = [
        {'loss': 2.0, 'iter': 10, 'step': 10},
        {'val/loss': 3.0, 'step': 0},
        {'loss': 1.0, 'iter': 20, 'step': 20},
    ]
    assert loss_curves(merge_logs([entries])) == LossCurves(
        'iteration', [(10, 2.0), (20, 1.0)], {'val/loss': [(10, 3.0)]}
    )


def write_log(work_dir: Path, stamp: str, entries, tail: str = '') -> None:
    folder = work_dir / stamp / 'vis_data'
    folder.mkdir(parents=True)
    folder.joinpath('scalars.json').write_text('\n'.join(map(json.dumps, entries)) + tail)


def test_logs_are_read_in_the_order_of_time(tmp_path):
    write_log(tmp_path, '20260101_000002', train(4, 50, 25, start=2))
    write_log(tmp_path, '20260101_000001', train(3, 50, 25), tail='\n{"loss": 1.0, "ite')  # killed while writing
    curves = read_losses(tmp_path)
    assert curves.train == [(i / 50, float(i)) for i in range(25, 201, 25)]


def test_logs_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=f"'{tmp_path}' holds no log"):
        read_losses(tmp_path)
    write_log(tmp_path / 'a', '1', [val(0, 1.0)])
    with pytest.raises(InputError, match='has no training loss'):
        read_losses(tmp_path / 'a')
    write_log(tmp_path / 'b', '1', [{'grad_norm': 1.0, 'epoch': 1, 'iter': 10, 'step': 10}])
    with pytest.raises(InputError, match='has no training loss'):
        read_losses(tmp_path / 'b')
    write_log(tmp_path / 'c', '1', train(2, 50, 25))
    path = tmp_path / 'c/1/vis_data/scalars.json'
    path.write_text('broken\n' + path.read_text())
    with pytest.raises(InputError, match=r"Line 1 of '.*scalars\.json' is no JSON"):
        read_losses(tmp_path / 'c')


def test_picture_of_losses(tmp_path):
    a = LossCurves('epoch', [(i, 2.0) for i in range(1, 11)], {'shot/nll': [(5, 1.0), (10, 1.0)]})
    b = LossCurves('epoch', [(i, 0.0) for i in range(1, 11)])
    plot_losses({'method $_$': [a, a], 'other': [b]}, tmp_path / 'l.png', 'title')
    image = pixels(tmp_path / 'l.png')
    first, second = where(image, '#1f77b4'), where(image, '#ff7f0e')
    # Lines at 2 (train), 1 (val) and 0: the same distance from one to the next.
    rows = np.bincount(first[0], minlength=image.shape[0])
    low = np.bincount(second[0], minlength=image.shape[0])
    top, bottom = rows.argmax(), low.argmax()
    middle = slice((top + bottom) // 2 - 20, (top + bottom) // 2 + 20)
    assert rows[middle].max() > 100 and rows[middle].argmax() == pytest.approx(20, abs=3)
    with pytest.raises(InputError, match="'other' was trained by epochs and 'x' by iterations"):
        plot_losses({'other': [b], 'x': [LossCurves('iteration', [(1, 1.0)])]}, tmp_path / 'l.png')


# Tables of seeds


def test_mean_and_deviation_over_seeds():
    counts = [200, 50]
    seeds = [make_report(counts, [a, b]) for a, b in ((90.0, 60.0), (92.0, 66.0), (97.0, 72.0))]
    rows = summarise({'ours': seeds, 'one': seeds[:1]})
    mean, deviation = rows['ours']['many']
    assert mean == pytest.approx(93.0)
    assert deviation == pytest.approx((((90 - 93) ** 2 + (92 - 93) ** 2 + (97 - 93) ** 2) / 2) ** 0.5)
    assert rows['one'] == {'many': (90.0, None), 'medium': (60.0, None), 'balanced': (75.0, None)}
    assert comparison_markdown({**rows, 'a|b': rows['one']}).splitlines() == [
        '| | many | medium | few | mean over classes |',
        '| :-- | :-: | :-: | :-: | :-: |',
        '| ours | 93.0 ± 3.6 | 66.0 ± 6.0 | – | 79.5 ± 4.8 |',
        '| one | 90.0 | 60.0 | – | 75.0 |',
        '| a\\|b | 90.0 | 60.0 | – | 75.0 |',
    ]
    console = Console(record=True, file=io.StringIO(), width=100)
    console.print(comparison_table({'[red]': rows['ours']}, 'my title'))
    text = console.export_text()
    assert 'my title' in text
    assert [line.split() for line in text.splitlines() if '[red]' in line] == [
        ['[red]', '93.0', '±', '3.6', '66.0', '±', '6.0', '–', '79.5', '±', '4.8']
    ]


def test_runs_on_other_data_are_not_compared():
    a, b = make_report([200, 50], [1.0, 1.0]), make_report([200, 50], [1.0, 1.0], ['x', 'y'])
    with pytest.raises(InputError, match=r"Class 0 is 'class 0' in 'ours' and 'x' in 'ours' \(2\)"):
        summarise({'ours': [a, b]})
    other = make_report([200, 50], [1.0, 1.0], protocol='lpt')
    with pytest.raises(InputError, match=r"runs of 'ours' are not of one kind: .* standard .*; .* lpt .*alike"):
        summarise({'ours': [a, other]})


def test_runs_of_other_protocols_or_measures_say_so():
    ours, samples, ap = (make_report([200, 50], [90.0, 30.0]) for _ in range(3))
    ours['metrics'] |= {'all': 60.0, 'balanced': 60.0, 'sample_accuracy': 85.0}
    samples |= {'protocol': 'vl-ltr', 'metrics': {**ours['metrics'], 'all': 85.0}}
    ap |= {'protocol': 'db', 'measure': 'ap', 'metrics': {'all': 61.0}}
    rows = summarise({'a': [ours], 'b': [samples], 'c': [ap]})
    assert list(rows) == [
        'a: top-1 in percent, protocol standard (many, medium, few and all: mean over classes)',
        'b: top-1 in percent, protocol vl-ltr (many, medium, few and all: accuracy over samples)',
        'c: mAP in percent, protocol db (many, medium, few and all: mean over classes)',
    ]
    assert [{k: row[k][0] for k in ('balanced', 'sample_accuracy') if k in row} for row in rows.values()] == [
        {'balanced': 60, 'sample_accuracy': 85}, {'balanced': 60, 'sample_accuracy': 85}, {'balanced': 61}
    ]  # fmt: skip
    header = comparison_markdown(rows, 'in percent').splitlines()[0]
    assert header == '| in percent | many | medium | few | mean over classes | accuracy over samples |'
    assert 'accuracy over samples' not in comparison_markdown(summarise({'c': [ap]}))
    # A report of before both averages had names: its 'all' is shown as what it is.
    old = {**samples, 'metrics': {'all': 85.0}}
    assert summarise({'old': [old]})['old'] == {'sample_accuracy': (85.0, None)}
    with pytest.raises(InputError, match='is of top-1 accuracy and the baseline of average precision'):
        class_gains(ours, ap)
    for each in (entry for report in (ap, samples) for entry in report['per_class']):
        each['ap'] = each.pop('accuracy')
    assert [g['gain'] for g in class_gains(ap, {**samples, 'measure': 'ap'})] == [0, 0]


def test_names_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('lr=0.1').mkdir()
    assert named_runs(['work/a/', 'VL-LTR=s0,s1,', 'lr=0.1', 'x/cvlp', 'y/cvlp']) == {
        'a': ['work/a/'],
        'VL-LTR': ['s0', 's1'],
        'lr=0.1': ['lr=0.1'],
        'x/cvlp': ['x/cvlp'],
        'y/cvlp': ['y/cvlp'],
    }
    with pytest.raises(InputError, match="Two runs are named 'a'"):
        named_runs(['a=x', 'a=y'])
    for wrong in ('a=', '=x', 'a=,'):
        with pytest.raises(InputError, match=f"'{wrong}' is neither a folder"):
            named_runs([wrong])


def test_a_folder_of_seeds_stands_for_them(tmp_path):
    folders = [tmp_path / 'ce' / f'seed{seed}' for seed in (2, 10)]
    for folder in (*folders, tmp_path / 'ce' / 'seeds'):
        folder.mkdir(parents=True)
        (folder / 'shot_report.json').touch()
    assert named_runs([str(tmp_path / 'ce')]) == {'ce': list(map(str, folders))}
    (tmp_path / 'ce' / 'shot_report.json').touch()  # a run of its own
    assert named_runs([str(tmp_path / 'ce')]) == {'ce': [str(tmp_path / 'ce')]}


def test_report_from_a_folder_or_a_file(tmp_path):
    report = make_report([200], [1.0])
    file = tmp_path / 'shot_report.json'
    with pytest.raises(InputError, match=r"There is no report '.*shot_report\.json'.*mmlt test.*name=folder,folder"):
        read_report(tmp_path)
    file.write_text(json.dumps(report))
    assert read_report(tmp_path) == read_report(file) == report
    file.write_text('{')
    with pytest.raises(InputError, match='is no JSON'):
        read_report(tmp_path)
    for other in ([1], {'metrics': {}}):
        file.write_text(json.dumps(other))
        with pytest.raises(InputError, match=r'is not a report of mmlt\.ShotReportHook'):
            read_report(tmp_path)


# Rows of pictures


def test_rows_of_pictures(tmp_path):
    colours = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]], np.uint8)
    picture = [np.broadcast_to(c, (8, 8, 3)) for c in colours]
    blocks = {
        'before': [[(picture[0], 0.9), (picture[1], 0.8)], [(picture[1], 0.9), (picture[0], 0.8)]],
        'after': [[(picture[2], 0.9), (picture[3], 0.8)], [(picture[3], 0.9), (picture[2], 0.8)]],
    }
    plot_retrieval(['$_$', 'a long text that goes on and on ' * 5], blocks, tmp_path / 'r.png', 'title')
    image = pixels(tmp_path / 'r.png')
    centre = {}
    for i, colour in enumerate(colours):
        y, x = np.nonzero((image == colour).all(-1))
        half = np.median(y)  # each colour is once in the upper row and once in the lower one
        centre[i] = [(x[y < half].mean(), y[y < half].mean()), (x[y > half].mean(), y[y > half].mean())]
    upper = [centre[i][0] for i in range(4)]
    lower = [centre[i][1] for i in (1, 0, 3, 2)]
    for row in (upper, lower):
        steps = np.diff([x for x, _ in row])
        assert (steps > 30).all() and steps[0] == pytest.approx(steps[2], abs=2) and steps[1] > steps[0] + 10
        assert np.ptp([y for _, y in row]) < 2
    assert lower[0][1] - upper[0][1] == pytest.approx(1.2 * np.diff(upper, axis=0)[0, 0], abs=2)
