"""mmlt.fit: from pictures to predictions in a few lines."""

import multiprocessing
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

import mmlt
from mmlt import InputError
from mmlt.apis import Run
from mmlt.apis.calls import as_in_python
from mmlt.checkpoints import read_checkpoint
from mmlt.engine.stages import RunRecord

TINY = dict(model='mmlt-tiny-vit', epochs=1, test_per_class=1)
QUICK = {'train_dataloader.num_workers': 0, 'test_dataloader.num_workers': 0, 'val_dataloader.num_workers': 0}


@pytest.fixture
def options(tmp_path, monkeypatch, picture_folder, clip_file) -> dict:
    """Arguments of fit; the test runs beside the pictures, ``images/<class>/<n>.png``."""
    monkeypatch.chdir(tmp_path)
    return dict(TINY, pretrained=clip_file, cfg_options=QUICK)


PAIRS = [(f'images/{c}/{i}.png', c) for c in ('apple', 'pear', 'plum') for i in range(3)]


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

    def prepare(options, *_):
        found.append(options.pretrained)
        raise InputError('seen')

    monkeypatch.setattr(sys.modules[mmlt.fit.__module__], 'prepare', prepare)
    with pytest.raises(InputError, match='seen'):
        mmlt.fit(tmp_path, out=tmp_path / 'run', **given)
    assert found == [asked]


def folder_state(folder: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}


def test_another_split_is_refused_before_it_is_written(options, picture_folder):
    run = mmlt.fit('images', 'ce', 'runs/g', **options)
    before = folder_state('runs/g/data')
    for change in (dict(seed=3), dict(test_per_class=2)):
        with pytest.raises(InputError, match=r'holds a training on another split .* or another out=\.'):
            mmlt.fit('images', 'ce', 'runs/g', **{**options, **change})
    (picture_folder / 'images/pear/new.png').write_bytes((picture_folder / 'images/pear/0.png').read_bytes() + b'\0')
    with pytest.raises(InputError, match='holds a training on another split'):
        mmlt.fit('images', 'ce', 'runs/g', **options)
    assert folder_state('runs/g/data') == before
    Path('runs/g/data/test.txt').write_bytes(Path('runs/g/data/train.txt').read_bytes())  # as mmlt prepare --overwrite
    with pytest.raises(InputError, match='other lists of pictures are there now'):
        mmlt.load('runs/g').test()
    Path('runs/g/data').rename('elsewhere')
    with pytest.raises(InputError, match='but they are gone'):
        run.test()


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        (dict(epochs=2), 'another config: .*epochs'),
        (dict(batch_size=2), 'another config: '),
        (dict(no_flip=True), 'another config: '),
        (dict(method='ballad'), 'another config: '),
        (dict(cfg_options={**QUICK, 'train_cfg.max_epochs': 3}), 'another config: .*max_epochs'),
        (dict(seed=3), 'holds a training on another split'),
        (dict(source=[*reversed(PAIRS)]), 'holds a training on another split'),
    ],
)
def test_other_options_are_refused_before_anything_is_written(options, change, why):
    options = dict(options, source=PAIRS, method='ce', out='runs/g')
    mmlt.fit(**options)
    before, names = folder_state('runs/g/data'), sorted(Path('runs/g').rglob('*'))
    table = Path('runs/g/source.csv').read_text()
    with pytest.raises(InputError, match=why) as refused:
        mmlt.fit(**{**options, **change})
    assert 'out=' in str(refused.value) and folder_state('runs/g/data') == before
    assert Path('runs/g/source.csv').read_text() == table and sorted(Path('runs/g').rglob('*')) == names


@pytest.mark.parametrize('first, other', [('ce', 'zeroshot'), ('zeroshot', 'ce'), ('zeroshot', 'zeroshot')])
def test_a_folder_holds_one_run(options, first, other):
    """A zero-shot test in the folder of a training would write its figures over those of the training."""
    options['cfg_options'] = {'test_dataloader.num_workers': 0}
    run = mmlt.fit('images', first, 'runs/one', **options)
    report = Path('runs/one/shot_report.json').read_text()
    if first != other:
        with pytest.raises(InputError, match=f"holds '{first}_one.py', and would hold '{other}_one.py'.*another out="):
            mmlt.fit('images', other, 'runs/one', **options)
        assert Path('runs/one/shot_report.json').read_text() == report
    else:
        mmlt.fit('images', other, 'runs/one', **options)
    assert repr(mmlt.load('runs/one')) == repr(run)


def test_no_workers_stay_behind(options):
    """Persistent ones lived on, and the next call waited five seconds for each until they were gone."""
    options['cfg_options'] = dict.fromkeys(QUICK, 1) | {'test_dataloader.persistent_workers': True}
    before = set(multiprocessing.active_children())
    run = mmlt.fit('images', 'ballad', 'runs/w', **options)
    assert set(multiprocessing.active_children()) <= before
    assert run.test(cfg_options=options['cfg_options']).keys()
    assert set(multiprocessing.active_children()) <= before


def test_a_source_that_cannot_be_used_leaves_no_folder(options):
    with pytest.raises(InputError, match=r'^The source and the pictures disagree: 1 of the 17 listed .*gone\.png'):
        mmlt.fit([*pairs(), ('gone.png', 'pear')], 'ce', 'runs/g', **options)
    assert not Path('runs').exists()


def test_a_refused_method_leaves_no_folders(options):
    mmlt.fit('images', 'ce', 'runs/g', **options)
    folders = {p for p in Path('runs/g').iterdir() if p.is_dir()}
    with pytest.raises(InputError, match='Give another out=, or train it anew in an empty folder'):
        mmlt.fit('images', 'ballad', 'runs/g', **options)
    assert {p for p in Path('runs/g').iterdir() if p.is_dir()} == folders


@pytest.mark.parametrize('move', [False, True])
def test_a_run_folder_goes_along(options, move):
    run = mmlt.fit('images', 'ce', 'runs/g', **options)
    expected, found = run.test(), run.predict('images/pear')
    (shutil.move if move else shutil.copytree)('runs/g', 'runs/h')
    other = mmlt.load('runs/h')
    assert Path(other.checkpoint) == Path('runs/h/epoch_1.pth').absolute()
    assert other.test() == expected and other.predict('images/pear') == found
    assert other._moved['test_dataloader.dataset.data_root'] == str(Path('runs/h/data').absolute())


def test_labels_that_are_missing(options):
    files, labels = map(list, zip(*pairs()))
    labels[1], labels[4], files[2] = float('nan'), None, None
    with pytest.raises(InputError, match="3 of the 16 entries .* label, '1', '2', '4': fill them in"):
        mmlt.fit(Frame(image=files, label=labels), out='runs/x', **options)


def test_a_batch_size_that_was_asked_for_is_the_recipe(options, capsys):
    for method in ('ce', 'ballad'):
        mmlt.fit('images', method, f'runs/{method}', batch_size=4, **options)
    assert 'learning rate of this config' not in ''.join(capsys.readouterr())


@pytest.mark.parametrize(
    ('change', 'why'),
    [
        (dict(source=None), 'The source is None: give a folder'),
        (dict(source=5), 'The source is 5: give a folder'),
        (dict(source=[]), 'The source is empty'),
        (dict(source=[(Image.new('RGB', (2, 2)), 'a')]), 'Entry 0 of the source has a Image as picture: give the path'),
        (dict(source=[('a.png', ['a'])]), 'Entry 0 of the source has a list as label'),
        (dict(epochs='x'), "epochs is 'x', a str: give a whole number"),
        (dict(epochs=1.5), 'epochs is 1.5, a float: give a whole number'),
        (dict(epochs=True), 'epochs is True, a bool: give a whole number'),
        (dict(seed='a'), "seed is 'a', a str: give a whole number"),
        (dict(seed=-1), 'seed is -1; give 0 or more'),
        (dict(tail_ratio='2'), 'tail_ratio .* give a number'),
        (dict(cfg_options=['a=b']), r"cfg_options is \['a=b'\], a list: give a dict"),
        (dict(class_names=['a', 'b', 'c']), 'class_names .* a list: give a text or path'),
        (dict(out='t.txt'), "out='.*t.txt' cannot be made: '.*t.txt' is no folder"),
        (dict(pretrained=None), 'need pretrained weights, see pretrained=. .* another method: vlltr, ballad, ce'),
        (dict(source='lists.csv'), 'say by root= what the paths are relative to'),
    ],
)
def test_arguments_are_named_as_they_were_given(options, change, why):
    Path('t.txt').write_text('')
    Path('lists.csv').write_text('image,label\nnowhere.png,a\n')
    with pytest.raises(InputError, match=why) as caught:
        mmlt.fit(**{**dict(source='images', out='runs/x'), **options, **change})
    assert '--' not in str(caught.value) and not Path('runs/x/data').exists()


def test_arguments_of_a_run(options):
    run = mmlt.fit('images', 'zeroshot', 'runs/z', **{**options, 'cfg_options': {'test_dataloader.num_workers': 0}})
    with pytest.raises(InputError, match="top is 'a'"):
        run.predict('images', top='a')
    with pytest.raises(InputError, match="export has no option 'batchsize'; it takes batch, "):
        run.export(batchsize=3)
    with pytest.raises(InputError, match='folder is None'):
        mmlt.load(None)


@pytest.mark.parametrize(
    ('said', 'expected'),
    [
        ('set quick_gelu=True on both towers', 'set quick_gelu=True'),
        ('leave out --pretrained.', 'leave out pretrained=.'),
        ("--model 'a' brings its weights", "model='a' brings its weights"),
        ('--batch-size is 0; give 1.', 'batch_size is 0; give 1.'),
        ('by --cfg-options stages.a.work_dir=<folder>, or', "by cfg_options={'stages.a.work_dir': <folder>}, or"),
        ('leave them out by --skip-unreadable.', 'leave them out by skip_unreadable=True.'),
        ("'a--b/x-y' does not exist", "'a--b/x-y' does not exist"),
    ],
)
def test_options_as_in_python(said, expected):
    assert as_in_python(said) == expected
