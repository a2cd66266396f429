"""mmlt seeds: all runs, one table, and nothing trained twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmlt import InputError
from mmlt.cli import seeds, test, train
from mmlt.engine.stages import RunRecord
from mmlt.evaluation.scores_file import read_scores
from mmlt.visualization import read_report

QUICK = ['--work-dir', 'out', '--cfg-options', 'train_cfg.max_epochs=1']


@pytest.fixture
def launched(monkeypatch, two_stages):
    """What is started, here in this process; b.py has two stages."""
    started = []

    def launch(verb, config, arguments, processes=1):
        started.append((verb, config, [a for a in arguments if 'seed=' in a][0]))
        {'train': train, 'test': test}[verb].main([config, *arguments])

    monkeypatch.setattr(seeds, 'launch', launch)
    return started


def test_two_configs_and_two_seeds(launched, capsys):
    seeds.main(['a.py', 'b.py', '--seeds', '3-4', *QUICK])
    expected = [('train', c, f'randomness.seed={s}') for c in ('a.py', 'b.py') for s in (3, 4)]
    assert launched == expected
    said = capsys.readouterr().out
    assert '±' in said and 'b - a' in said
    written = json.loads(Path('out/seeds.json').read_text())
    figures = {n: [read_report(f'out/{n}/seed{s}')['metrics']['all'] for s in (3, 4)] for n in 'ab'}
    shown = written['mean_and_deviation']
    column = 'balanced' if 'balanced' in shown['a'] else 'sample_accuracy'
    for name, values in figures.items():
        assert shown[name][column] == pytest.approx([np.mean(values), np.std(values, ddof=1)])
    assert written['differences']['b - a'][column][0] == pytest.approx(np.subtract(figures['b'], figures['a']).mean())
    assert 'Paired differences' in Path('out/seeds.md').read_text()
    seeds.main(['a.py', 'b.py', '--seeds', '3-5', *QUICK])  # goes on
    assert launched[4:] == [('train', c, 'randomness.seed=5') for c in ('a.py', 'b.py')]


def test_augmented_tests(launched):
    seeds.main(['a.py', '--seeds', '0', '--tta', *QUICK])
    assert [verb for verb, *_ in launched] == ['train', 'test'] and Path('out/a/seed0/tta/shot_report.json').is_file()
    assert 'with test-time augmentation' in Path('out/seeds.md').read_text()
    assert json.loads(Path('out/seeds.json').read_text())['tta'] is True
    seeds.main(['a.py', '--seeds', '0', *QUICK])
    assert 'augmentation' not in Path('out/seeds.md').read_text()


def test_provenance_and_scores(launched, two_stages):
    Path('d.py').write_text("_base_ = './a.py'\ntest_dataloader = dict(dataset=dict(ann_file='train.txt'))\n")
    for _ in range(2):  # the second time there is nothing to do
        seeds.main(['d.py', '--seeds', '1', '--save-logits', *QUICK])
    assert [verb for verb, *_ in launched] == ['train', 'test', 'test']
    folder = Path('out/d/seed1')
    test_scores, val_scores = (read_scores(folder / f'{name}.npz') for name in ('test', 'val'))
    report = read_report(folder)
    predicted = test_scores.logits.argmax(1)
    assert report['num_samples'] == len(test_scores.labels) != len(val_scores.labels)
    assert report['metrics']['sample_accuracy'] == pytest.approx(100 * (predicted == test_scores.labels).mean())
    seeds.main(['d.py', '--seeds', '1', '--tta', *QUICK])
    assert [verb for verb, *_ in launched][3:] == ['test']  # trained already
    found = json.loads((folder / 'provenance.json').read_text())
    assert (found['config'], found['seed'], found['options']) == ('d', 1, ['train_cfg.max_epochs=1'])
    assert [s['name'] for s in found['steps']] == ['train', 'test', 'tta'] and all(
        s['finished'] for s in found['steps']
    )
    step = found['steps'][0]
    assert {'mmlt', 'torch', 'mmengine', 'mmpretrain', 'open_clip', 'device'} <= step['versions'].keys()
    assert step['seconds'] > 0 and 'commit' in step
    with pytest.raises(SystemExit, match=r'a run with options .* is asked for'):
        seeds.main(['d.py', '--seeds', '1', '--work-dir', 'out', '--cfg-options', 'train_cfg.max_epochs=2'])


def test_scores_without_a_validation_split_are_told_of(launched, two_stages, capsys):
    seeds.main(['a.py', '--seeds', '1', '--save-logits', *QUICK])
    assert "'a.py' has no validation split apart from the test: there will be no val.npz" in capsys.readouterr().out
    assert not list(Path('out').rglob('val.npz'))


def test_failed_steps_are_noted(monkeypatch, two_stages):
    def launch(*_):
        raise InputError('it failed')

    monkeypatch.setattr(seeds, 'launch', launch)
    with pytest.raises(SystemExit, match='it failed'):
        seeds.main(['a.py', '--seeds', '0', *QUICK])
    path = Path('out/a/seed0/provenance.json')
    assert [(s['name'], s['finished']) for s in json.loads(path.read_text())['steps']] == [('train', False)]
    path.write_text('{"config":')
    with pytest.raises(SystemExit, match='is damaged'):
        seeds.main(['a.py', '--seeds', '0', *QUICK])


def test_heads_that_are_not_trained(launched, two_stages):
    Path('c.py').write_text(
        "_base_ = './a.py'\nstages = dict(a=dict(config='a.py', load_from=True))\n"
        'train_cfg = train_dataloader = optim_wrapper = param_scheduler = None\n'
        'val_cfg = val_dataloader = val_evaluator = None\n'
    )
    options = ['--work-dir', 'out', '--cfg-options', 'stages.a.options.train_cfg.max_epochs=1']
    seeds.main(['c.py', '--seeds', '0', '--save-logits', *options])
    seeds.main(['c.py', '--seeds', '0', '--tta', *options])
    assert [verb for verb, *_ in launched] == ['train', 'test', 'test']
    assert Path('out/c/seed0/test.npz').is_file() and not Path('out/c/seed0/val.npz').exists()
    trained = RunRecord('out/c/seed0/a')
    assert trained.finished and read_scores('out/c/seed0/test.npz').facts['checkpoint'] == trained.result


@pytest.mark.parametrize(
    ('arguments', 'why'),
    [
        (['a.py', '--seeds', '0-x'], "--seeds is '0-x': give a range"),
        (['a.py', '--seeds', '1,1'], 'names a seed twice'),
        (['a.py', '--seeds', '4-2'], 'is empty: give the smaller number first'),
        (['a.py', './a.py'], "Two configs are named 'a'"),
        (['a.py', 'nowhere'], "The config 'nowhere' does not exist"),
    ],
)
def test_wrong_arguments(launched, arguments, why):
    with pytest.raises(SystemExit, match=why):
        seeds.main(arguments)
    assert not launched
