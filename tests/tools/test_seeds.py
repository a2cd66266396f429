"""mmlt seeds: all runs, one table, and nothing trained twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmlt.cli import seeds, test, train
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


@pytest.mark.parametrize(
    ('arguments', 'why'),
    [
        (['a.py', '--seeds', '0-x'], "--seeds is '0-x': give a range"),
        (['a.py', '--seeds', '1,1'], 'names a seed twice'),
        (['a.py', '--seeds', '4-2'], 'is empty'),
        (['a.py', './a.py'], "Two configs are named 'a'"),
        (['a.py', 'nowhere'], "The config 'nowhere' does not exist"),
    ],
)
def test_wrong_arguments(launched, arguments, why):
    with pytest.raises(SystemExit, match=why):
        seeds.main(arguments)
    assert not launched
