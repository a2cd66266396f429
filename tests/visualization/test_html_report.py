"""The page about a run: its figures are those of the predictions, and what a run is called cannot break it."""

import base64
import io
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmlt import InputError
from mmlt.evaluation import Predictions
from mmlt.utils.labels import build_dataset
from mmlt.visualization import named_runs
from mmlt.visualization.html_report import collect_run, collect_runs, page, write_page
from mmlt.visualization.html_report.page import html_path, script_json
from mmlt.visualization.html_report.pictures import RunPictures
from mmlt.visualization.html_report.svg import log_steps, round_numbers

REPO = Path(__file__).parent.parent.parent
EVIL = [
    '<script>boom()</script>',
    '"a" & \'b\' </td>',
    '</script><!--',
    '梨子',
    'כלב',
    '{{css}}',
    '&lt;b&gt;',
    'x' * 300,
]
NAMES = [*EVIL, *(f'class {i}' for i in range(22))]


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the whole page."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self._inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass  # elements that have no end

    def handle_data(self, data):
        self.texts.append((self._inside[-1] if self._inside else '', data))

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def page_of(*arguments) -> str:
    groups = named_runs([str(a) for a in arguments])
    return page(collect_runs(groups), groups)


def tables(text) -> list[dict]:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


@pytest.fixture
def run(tmp_path, make_run):
    """Folder, predictions and training counts of a run with 30 classes."""
    return (tmp_path / 'run', *make_run(tmp_path / 'run', NAMES))


def test_table_of_classes_is_that_of_the_predictions(run):
    folder, found, counts = run
    (table,) = tables(page_of(folder))
    keys = [column['key'] for column in table['columns']]
    assert keys == ['class', 'shot', 'train_images', 'test_images', 'figure', 'mistake', 'times', 'confidence']
    rows = list(zip(found.label.tolist(), found.prediction.tolist(), found.confidence.tolist()))
    assert len(table['rows']) == 30
    for c, row in enumerate(table['rows']):
        own = [(prediction, confidence) for label, prediction, confidence in rows if label == c]
        wrong = Counter(prediction for prediction, _ in own if prediction != c)
        got = dict(zip(keys, row))
        assert got['class'] == NAMES[c] and got['train_images'] == counts[c] and got['test_images'] == len(own)
        assert got['shot'] == ('many' if counts[c] > 100 else 'few' if counts[c] < 20 else 'medium')
        assert got['figure'] == pytest.approx(100 * sum(p == c for p, _ in own) / len(own), abs=1e-3)
        assert got['confidence'] == pytest.approx(100 * sum(x for _, x in own) / len(own), abs=1e-3)
        assert (got['mistake'] is None) == (not wrong)
        if wrong:
            assert got['times'] == max(wrong.values()) == wrong[NAMES.index(got['mistake'])]


def test_confusion_between_and_within_shots(run):
    folder, found, counts = run
    got = collect_run('run', folder).confusion
    group = [0 if n > 100 else 2 if n < 20 else 1 for n in counts]
    for i in range(3):
        own = [(a, b) for a, b in zip(found.label, found.prediction) if group[a] == i]
        assert got['images'][i] == len(own)
        for j in range(3):
            assert got['share'][i][j] == pytest.approx(100 * sum(group[b] == j for _, b in own) / len(own))
        assert got['within'][i] == pytest.approx(100 * sum(group[b] == i and a != b for a, b in own) / len(own))


def test_reliability_is_that_of_the_report(run):
    folder, found, _ = run
    got = collect_run('run', folder)
    assert got.ece == pytest.approx(got.report['metrics']['ece'], abs=1e-9)
    assert sum(b['images'] for b in got.bins) == len(found.label)
    gaps = sum(b['images'] * abs(b['confidence'] - b['accuracy']) for b in got.bins if b['images'])
    assert gaps / len(found.label) == pytest.approx(got.ece)
    for b in got.bins:
        inside = (100 * found.confidence > b['low'] + 1e-5) & (100 * found.confidence < b['high'] - 1e-5)
        assert b['images'] >= inside.sum()


def test_worst_classes_with_the_surest_mistakes(run):
    folder, found, _ = run
    got = collect_run('run', folder, worst=5, pictures=3)
    accuracy = [np.mean(found.prediction[found.label == c] == c) for c in range(30)]
    assert [accuracy[own['index']] for own in got.worst] == sorted(accuracy)[:5]
    for own in got.worst:
        wrong = (found.label == own['index']) & (found.prediction != own['index'])
        surest = sorted(found.confidence[wrong].tolist(), reverse=True)[:3]
        assert [p['confidence'] for p in own['pictures']] == pytest.approx([100 * c for c in surest])
        assert [text for text, _ in own['sentences']] == [f'sentence {i} of {NAMES[own["index"]]}' for i in (1, 2, 0)]
        for picture in own['pictures']:
            head, data = picture['image'].split(',')
            assert head == 'data:image/jpeg;base64'
            assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 72
    assert not collect_run('run', folder, worst=0).worst


def test_facts_of_the_folder(run):
    got = collect_run('run', run[0])
    assert got.versions == {'Platform': 'Some System 1.0', 'PyTorch': '9.8.7'}
    assert got.recipe['head'] == 'mmlt.LGRHead' and got.recipe['epochs'] == '3'
    assert got.losses.unit == 'epoch' and got.losses.train[-1] == (3.0, pytest.approx(2 / 3))
    assert got.figures == {'all': [(1, 51.0), (2, 52.0), (3, 53.0)], 'few': [(1, 21.0), (2, 22.0), (3, 23.0)]}
    assert got.notes == []


def test_overview_of_seeds_and_difference(tmp_path, make_run):
    for name, seed in (('a0', 0), ('a1', 1), ('b', 2)):
        make_run(tmp_path / name, NAMES, seed=seed)
    text = page_of(f'A={tmp_path}/a0,{tmp_path}/a1', f'B={tmp_path}/b')
    few = [json.loads((tmp_path / n / 'shot_report.json').read_text())['metrics']['few'] for n in ('a0', 'a1', 'b')]
    assert f'<td>{np.mean(few[:2]):.1f} ± {np.std(few[:2], ddof=1):.1f}</td>' in text
    assert f'<td>{few[2]:.1f}</td>' in text
    first, second, third = tables(text)
    assert 'difference' not in [c['key'] for c in first['columns']]
    assert [c['key'] for c in third['columns']][-1] == 'difference'
    for a, b in zip(first['rows'], third['rows']):
        assert b[-1] == pytest.approx(b[4] - a[4], abs=2e-3)
    assert text.count('<section class="run">') == 3 and '>A (2)<' in text


def test_names_are_text_everywhere(run, tmp_path):
    folder = run[0].rename(tmp_path / '<img src=x onerror=boom()>')
    text = page_of(folder)
    parsed = Elements(text)
    assert len(parsed.all('script')) == 2 and len(parsed.all('style')) == 1
    assert not [a for _, attrs in parsed.found for a in attrs if a.startswith('on')]
    assert 'boom()' not in re.sub(r'&lt;[^<]*|\\u003c[^<]*', '', text)
    shown = ''.join(data for tag, data in parsed.texts if tag in ('bdi', 'title'))
    assert '<script>boom()</script>' in shown and '"a" & \'b\' </td>' in shown and '{{css}}' in shown
    assert [row[0] for row in tables(text)[0]['rows']] == NAMES
    assert script_json('</script><!--') == '"\\u003c/script>\\u003c!--"'


def test_nothing_is_loaded_from_elsewhere(run):
    text = page_of(run[0])
    parsed = Elements(text)
    for _, attrs in parsed.found:
        for key in ('src', 'href', 'srcset', 'xlink:href', 'action', 'data'):
            assert attrs.get(key, 'data:').startswith('data:')
    assert not parsed.all('link') and not parsed.all('iframe')
    assert not re.search(r'https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(', text)
    (policy,) = [m['content'] for m in parsed.all('meta') if m.get('http-equiv') == 'Content-Security-Policy']
    assert "default-src 'none'" in policy and 'img-src data:' in policy


def test_size_with_a_thousand_classes(tmp_path, make_run):
    make_run(
        tmp_path / 'big', [f'synset {i}, with a second name' for i in range(1000)], 50, pictures=40, side=(375, 500)
    )
    groups = named_runs([str(tmp_path / 'big')])
    size = write_page(collect_runs(groups), groups, tmp_path / 'r.html')
    assert size == (tmp_path / 'r.html').stat().st_size <= 3e6
    assert len(tables((tmp_path / 'r.html').read_text())[0]['rows']) == 1000


def test_run_without_predictions_says_so_in_a_line(run):
    folder = run[0]
    (folder / 'predictions.npz').unlink()
    got = collect_run('run', folder)
    (note,) = got.notes
    assert 'no predictions.npz' in note and 'mmlt test' in note
    assert note in Elements(page_of(folder)).texts[[t for t, _ in Elements(page_of(folder)).texts].index('li')][1]
    keys = [c['key'] for c in tables(page_of(folder))[0]['columns']]
    assert keys == ['class', 'shot', 'train_images', 'figure']
    assert got.confusion is None and got.bins == [] and len(got.worst) == 12


def test_report_alone(run, tmp_path):
    (tmp_path / 'alone').mkdir()
    file = (run[0] / 'shot_report.json').rename(tmp_path / 'alone/shot_report.json')
    got = collect_run('x', file)
    assert len(got.notes) == 4 and all(
        word in ' '.join(got.notes) for word in ('predictions', 'config', 'trained', 'log')
    )
    assert '<svg' in page_of(file)


def test_average_precision(tmp_path):
    names = [('a', 200, 'many', 90.0), ('b', 50, 'medium', None), ('c', 0, 'few', 10.0)]
    classes = [dict(zip(('class', 'train_images', 'shot', 'ap'), each)) for each in names]
    report = {'protocol': 'db', 'measure': 'ap', 'metrics': {'all': 50.0, 'many': 90.0}, 'per_class': classes}
    (tmp_path / 'shot_report.json').write_text(json.dumps(report))
    text = page_of(tmp_path)
    assert 'several labels' in text and 'mAP in percent' in text
    assert [row[-1] for row in tables(text)[0]['rows']] == [90.0, None, 10.0]


def test_confidence_that_is_not_known(run):
    folder, found, _ = run
    without = Predictions(**{**vars(found), 'confidence': np.full(len(found.label), np.nan, dtype=np.float32)})
    without.save(folder / 'predictions.npz')
    got = collect_run('run', folder)
    assert got.bins == [] and 'Calibration is not told' in ' '.join(got.notes)
    assert 'confidence' not in [c['key'] for c in tables(page_of(folder))[0]['columns']]
    assert 'NaN' not in page_of(folder)


def test_pictures_that_are_gone(run):
    for file in run[0].glob('*.png'):
        file.unlink()
    got = collect_run('run', run[0])
    assert [note for note in got.notes if 'Not all pictures can be shown (FileNotFoundError' in note]
    assert '<img' not in page_of(run[0])


def test_pictures_of_a_data_set_without_files(tmp_path):
    dataset = dict(type='mmlt.MNISTLT', split='test', pipeline=[dict(type='PackInputs')])
    cfg = Config(dict(model=dict(data_preprocessor=dict(to_rgb=False)), test_dataloader=dict(dataset=dataset)))
    built = build_dataset(cfg.test_dataloader.dataset)
    rows = [(built.get_data_info(i)['gt_label'], 1, 0.5, '', i) for i in (0, 501, 999)]
    source = RunPictures(Predictions.gather(rows), cfg, tmp_path)
    for place, i in enumerate((0, 501, 999)):
        data = base64.b64decode(source.get(place).split(',')[1])
        difference = np.abs(np.asarray(Image.open(io.BytesIO(data)), float) - built.get_data_info(i)['img'])
        assert difference.mean() < 8
    wrong = RunPictures(Predictions.gather([((rows[0][0] + 1) % 10, 1, 0.5, '', 0)]), cfg, tmp_path)
    assert wrong.get(0) is None and 'other pictures than those that were tested' in wrong.trouble
    assert RunPictures(Predictions.gather(rows), None, tmp_path).get(0) is None


def other_test(folder):
    found = Predictions.load(folder / 'predictions.npz')
    Predictions(**{**vars(found), 'prediction': found.label}).save(folder / 'predictions.npz')


def no_such_class(folder):
    found = Predictions.load(folder / 'predictions.npz')
    Predictions(**{**vars(found), 'label': found.label + 100}).save(folder / 'predictions.npz')


def pickled(folder):
    np.savez(folder / 'predictions.npz', label=np.array([{}], dtype=object))


def shot_of_no_group(folder):
    report = json.loads((folder / 'shot_report.json').read_text())
    report['per_class'][0]['shot'] = 'several'
    (folder / 'shot_report.json').write_text(json.dumps(report))


@pytest.mark.parametrize(
    ('break_it', 'sentence'),
    [
        (lambda f: (f / 'shot_report.json').unlink(), r'There is no report .*mmlt test'),
        (lambda f: (f / 'shot_report.json').write_text('{'), 'is no JSON .*test the run again'),
        (lambda f: (f / 'predictions.npz').write_bytes(b'PK'), r'is damaged .*test the run again with mmlt test'),
        (lambda f: (f / 'predictions.npz').write_bytes(b''), 'is damaged .*test the run again'),
        (pickled, 'is damaged .*test the run again'),
        (other_test, 'is not of the test .*test the run again'),
        (no_such_class, 'is not of the test .*test the run again'),
        (shot_of_no_group, 'cannot be read .*test the run again'),
        (lambda f: next(f.glob('*/vis_data/scalars.json')).write_text('{\n{}'), 'is no JSON .*remove that line'),
    ],
)
def test_bad_runs_get_a_sentence(run, break_it, sentence):
    break_it(run[0])
    with pytest.raises(InputError, match=sentence):
        collect_run('run', run[0])


def test_bad_config_and_anchors_are_told(run):
    next(run[0].glob('*/vis_data/config.py')).write_text('import os')
    assert 'more than values' in ' '.join(collect_run('run', run[0]).notes)
    next(run[0].glob('*/vis_data/config.py')).write_text("model = dict(head=dict(anchors='nowhere.safetensors'))")
    assert "The anchor file 'nowhere.safetensors' does not exist" in ' '.join(collect_run('run', run[0]).notes)


def test_runs_of_different_classes(run, tmp_path, make_run):
    make_run(tmp_path / 'other', NAMES[::-1])
    with pytest.raises(InputError, match='compare runs on one data set'):
        page_of(run[0], tmp_path / 'other')


def test_tool(run, tmp_path):
    tool = REPO / 'tools/analysis_tools/report.py'
    command = [sys.executable, tool, run[0], '-o', tmp_path / 'out/r.html', '--title', 'A & B', '--worst', '2']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r'Report: .*r\.html \(\d\.\d MB\)', done.stdout)
    text = (tmp_path / 'out/r.html').read_text()
    assert '<h1>A &amp; B</h1>' in text and text.count('class="card"') == 2
    done = subprocess.run([sys.executable, tool, tmp_path / 'none'], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith('mmlt: There is no report')
    with pytest.raises(InputError, match=r"its name is 'r\.pdf': let it end with \.html"):
        html_path('r.pdf')


def test_numbers_at_the_axes():
    assert round_numbers(0, 100) == [0, 20, 40, 60, 80, 100]
    assert round_numbers(0, 0.33) == [0, 0.1, 0.2, 0.3] and round_numbers(3, 3) == [3]
    assert log_steps(1.5, 650) == [3, 10, 30, 100, 300] and log_steps(0.4, 2000) == [1, 10, 100, 1000]
    assert log_steps(40, 60) == [50] and log_steps(41, 49) == [41]
