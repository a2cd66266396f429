"""mmlt.fit: from pictures to predictions in a few lines."""

import sys
from pathlib import Path

import pytest

import mmlt
from mmlt import InputError
from mmlt.apis import Run
from mmlt.checkpoints import read_checkpoint
from mmlt.engine.stages import RunRecord

TINY = dict(model='mmlt-tiny-vit', epochs=1, test_per_class=1)
QUICK = {'train_dataloader.num_workers': 0, 'test_dataloader.num_workers': 0, 'val_dataloader.num_workers': 0}


@pytest.fixture
def options(tmp_path, monkeypatch, picture_folder, clip_file) -> dict:
    """Arguments of fit; the test runs beside the pictures, ``images/<class>/<n>.png``."""
    monkeypatch.chdir(tmp_path)
    return dict(TINY, pretrained=clip_file, cfg_options=QUICK)


def pairs() -> list[tuple[Path, str]]:
    return [(p, p.parent.name) for p in sorted(Path('images').rglob('*.png'))]


def test_from_a_folder_to_predictions(options, capsys):
    run = mmlt.fit('images', method='lift', out='runs/fruit', **options)
    assert 'many' in repr(run) and 'fruit' in repr(run)
    found = run.predict('images/pear', top=2)
    assert len(found) == 5 and len(found[0]['top']) == 2
    again = mmlt.load('runs/fruit')
    assert again.checkpoint == run.checkpoint and repr(again) == repr(run)
    assert again.predict('images/pear', top=2) == found
    assert 0 <= again.test()['shot/all'] <= 100
    assert Path(again.report()).read_text().count('<html') == 1
    before = Path(run.checkpoint).stat().st_mtime_ns
    mmlt.fit('images', method='lift', out='runs/fruit', **options)  # finished: nothing is trained
    assert Path(run.checkpoint).stat().st_mtime_ns == before and 'already finished' in capsys.readouterr().out


def test_stages_of_ballad(options):
    run = mmlt.fit('images', 'ballad', 'runs/b', **options)
    assert Path('runs/b/phase_a').is_dir() and 'classes' in read_checkpoint(run.checkpoint)['meta']['dataset_meta']


class Frame(dict):
    """As much of a DataFrame as is used."""

    columns = property(lambda self: list(self))
    itertuples = None


@pytest.mark.parametrize('kind', ['pairs', 'frame', 'table'])
def test_other_sources_are_the_same_training(options, kind):
    if kind == 'table':
        Path('t.csv').write_text('image,label\n' + ''.join(f'{f},{c}\n' for f, c in pairs()))
    files, labels = zip(*pairs())
    options['cfg_options'] = {'test_dataloader.num_workers': 0}  # nothing is trained
    source = {'pairs': pairs(), 'frame': Frame(Image=files, label=labels), 'table': 't.csv'}[kind]
    mmlt.fit(source, 'zeroshot', f'runs/{kind}', **options)
    lines = Path(f'runs/{kind}/data/train.txt').read_text().splitlines()
    mmlt.fit('images', 'zeroshot', 'runs/folder', **options)
    expected = Path('runs/folder/data/train.txt').read_text().splitlines()
    assert [Path(a).parts[-2:] for a in lines] == [Path(a).parts[-2:] for a in expected]


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        (dict(method='lifd'), "no method 'lifd'; choose one of lift"),
        (dict(epoch=1), "fit has no option 'epoch'; it takes"),
        (dict(source=['a.png']), "Entry 0 of the source is 'a.png': give pairs"),
        (dict(source=Frame(image=['a.png'])), "no column 'label'"),
        (dict(source='nowhere'), 'nowhere'),
        (dict(out='images/runs'), 'lies in the folder of the pictures'),
    ],
)
def test_wrong_calls(options, change, why):
    with pytest.raises(InputError, match=why):
        mmlt.fit(**{**dict(source='images', out='runs/x'), **options, **change})


def test_folders_without_a_run(tmp_path):
    with pytest.raises(InputError, match='has no config, where a training leaves one'):
        mmlt.load(tmp_path)
    (tmp_path / 'a.py').write_text('train_cfg = dict(max_epochs=1)\n')
    with pytest.raises(InputError, match='has no run.json, so it is of no training, perhaps of a test: give'):
        Run(tmp_path)
    RunRecord(str(tmp_path)).begin({}, {}, False)
    with pytest.raises(InputError, match='is not finished'):
        Run(tmp_path)


def test_the_package_says_what_it_lacks():
    with pytest.raises(AttributeError, match="module 'mmlt' has no attribute 'nothing'"):
        mmlt.nothing  # noqa: B018


@pytest.mark.parametrize(('given', 'asked'), [({}, None), ({'pretrained': None}, 'none'), ({'pretrained': 'a'}, 'a')])
def test_none_stands_for_random_weights(monkeypatch, tmp_path, given, asked):
    found = []

    def prepare(options, command):
        found.append(options.pretrained)
        raise InputError('seen')

    monkeypatch.setattr(sys.modules[mmlt.fit.__module__], 'prepare', prepare)
    with pytest.raises(InputError, match='seen'):
        mmlt.fit(tmp_path, out=tmp_path / 'run', **given)
    assert found == [asked]
