"""Table, JSON and picture of a test: they say what the report says."""

import io
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from mmlt.visualization import plot_class_accuracy, print_table, write_json
from mmlt.visualization.figures import class_number, count_axis
from mmlt.visualization.report import SHOT_COLOURS


def make_report(counts, accuracy, names=None) -> dict:
    """A report in the form of ``ShotAccuracy.report``."""
    shots = ['many' if n > 100 else 'few' if n < 20 else 'medium' for n in counts]
    metrics = {'all': 61.26}
    for shot in ('many', 'medium', 'few'):
        values = [a for a, s in zip(accuracy, shots) if s == shot and a is not None]
        if values:
            metrics[shot] = float(np.mean(values))
    metrics |= {'balanced': 61.26, 'sample_accuracy': 90.04, 'worst_class': 3.21, 'harmonic_mean': 42.89, 'ece': 7.77}
    return {
        'protocol': 'standard',
        'num_samples': 1234,
        'metrics': metrics,
        'classes_per_shot': {s: shots.count(s) for s in ('many', 'medium', 'few')},
        'per_class': [
            {'class': name, 'train_images': n, 'shot': s, 'accuracy': a}
            for name, n, s, a in zip(names or [f'class {i}' for i in range(len(counts))], counts, shots, accuracy)
        ],
    }


THREE = make_report([200, 50, 3], [91.04, 70.55, 22.22])


def print_to_text(report, title='my run', **kwargs) -> str:
    console = Console(record=True, file=io.StringIO(), width=120, **kwargs)
    print_table(report, title, console)
    return console.export_text()


def cells(text: str) -> dict[str, str]:
    """Header and value of every column of the printed table."""
    lines = [line for line in text.splitlines() if '┃' in line or '│' in line]
    header, row = (([c.strip() for c in line.replace('┃', '│').split('│')[1:-1]]) for line in lines)
    return dict(zip(header, row))


def test_table_says_what_the_report_says():
    text = print_to_text(THREE)
    assert cells(text) == {
        'many (1)': '91.0',
        'medium (1)': '70.5',  # 70.55 is 70.5499... in binary
        'few (1)': '22.2',
        'mean over classes': '61.3',
        'accuracy over samples': '90.0',
        'worst class': '3.2',
        'harmonic mean': '42.9',
        'ECE': '7.8',
    }
    assert 'my run' in text.splitlines()[0]
    assert (
        'top-1 in percent, 1234 test images, protocol standard (many, medium, few and all: mean over classes)' in text
    )


@pytest.mark.parametrize(
    ('kind', 'first', 'table'),
    [
        (dict(protocol='standard'), 'top-1', {'mean over classes': '61.3'}),
        (dict(protocol='vl-ltr'), 'top-1', {'accuracy over samples': '61.3'}),
        (dict(protocol='vl-ltr', measure='ap'), 'mAP', {'mean over classes': '61.3'}),
    ],
)
def test_all_is_shown_by_what_it_is(kind, first, table):
    text = print_to_text({**make_report([200], [90.0]), **kind, 'metrics': {'all': 61.26}})
    assert cells(text) == table
    told = f'protocol {kind["protocol"]} (many, medium, few and all: {[*table][0]})'
    assert f'{first} in percent, 1234 test images, {told}' in ' '.join(text.split())


def test_table_leaves_out_what_is_not_known():
    report = make_report([200, 150, 3], [90.0, 80.0, 10.0])
    del report['metrics']['ece']
    assert list(cells(print_to_text(report))) == [
        'many (2)', 'few (1)', 'mean over classes', 'accuracy over samples', 'worst class', 'harmonic mean'
    ]  # fmt: skip


def test_table_goes_to_the_terminal_by_default(capsys):
    print_table(THREE, 'to the terminal')
    out = capsys.readouterr().out
    assert 'to the terminal' in out
    assert cells(out)['many (1)'] == '91.0'


def test_table_keeps_to_the_width_of_a_terminal():
    text = print_to_text(THREE, force_terminal=True)
    assert cells(text)['harmonic mean'] == '42.9'
    console = Console(record=True, file=io.StringIO(), width=60, force_terminal=True)
    print_table(THREE, 'my run', console)
    assert console.width == 60
    assert max(len(line.rstrip()) for line in console.export_text().splitlines()) <= 60


@pytest.mark.parametrize('title', ['ballad [phase-b]', 'a[/b]'])
def test_title_is_text_and_not_markup(title):
    assert title in print_to_text(THREE, title)


def test_json(tmp_path):
    path = tmp_path / 'report.json'
    report = make_report([200, 50, 3], [91.04, None, 22.22], ['Bär', '梨', 'c'])
    write_json(report, path)
    assert json.loads(path.read_text(encoding='utf-8')) == report


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == 'PNG'
        return np.asarray(image.convert('RGB'))


def coloured(image: np.ndarray, shot: str) -> int:
    """Number of pixels in a shot's colour."""
    code = SHOT_COLOURS[shot]
    rgb = [int(code[i : i + 2], 16) for i in (1, 3, 5)]
    return int((image == rgb).all(-1).sum())


def test_picture_of_three_classes(tmp_path):
    plot_class_accuracy(THREE, tmp_path / 'a.png', 'my run')
    image = pixels(tmp_path / 'a.png')
    assert image.shape == (650, 1170, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert all(coloured(image, shot) > 5000 for shot in SHOT_COLOURS)
    # Higher bars have more pixels: 91 and 200 images against 22 and 3.
    assert coloured(image, 'many') > coloured(image, 'few')


def test_picture_of_200_classes(tmp_path):
    counts = [int(500 * 0.01 ** (c / 199)) for c in range(200)]
    accuracy = [None if c == 77 else 100 - c / 2.5 for c in range(200)]
    plot_class_accuracy(make_report(counts, accuracy), tmp_path / 'a.png')
    image = pixels(tmp_path / 'a.png')
    assert image.shape == (650, 1170, 3)
    assert all(coloured(image, shot) > 5000 for shot in SHOT_COLOURS)


@pytest.mark.parametrize('shot', ['many', 'medium', 'few'])
def test_bars_have_the_height_of_the_accuracy(tmp_path, shot):
    count = {'many': 200, 'medium': 50, 'few': 3}[shot]
    size = {}
    for accuracy in (0.0, 40.0, 80.0):
        plot_class_accuracy(make_report([count] * 4, [accuracy] * 4), tmp_path / 'a.png')
        image = pixels(tmp_path / 'a.png')
        size[accuracy] = coloured(image, shot)
        assert all(coloured(image, other) == 0 for other in SHOT_COLOURS if other != shot)
    # 0 leaves the bars of the counts and the legend, which hides none; the rest grows with the accuracy.
    growth = [size[b] - size[a] for a, b in ((0.0, 40.0), (40.0, 80.0))]
    assert size[0.0] > 0 and min(growth) > 0.1 * image.shape[0] * image.shape[1]
    assert abs(growth[0] - growth[1]) < 0.08 * growth[1]  # the mean's line and the edges


def test_picture_without_accuracy_of_a_group(tmp_path):
    plot_class_accuracy(make_report([200, 50, 3], [91.0, 70.0, None]), tmp_path / 'a.png')
    image = pixels(tmp_path / 'a.png')
    assert coloured(image, 'few') == 0 and coloured(image, 'many') > 5000


@pytest.mark.parametrize('name', ['$_$', '$^$ sign', 'a_{b', '100 % \\frac', '<html>'])
def test_class_names_are_text_and_not_formulas(tmp_path, name):
    plot_class_accuracy(make_report([200, 50, 3], [91.0, 70.0, 22.0], [name, 'b', 'c']), tmp_path / 'a.png', name)
    assert coloured(pixels(tmp_path / 'a.png'), 'many') > 5000


@pytest.mark.parametrize(
    ('counts', 'wanted'), [((4, 400), {'10', '100'}), ((6, 9), {'6'}), ((3, 20_000), {'1,000', '10,000'})]
)
def test_ticks_of_counts_are_plain_numbers(counts, wanted):
    axes = Figure().subplots()
    axes.bar(range(2), counts)
    count_axis(axes)
    axes.set_ylim(bottom=counts[0] / 2)
    axes.figure.canvas.draw()
    shown = {t.get_text() for t in axes.yaxis.get_ticklabels(which='both')}
    assert wanted <= shown and not any('$' in text or '\\times' in text for text in shown)


def test_one_class_is_no_classes():
    assert (class_number(1), class_number(2), class_number(1000)) == ('1 class', '2 classes', '1,000 classes')
