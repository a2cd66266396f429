"""From a folder, table or list of pictures to lists and configs that train."""

import json
import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image
from safetensors.torch import save_file

from mmlt import InputError
from mmlt.cli import prepare
from mmlt.datasets.pictures import is_picture
from mmlt.engine.configs import CONFIGS
from mmlt.engine.stages import decisive, plan
from mmlt.preparation.own_pictures import artificial_tail, balanced_split, default_test_size, prompt_names
from mmlt.preparation.prepare import PrepareOptions
from mmlt.preparation.prepare import prepare as run_prepare
from mmlt.preparation.starter_configs import TEMPLATES, Settings, fill_template, starter_configs, template_values
from mmlt.preparation.towers import probe

REPO = Path(__file__).parent.parent.parent
TINY = ['--model', 'mmlt-tiny-rn', '--pretrained', 'none']


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def weight_file(path: str, model: str, image_size: int | None = None) -> str:
    """Random weights of an open_clip model."""
    clip = open_clip.create_model(model, force_image_size=image_size)
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, path)
    return path


@pytest.fixture
def fruit(tmp_path, monkeypatch) -> Path:
    """Class folders with 12, 6 and 2 pictures, one deeper than the others."""
    monkeypatch.chdir(tmp_path)
    folder, seed = tmp_path / 'pics', 0
    for name, count in (('red_pear', 6), ('apple', 12), ('plum', 2)):
        for i in range(count):
            seed += 1
            picture(folder / name / ('deep' if i == 0 else '') / f'{i}.png', seed)
    return folder


def entries(file: Path) -> dict[str, int]:
    lines = [line.rsplit(' ', 1) for line in file.read_text().splitlines()]
    assert len({name for name, _ in lines}) == len(lines)
    return {name: int(label) for name, label in lines}


def counts(file: Path) -> list[int]:
    return np.bincount(list(entries(file).values()), minlength=3).tolist()


def refused(prepare, capsys, *args) -> str:
    with pytest.raises(SystemExit) as stop:
        prepare.main([*map(str, args), '--out', 'out', *TINY])
    assert stop.value.code.startswith('mmlt: ')
    assert not Path('out/train.txt').exists()
    return stop.value.code


def test_folder_becomes_lists_and_a_report(fruit, capsys):
    prepare.main([str(fruit), '--out', 'data/fruit', *TINY, '--test-per-class', '2', '--val-per-class', '1'])
    out = Path('data/fruit')
    assert (out / 'classes.txt').read_text().split('\n') == ['apple', 'plum', 'red pear', '']
    assert (counts(out / 'train.txt'), counts(out / 'val.txt')) == ([9, 1, 3], [1, 0, 1])
    assert counts(out / 'test.txt') == [2, 1, 2]
    splits = [entries(out / f'{s}.txt') for s in ('train', 'val', 'test')]
    together = {k: v for split in splits for k, v in split.items()}
    assert len(together) == sum(map(len, splits)) == 20
    names = ('apple', 'plum', 'red_pear')
    assert all(file.startswith(f'{names[label]}/') for file, label in together.items())
    assert 'apple/deep/0.png' in together
    with Image.open(out / 'class_sizes.png') as image:
        assert image.format == 'PNG'
    said = capsys.readouterr().out
    assert "1 classes have fewer test pictures, since half of a class stays in training: 'plum'." in said
    assert 'red_pear -> red pear' in said
    assert 'Now: mmlt train data/fruit/vlltr_fruit.py' in said


def test_the_same_seed_gives_the_same_split(fruit):
    for out, seed in (('a', 0), ('b', 0), ('c', 1)):
        prepare.main([str(fruit), '--out', out, '--seed', str(seed), *TINY])
    a, b, c = (Path(out, 'train.txt').read_text() for out in 'abc')
    assert a == b != c


def test_table_and_list_say_the_same_as_the_folder(fruit, tmp_path):
    files = sorted(p.relative_to(fruit) for p in fruit.rglob('*.png'))
    labels = {'apple': 0, 'plum': 1, 'red_pear': 2}
    (tmp_path / 't.csv').write_text('﻿label, image\n' + ''.join(f'{f.parts[0]},{f}\n' for f in files))
    (tmp_path / 'l.txt').write_text(''.join(f'pics/{f} {labels[f.parts[0]]}\n' for f in files))
    prepare.main([str(fruit), '--out', 'a', '--name', 'x', *TINY])
    prepare.main(['t.csv', '--root', str(fruit), '--out', 'b', '--name', 'x', *TINY])
    a, b = ({p.name: p.read_text() for p in Path(out).glob('*.txt')} for out in 'ab')
    assert a == b
    # One picture lies deeper, so the folders do not tell the names of the labels.
    prepare.main(['l.txt', '--class-names', 'a/classes.txt', '--out', 'c', '--name', 'x', *TINY])
    assert Path('c/classes.txt').read_text() == a['classes.txt']
    assert counts(Path('c/train.txt')) == counts(Path('a/train.txt'))


def test_list_takes_names_from_folders_or_says_that_it_has_none(fruit, tmp_path, capsys):
    for i in range(4):
        picture(fruit / 'apple' / f'x{i}.png', 100 + i)
        picture(fruit / 'plum' / f'x{i}.png', 200 + i)
    lines = [f'pics/{n}/x{i}.png {y}' for y, n in enumerate(('plum', 'apple')) for i in range(4)]
    (tmp_path / 'l.txt').write_text('\n'.join(lines))
    prepare.main(['l.txt', '--out', 'a', *TINY])
    assert Path('a/classes.txt').read_text() == 'plum\napple\n'  # labels stay as they are
    assert 'give --class-names' not in capsys.readouterr().out
    (tmp_path / 'l.txt').write_text('\n'.join([*lines, 'pics/apple/1.png 0']))
    prepare.main(['l.txt', '--out', 'b', *TINY])
    assert Path('b/classes.txt').read_text() == '0\n1\n'
    assert 'which say nothing in a prompt: give --class-names' in capsys.readouterr().out


def test_tail(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for c, n in enumerate((20, 22, 21)):
        for i in range(n):
            picture(tmp_path / 'pics' / f'class{c}' / f'{i}.png', 100 * c + i)
    prepare.main(['pics', '--out', 'out', '--tail-ratio', '4', '--test-per-class', '4', *TINY])
    assert counts(Path('out/test.txt')) == [4, 4, 4]
    # 18, 17 and 16 are left: the largest class stands in front, and 18 -> 9 -> 4.
    assert counts(Path('out/train.txt')) == [4, 18, 9]
    assert 'The ratio is 4.5 in place of 4' in capsys.readouterr().out


def test_tail_is_as_large_as_it_can_be():
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes, ratio = rng.integers(20, 60, 6), float(rng.integers(2, 12))
        labels = rng.permutation(np.repeat(np.arange(6), sizes))
        kept = np.bincount(labels[artificial_tail(labels, 6, ratio, 0)])

        def fits(top, sizes=sizes, ratio=ratio):
            wanted = [int(top * ratio ** (-k / 5) + 1e-9) for k in range(6)]
            return (np.array(wanted) <= np.sort(sizes)[::-1]).all()

        assert fits(kept.max()) and not fits(kept.max() + 1)
        assert sorted(kept, reverse=True) == [int(kept.max() * ratio ** (-k / 5) + 1e-9) for k in range(6)]
    with pytest.raises(
        InputError, match='leaves classes without pictures, since the largest class can have 59: choose at most 59'
    ):
        artificial_tail(labels, 6, 1000, 0)


def test_split_is_balanced_and_leaves_half():
    labels = np.repeat(np.arange(5), (1, 2, 3, 9, 100))
    splits = balanced_split(labels, 3, 2, seed=0)
    found = {s: np.bincount(labels[i], minlength=5).tolist() for s, i in splits.items()}
    assert found == {'test': [0, 1, 1, 3, 3], 'val': [0, 0, 1, 2, 2], 'train': [1, 1, 1, 4, 95]}
    assert sorted(np.concatenate(list(splits.values()))) == list(range(115))
    assert [default_test_size(n) for n in ([1, 2, 3], [10, 50, 900], [9000] * 3)] == [1, 10, 100]


def test_names_are_made_for_prompts(tmp_path):
    assert prompt_names(['sea__otter', ' Red_Fox']) == ('sea otter', 'Red Fox')
    (tmp_path / 'n.txt').write_text('grey wolf\nred_fox\n')
    assert prompt_names(['n01', 'n02'], str(tmp_path / 'n.txt')) == ('grey wolf', 'red fox')
    twice = [unicodedata.normalize(form, 'pêche') for form in ('NFC', 'NFD')]
    assert prompt_names(['apple', twice[1]]) == ('apple', twice[0])
    with pytest.raises(InputError, match="Two classes have the same name 'pêche'"):
        prompt_names(twice)


def test_what_is_no_picture_is_left_out_and_said(fruit, capsys):
    (fruit / 'apple' / 'notes.txt').write_text('x')
    (fruit / 'README.md').write_text('x')
    (fruit / '.DS_Store').write_text('x')
    (fruit / 'apple' / 'copy.png').write_bytes((fruit / 'apple' / '3.png').read_bytes())
    prepare.main([str(fruit), '--out', 'out', *TINY])
    said = capsys.readouterr().out
    assert "2 files are no pictures and are left out: 'README.md', 'apple/notes.txt'." in said
    assert "1 copies of other pictures are left out: 'apple/copy.png'." in said
    assert sum(counts(Path('out/train.txt'))) + sum(counts(Path('out/test.txt'))) == 20


def test_pictures_in_hidden_folders_are_left_out(fruit, capsys):
    for i, place in enumerate(('apple/.thumbs', 'apple/deep/@eaDir/1.png', 'plum/.ipynb_checkpoints', '__MACOSX')):
        picture(fruit / place / 'x.png', 500 + i)
    prepare.main([str(fruit), '--out', 'out', *TINY])
    files = {**entries(Path('out/train.txt')), **entries(Path('out/test.txt'))}
    assert len(files) == 20 and not any('x.png' in file for file in files)
    assert (
        "3 pictures in hidden folders are left out: 'apple/.thumbs/x.png', 'apple/deep/@eaDir/1.png/x.png', "
        "'plum/.ipynb_checkpoints/x.png'."
    ) in capsys.readouterr().out


def test_formats_are_those_of_pillow(fruit, capsys):
    (fruit / 'apple' / '3.png').rename(fruit / 'apple' / '3.jfif')
    (fruit / 'apple' / 'a.HEIC').write_bytes(b'x')
    (fruit / 'apple' / 'b.mpg').write_bytes(b'x')
    assert is_picture('x.AVIF') == ('.avif' in Image.registered_extensions())
    prepare.main([str(fruit), '--out', 'out', *TINY])
    assert 'apple/3.jfif' in {**entries(Path('out/train.txt')), **entries(Path('out/test.txt'))}
    said = capsys.readouterr().out
    assert "1 file is no picture and is left out: 'apple/b.mpg'" in said
    assert "1 HEIC pictures, which Pillow cannot open, are left out: 'apple/a.HEIC'; convert them to JPEG." in said


def test_names_that_no_list_can_hold(fruit, capsys):
    path = os.fsencode(fruit / 'apple') + b'/caf\xe9.txt'
    Path(os.fsdecode(path)).write_text('x')
    assert r"The file name b'apple/caf\xe9.txt' is not UTF-8: rename it" in refused(prepare, capsys, fruit)
    Path(os.fsdecode(path)).unlink()
    picture(fruit / 'apple' / 'a\nb.png', 99)
    assert 'has a line break: rename it' in refused(prepare, capsys, fruit)
    assert not Path('out').exists()


def test_class_with_one_picture_is_trained_and_not_tested(fruit, capsys):
    (fruit / 'plum' / '1.png').unlink()
    prepare.main([str(fruit), '--out', 'out', *TINY])
    assert "1 classes have a single picture, which is trained on and cannot be tested: 'plum'." in (
        capsys.readouterr().out
    )
    assert (counts(Path('out/train.txt'))[1], counts(Path('out/test.txt'))[1]) == (1, 0)


def test_broken_picture_stops_or_is_left_out(fruit, capsys):
    whole = (fruit / 'apple' / '3.png').read_bytes()
    (fruit / 'apple' / '3.png').write_bytes(whole[: len(whole) // 2])
    said = refused(prepare, capsys, fruit)
    assert "1 of the 20 pictures cannot be read, the first is '" in said and 'apple/3.png' in said
    assert '--skip-unreadable' in said
    (fruit / 'apple' / '3.png').write_bytes(b'no picture')
    said = refused(prepare, capsys, fruit)
    assert "apple/3.png' (UnidentifiedImageError: it is damaged, or of a format that Pillow does not know): " in said
    prepare.main([str(fruit), '--out', 'out', *TINY, '--skip-unreadable'])
    assert "1 pictures cannot be read and are left out: 'apple/3.png'." in capsys.readouterr().out


def test_form_that_does_not_tell_what_is_white_is_named(fruit, capsys):
    # 16 bits are read; a temperature is not.
    Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)).save(fruit / 'apple' / '3.png')
    Image.fromarray(np.full((8, 8), 300.0, np.float32)).save(fruit / 'apple' / 'heat.tif')
    said = refused(prepare, capsys, fruit)
    assert "1 of the 21 pictures cannot be read, the first is '" in said and 'apple/heat.tif' in said
    assert '(its floating-point values go from 300 to 300, but must be in [0, 1]: rescale them' in said
    assert not Path('out').exists()


def add_empty_class(folder):
    (folder / 'quince').mkdir()
    return "quince' has no pictures"


def add_partial_download(folder):
    (folder / 'apple' / 'more.zip.crdownload').write_text('x')
    return "is only half downloaded: there are unfinished files, 'apple/more.zip.crdownload'"


def add_same_name(folder):
    picture(folder / 'Red pear' / '0.png', 99)
    return "Two classes have the same name 'red pear': 'Red pear' and 'red_pear'"


def add_copy_in_other_class(folder):
    (folder / 'plum' / 'copy.png').write_bytes((folder / 'apple' / '3.png').read_bytes())
    return "two classes: 'apple/3.png' in 'apple' and 'plum/copy.png' in 'plum'"


def add_loose_picture(folder):
    picture(folder / 'x.png', 99)
    return "lie beside the class folders, 'x.png'"


def make_splits(folder):
    for name in [p.name for p in folder.iterdir()]:
        (folder / 'train').mkdir(exist_ok=True)
        (folder / name).rename(folder / 'train' / name)
    (folder / 'Val').mkdir()
    return "Val' has no sub-folders"


def keep_one_class(folder):
    for file in [p for name in ('plum', 'red_pear') for p in (folder / name).rglob('*.png')]:
        file.unlink()
    for place in (folder / 'plum' / 'deep', folder / 'plum', folder / 'red_pear' / 'deep', folder / 'red_pear'):
        place.rmdir()
    return "one class only, 'apple'"


@pytest.mark.parametrize(
    'spoil',
    [
        add_empty_class,
        add_partial_download,
        add_same_name,
        add_copy_in_other_class,
        add_loose_picture,
        make_splits,
        keep_one_class,
    ],
    ids=lambda f: f.__name__,
)
def test_bad_folder(fruit, capsys, spoil):
    sentence = spoil(fruit)
    assert sentence in refused(prepare, capsys, fruit)


def split_folder(**splits: dict[str, int]) -> Path:
    """`pics/<split>/<class>/<i>.png`, all different."""
    seed = 0
    for split, classes in splits.items():
        for name, count in classes.items():
            for i in range(count):
                seed += 1
                picture(Path('pics', split, name, f'{i}.png'), seed)
    return Path('pics')


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_given_splits_stay_as_they_are(here, capsys):
    folder = split_folder(train=dict(pear=5, apple=3, plum=1), Val=dict(apple=1), test=dict(pear=2, apple=2))
    (folder / 'README.txt').write_text('x')
    prepare.main(['pics', '--out', 'out', *TINY])
    assert Path('out/classes.txt').read_text() == 'apple\npear\nplum\n'
    assert [counts(Path(f'out/{s}.txt')) for s in ('train', 'val', 'test')] == [[3, 5, 1], [1, 0, 0], [2, 2, 0]]
    for split, prefix in (('train', 'train/'), ('val', 'Val/'), ('test', 'test/')):
        assert all(name.startswith(prefix) for name in entries(Path(f'out/{split}.txt')))
    said = capsys.readouterr().out
    assert 'The splits are those of the source: 9 to train, 1 to val, 4 to test.' in said
    assert "1 of the 3 classes of 'train' have no pictures in 'test': 'plum'." in said
    assert "1 files or folders beside the splits are left out: 'README.txt'" in said
    data = Config.fromfile('out/dataset_out.py').test_dataloader.dataset
    init_default_scope('mmpretrain')
    assert len(DATASETS.build(data)) == 4


def test_given_splits_without_test_or_val(here, capsys):
    split_folder(train=dict(pear=4, apple=8), valid=dict(pear=2, apple=2))
    prepare.main(['pics', '--out', 'out', '--tail-ratio', '4', *TINY])
    assert [counts(Path(f'out/{s}.txt'))[:2] for s in ('train', 'test')] == [[8, 2], [2, 2]]
    assert not Path('out/val.txt').exists() and 'that for validation is tested on' in capsys.readouterr().out
    Path('pics/valid').rename('pics/testing')
    prepare.main(['pics', '--out', 'b', '--val-per-class', '1', *TINY])
    assert [counts(Path(f'b/{s}.txt'))[:2] for s in ('train', 'val', 'test')] == [[7, 3], [1, 1], [2, 2]]


def test_a_picture_in_training_and_test_is_tested(here, capsys):
    folder = split_folder(train=dict(a=3, b=2), test=dict(a=2, b=1))
    (folder / 'train/a/copy.png').write_bytes((folder / 'test/a/0.png').read_bytes())
    prepare.main(['pics', '--out', 'out', *TINY])
    assert [counts(Path(f'out/{s}.txt'))[:2] for s in ('train', 'test')] == [[3, 2], [2, 1]]
    assert "1 copies of other pictures are left out: 'train/a/copy.png'" in capsys.readouterr().out


@pytest.mark.parametrize(
    'splits, args, sentence',
    [
        (dict(train=dict(a=2, b=2), test=dict(a=1, c=1)), (), "has 1 classes that 'train' has not, the first is 'c'"),
        (dict(train=dict(a=2, b=2), test=dict(A=1)), (), "first is 'A' ('a' is there: name them the same)"),
        (dict(train=dict(a=2, b=2)), (), "has 'train' alone, the name of a split and not of a class"),
        (dict(val=dict(a=2), test=dict(a=2)), (), "has 'test', 'val' alone, the name of a split"),
        (dict(train=dict(a=2), test=dict(a=2), Testing=dict(a=1)), (), 'two folders of one split'),
        (dict(train=dict(a=2), test=dict(a=2), more=dict(a=1)), (), "and beside them 'more' with pictures"),
        (dict(train=dict(a=2, b=2), test=dict(a=1)), ('--test-per-class', '1'), 'leave out --test-per-class'),
        (
            dict(train=dict(a=2, b=2), test=dict(a=1), val=dict(a=1)),
            ('--val-per-class', '1'),
            'leave out --val-per-class',
        ),
        (dict(train={'': 3}, test={'': 2}), (), "test' has no sub-folders"),
        ({'train/train': dict(a=1, b=1), 'test/test': dict(a=1)}, (), "test' has 'test' in place of classes: move"),
    ],
)
def test_splits_that_do_not_fit_together(here, capsys, splits, args, sentence):
    split_folder(**splits)
    assert sentence in refused(prepare, capsys, 'pics', *args)


def test_options_serve_twice(here):
    split_folder(train=dict(a=2, b=2), test=dict(a=1, b=1))
    options = PrepareOptions(['pics'], 'out', str(CONFIGS / '_base_'), model=TINY[1], pretrained='none', overwrite=True)
    assert run_prepare(options) == run_prepare(options)


def test_two_sources_are_told_their_folder(here, capsys, tmp_path):
    split_folder(train=dict(a=2, b=2), test=dict(a=1, b=1))
    assert f"that is the folder in which they lie, '{tmp_path}/pics'" in refused(
        prepare, capsys, 'pics/train', 'pics/test'
    )
    prepare.main(['pics/train', '--out', 'out', *TINY])
    said = capsys.readouterr().out
    assert f"there are 'test', which are not used: to take them as they are, give '{tmp_path}/pics'" in said


def test_a_class_may_have_the_name_of_a_split(here):
    """Vehicles; pictures lie in the folders, not classes."""
    split_folder(**{name: {'': 2} for name in ('car', 'train', 'test')})
    prepare.main(['pics', '--out', 'out', *TINY])
    assert Path('out/classes.txt').read_text() == 'car\ntest\ntrain\n'
    split_folder(**{'vehicles/train': dict(car=2, train=2), 'vehicles/test': dict(train=1)})
    prepare.main(['pics/vehicles', '--out', 'b', *TINY])
    assert Path('b/classes.txt').read_text() == 'car\ntrain\n'


@pytest.mark.parametrize(
    'name, text, sentence',
    [
        ('t.csv', 'pics/apple/1.png,apple\n', 'Its first line names a picture: there is no header.'),
        ('t.csv', 'Image,class\npics/apple/1.png,apple\n', "has no column 'label', but 'Image', 'class': its first"),
        ('t.csv', 'image,label,Label\npics/apple/1.png,a,b\n', "has the column 'label' 2 times: remove all but one"),
        ('t.csv', '', "has no column 'image', but none"),
        ('t.json', '{"data_list": [', "'t.json' is not valid JSON"),
        ('t.json', '[]', '\'t.json\' lists no pictures: it must be {"metainfo"'),
        ('t.json', '{"data_list": []}', "'t.json' lists no pictures"),
        ('t.json', '{"metainfo": {"classes": "c"}, "data_list": [{}]}', 'metainfo must be {"classes": [names'),
        ('t.json', '{"data_list": [{"gt_label": 0}]}', "'t.json', data_list, entry 1 has no img_path"),
        ('t.json', '{"data_list": [{"img_path": "a.png"}]}', 'entry 1: gt_label is None, but must be the number'),
        ('t.json', '{"data_list": [{"img_path": "a.png", "gt_label": [0, 1]}]}', 'entry 1: gt_label is [0, 1], but'),
        (
            't.json',
            '{"metainfo": {"classes": ["a", "b"]}, "data_list": [{"img_path": "a.png", "gt_label": 2}]}',
            'entry 1: gt_label is 2, but must be the number of one class, 0 to 1',
        ),
        (
            't.json',
            '{"metainfo": {"classes": ["a", "b"]}, "data_list": [{"img_path": "a.png", "gt_label": 1}]}',
            "has no picture of class 'a'",
        ),
        ('t.json', '{"data_list": [{"img_path": "a.png", "gt_label": 0}]}', '1 of the 1 listed files are not in'),
        ('t.csv', 'image,label\npics/apple/1.png,\n', "'t.csv', line 2: the label is missing"),
        ('t.csv', 'image,label\n', "'t.csv' has a header but no rows"),
        ('t.csv', 'image,label\npics/apple/1.png,a\npics/no.png,b\n', "1 of the 2 listed files are not in '"),
        ('t.tsv', 'image\tlabel\npics/apple/1.png\ta\nt.tsv\tb\n', "lists 1 files that are no pictures, 't.tsv'"),
        ('l.txt', 'pics/apple/1.png 0\npics/plum/9.png 1\n', 'and the pictures disagree: 1 of the 2 listed files'),
        ('l.txt', 'pics/apple/1.png 0\npics/plum/1.png 2\n', 'has 2 different labels from 0 to 2'),
        ('l.txt', 'pics/apple/1.png\n', "line 1: 'pics/apple/1.png' is not of the form 'relative/path label'"),
        ('l.txt', '\n', "'l.txt' lists no images"),
        ('l.txt', 'pics/apple/1.png 12345678901234567890\n', 'line 1: the label 12345678901234567890 is too large'),
    ],
)
def test_bad_table_or_list(fruit, capsys, name, text, sentence):
    Path(name).write_text(text)
    assert sentence in refused(prepare, capsys, name)


@pytest.mark.parametrize('name', ['t.csv', 't.json', 'l.txt', 'n.txt'])
def test_files_that_are_not_utf8(fruit, capsys, name):
    Path(name).write_bytes('Größe'.encode('latin-1'))
    source = [fruit, '--class-names', name] if name == 'n.txt' else [name]
    assert f"{name}' is not UTF-8, and as GBK it would have 'Gr" in refused(prepare, capsys, *source)


@pytest.mark.parametrize(
    'name, encoding, divider',
    [('t.csv', 'utf-8', ';'), ('t.tsv', 'utf-8-sig', ','), ('t.csv', 'utf-16', '\t'), ('t.csv', 'gbk', ',')],
)
def test_tables_of_spreadsheets(fruit, capsys, recwarn, name, encoding, divider):
    rows = [('Image', 'LABEL')]
    rows += [(f'pics/{c}/{i}.png', n) for c, n in (('apple', '苹果'), ('red_pear', '梨')) for i in range(1, 6)]
    Path(name).write_bytes('\r\n'.join(map(divider.join, rows)).encode(encoding))
    prepare.main([name, '--out', 'out', *TINY])
    assert Path('out/classes.txt').read_text() == '梨\n苹果\n'
    assert capsys.readouterr().out.count('class_sizes.png has boxes where its font lacks a letter') == 1
    assert not [w for w in recwarn if 'Glyph' in str(w.message)]


def test_annotation_of_mmengine(fruit, capsys):
    names = ('red_pear', 'apple')
    data = [dict(img_path=f'{n}/{i}.png', gt_label=y) for y, n in enumerate(names) for i in range(1, 6)]
    Path('t.json').write_text(json.dumps(dict(metainfo=dict(classes=['pear', 'an apple']), data_list=data)))
    prepare.main(['t.json', '--root', str(fruit), '--out', 'a', *TINY])
    assert Path('a/classes.txt').read_text() == 'pear\nan apple\n'
    assert entries(Path('a/train.txt')).items() <= {d['img_path']: d['gt_label'] for d in data}.items()
    assert 'give --class-names' not in capsys.readouterr().out
    Path('t.json').write_text(json.dumps(dict(data_list=data)))
    prepare.main(['t.json', '--root', str(fruit), '--out', 'b', *TINY])
    assert Path('b/classes.txt').read_text() == '0\n1\n'
    assert 'give --class-names' in capsys.readouterr().out


def test_bad_arguments(fruit, tmp_path, capsys):
    (tmp_path / 'n.txt').write_text('a\nb\n')
    for args, sentence in (
        (['nowhere'], "'nowhere' does not exist: give a folder"),
        ([fruit / 'apple' / '1.png'], 'is a single picture: give the folder'),
        ([fruit, '--class-names', 'n.txt'], "'n.txt' has 2 names, but there are 3 classes, 'apple'"),
        ([fruit, '--texts', 'none'], 'do not exist'),
        ([fruit, '--test-per-class', 0], '--test-per-class is 0'),
        ([fruit, '--val-per-class', -1], '--val-per-class is -1; give 0 for no validation pictures'),
        ([fruit, '--seed', -1], '--seed is -1'),
        ([fruit, '--tail-ratio', -3], '--tail-ratio is -3'),
        ([fruit, '--tail-ratio', 'nan'], '--tail-ratio is nan'),
        ([fruit, '--root', 'x'], "--root 'x' is for a table or list"),
        ([fruit, '--tail-ratio', 100], 'A tail of ratio 100 leaves classes without pictures'),
        ([fruit, '--tail-ratio', 0.5], 'at least 1'),
        ([fruit, '--epochs', 0], 'epochs is 0'),
        ([fruit, '--name', '...'], 'has no letters for a name'),
    ):
        assert sentence in refused(prepare, capsys, *args), sentence
    with pytest.raises(SystemExit, match='lies in the folder of the pictures'):
        prepare.main([str(fruit), '--out', str(fruit / 'out'), *TINY])
    with pytest.raises(SystemExit, match="weight file '.*no.pt' does not exist"):
        prepare.main([str(fruit), '--out', 'out', '--model', 'mmlt-tiny-rn', '--pretrained', './no.pt'])
    with pytest.raises(SystemExit, match="no pretrained tag 'openai'"):
        prepare.main([str(fruit), '--out', 'out', '--model', 'mmlt-tiny-rn'])
    for name in ('apple', 'plum', 'red_pear'):
        for file in sorted((fruit / name).rglob('*.png'))[1:]:
            file.unlink()
    assert 'Every class has a single picture' in refused(prepare, capsys, fruit)


def test_an_earlier_result_is_kept(fruit):
    prepare.main([str(fruit), '--out', 'out', *TINY, '--val-per-class', '1'])
    with pytest.raises(SystemExit, match="'out' holds a data set already"):
        prepare.main([str(fruit), '--out', 'out', *TINY])
    prepare.main([str(fruit), '--out', 'out', *TINY, '--overwrite'])
    assert not Path('out/val.txt').exists()


def test_no_config_of_an_earlier_result_stays(fruit, tmp_path):
    own = ['--out', 'out', '--name', 'x']
    weights = [
        '--model',
        'mmlt-tiny-vit',
        '--pretrained',
        weight_file(str(tmp_path / 'w.safetensors'), 'mmlt-tiny-vit'),
    ]
    prepare.main([str(fruit), *own, *weights])
    base = Path('out/lift_x.py').read_text()
    Path('out/lift_mine.py').write_text(base)
    prepare.main([str(fruit), *own, '--overwrite', *TINY])
    assert not Path('out/lift_x.py').exists() and not Path('out/zeroshot_x.py').exists()
    assert Path('out/lift_mine.py').read_text() == base
    Path('out/lift_x.py').write_text('# somebody else wrote this\n')
    prepare.main([str(fruit), *own, '--overwrite', *TINY])
    assert Path('out/lift_x.py').exists()


def test_another_split_is_another_run(fruit):
    """The lists keep their names, and the configs would be the same."""
    runs = []
    for seed in (0, 0, 5):
        prepare.main([str(fruit), '--out', 'out', '--overwrite', '--seed', str(seed), *TINY])
        runs.append(decisive(Config.fromfile('out/ce_out.py')))
    assert runs[0] == runs[1]
    assert {k for k in runs[0] if runs[0][k] != runs[2][k]} == {'split_digest'}
    assert 'split_digest' not in decisive(Config(dict(model=dict(type='X'))))  # records of other configs stay valid


@pytest.mark.parametrize('kind', ['cut', 'another model', 'pickle', 'cut folder'])
def test_weights_that_do_not_fit_are_told_at_once(fruit, kind):
    weight_file('w.safetensors', 'mmlt-tiny-rn' if kind == 'another model' else 'mmlt-tiny-vit')
    options = ['--model', 'mmlt-tiny-vit', '--pretrained', 'w.safetensors']
    data = Path('w.safetensors').read_bytes()
    if kind == 'cut':
        Path('w.safetensors').write_bytes(data[: len(data) // 2])
    elif kind == 'pickle':
        torch.save(dict(weights=[1]), 'w.pt')
        options[-1] = 'w.pt'
    elif kind == 'cut folder':
        Path('clip').mkdir()
        config = dict(model_cfg=open_clip.get_model_config('mmlt-tiny-vit'), preprocess_cfg={})
        Path('clip/open_clip_config.json').write_text(json.dumps(config))
        Path('clip/open_clip_model.safetensors').write_bytes(data[: len(data) // 2])
        options = ['--model', 'local-dir:clip']
    with pytest.raises(SystemExit, match='mmlt: .*(do not fit|cannot be read|could not be loaded)'):
        prepare.main([str(fruit), '--out', 'out', *options])
    assert not Path('out').exists()


def test_activation_of_a_weight_file(fruit):
    """A file of bare weights does not say which one they were trained with."""
    options = ['--model', 'mmlt-tiny-vit', '--pretrained', weight_file('w.safetensors', 'mmlt-tiny-vit')]
    for out, more in (('a', []), ('b', ['--quick-gelu'])):
        prepare.main([str(fruit), '--out', out, *options, *more])
        cfg = Config.fromfile(f'{out}/zeroshot_{out}.py')
        assert cfg.model.backbone.quick_gelu == cfg.model.head.text.quick_gelu == bool(more)


def test_filled_templates():
    assert (
        fill_template('a = $a\n$a = $b\nc_${a}_c = $c$b\nd = $c$a\n', dict(a='1', b=None, c="'$b'"))
        == "a = 1\nd = '$b'1\n"
    )
    with pytest.raises(KeyError, match='c'):
        fill_template('a = $c', dict(a='1'))


@pytest.mark.parametrize('odd', ['it\'s "x"', "it's", '"', 'a\\b', '$name {x} ü', 'two\nlines'])
def test_any_text_can_stand_in_a_config(odd):
    tower = replace(probe('mmlt-tiny-vit', None), model=odd, pretrained=odd, scratch=False)
    settings = Settings('x', 3, 99, odd, odd, tower, odd, class_texts=odd)
    texts = starter_configs(settings, f'prepare {odd}')
    names = 'ballad_x ballad_x_phase-a ce_x dataset_x lift_x vlltr_x vlltr_x_cvlp zeroshot_x'
    assert sorted(texts) == [f'{name}.py' for name in names.split()]
    read = {}
    for file, text in texts.items():
        exec(compile(text, file, 'exec'), read.setdefault(file, {}))
    data, lift = read['dataset_x.py'], read['lift_x.py']
    assert data['train_dataloader']['dataset']['data_prefix'] == data['split_digest'] == odd
    assert lift['_base_'][0] == './dataset_x.py' and lift['_base_'][-1] == f'{odd}/default_runtime.py'
    assert lift['model']['backbone']['model'] == lift['model']['head']['text']['pretrained'] == odd


def test_every_placeholder_has_a_value_and_is_used():
    values = template_values(Settings('x', 3, 99, '/p', '/b', probe('mmlt-tiny-vit', None)), '')
    used = {
        name for path in TEMPLATES.iterdir() for name in re.findall(r'\$\{?(\w+)', path.read_text(encoding='utf-8'))
    }
    assert used == set(values)


@pytest.mark.parametrize(
    'weights, model', [('none', 'mmlt-tiny-rn'), ('file', 'mmlt-tiny-rn'), ('file', 'mmlt-tiny-vit')]
)
def test_configs_fit_together(fruit, weights, model, tmp_path, capsys):
    """Every config builds its model and reads its data; the stages hand over."""
    pretrained = 'none'
    if weights == 'file':
        # open_clip resizes the position embeddings of a Vision Transformer only.
        size = 64 if model == 'mmlt-tiny-rn' else None
        pretrained = weight_file(str(tmp_path / 'w.safetensors'), model, size)
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts' / 'plum.txt').write_text('A plum is a blue fruit with a stone.')
    options = ['--model', model, '--pretrained', pretrained, '--image-size', '64', '--texts', 'texts']
    prepare.main([str(fruit), '--out', 'out', '--name', 'my fruit', '--val-per-class', '1', *options])
    files = sorted(p.name for p in Path('out').glob('*.py'))
    methods = ['ballad_{}', 'ballad_{}_phase-a', 'ce_{}', 'dataset_{}', 'vlltr_{}', 'vlltr_{}_cvlp']
    if weights == 'file':
        methods.append('zeroshot_{}')  # random weights know nothing
    if model == 'mmlt-tiny-vit':
        methods.append('lift_{}')
    said = capsys.readouterr().out
    assert ('No configs for LIFT and zero-shot: they need pretrained weights' in said) == (weights == 'none')
    assert ("No config for LIFT: its adapters need a Vision Transformer, and 'mmlt-tiny-rn' has none." in said) == (
        weights == 'file' and model == 'mmlt-tiny-rn'
    )
    assert files == sorted(f'{m.format("my-fruit")}.py' for m in methods)
    init_default_scope('mmpretrain')
    cfgs = {p.stem: Config.fromfile(p) for p in Path('out').glob('*_*.py') if not p.stem.startswith('dataset')}
    for name, cfg in cfgs.items():
        cfg.work_dir = str(tmp_path / 'w')
        built = MODELS.build(cfg.model)
        assert np.ravel(built.backbone.visual.image_size).tolist() in ([64], [64, 64]), name
        preprocessor = MODELS.build(cfg.model.data_preprocessor)
        for split in ('train', 'val', 'test'):
            if (loader := cfg.get(f'{split}_dataloader')) is None:
                assert name.startswith('zeroshot')
                continue
            dataset = DATASETS.build(loader.dataset)
            assert dataset.metainfo['classes'] == ('apple', 'plum', 'red pear')
            assert dataset.metainfo['class_counts'] == [10, 1, 4]
            assert dataset.metainfo['class_texts'] == str(tmp_path / 'texts')
            assert Path(dataset.ann_file).name == f'{split}.txt'
            packed = dataset[0]
            assert packed['inputs'].shape == (3, 64, 64)
            assert preprocessor.mean.numel() == 3
            assert len(dataset) >= loader.batch_size or split != 'train'
    stages = {name: [s.cfg.filename for s in plan(cfg)] for name, cfg in cfgs.items()}
    assert [Path(f).stem for f in stages['vlltr_my-fruit']] == ['vlltr_my-fruit_cvlp', 'vlltr_my-fruit']
    assert [Path(f).stem for f in stages['ballad_my-fruit']] == ['ballad_my-fruit_phase-a', 'ballad_my-fruit']
    lgr, cvlp = cfgs['vlltr_my-fruit'].model, cfgs['vlltr_my-fruit_cvlp'].model
    assert lgr.head.num_classes == 3 and lgr.backbone.pretrained is None
    if weights == 'file':
        assert cvlp.teacher == dict(model=model, pretrained=pretrained, quick_gelu=False, image_size=64, compile='auto')
        assert lgr.backbone.frozen and not cvlp.backbone.get('frozen')
        assert cvlp.backbone.get('norm_eval', False) == (model == 'mmlt-tiny-rn')
    else:
        assert cvlp.teacher is None and cvlp.loss_ratio == 1
        assert not lgr.backbone.get('frozen') and not lgr.backbone.get('norm_eval')
    if model == 'mmlt-tiny-vit':
        lift = cfgs['lift_my-fruit']
        assert lift.model.backbone.adapter == dict(type='mmlt.AdaptFormer', num_classes=3, init='normal')
        assert (lift.model.head.in_channels, lift.model.head.num_classes) == (64, 3)
        assert lift.tta_pipeline[1].scale == 71 and lift.tta_model.type == 'mmlt.LogitTTA'


def test_folder_of_open_clip_brings_weights_and_statistics(fruit, tmp_path):
    config = dict(
        model_cfg=open_clip.get_model_config('mmlt-tiny-vit'),
        preprocess_cfg=dict(mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.1]),
    )
    (tmp_path / 'clip').mkdir()
    (tmp_path / 'clip/open_clip_config.json').write_text(json.dumps(config))
    clip = open_clip.create_model('mmlt-tiny-vit')
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, 'clip/open_clip_model.safetensors')
    prepare.main([str(fruit), '--out', 'out', '--model', 'local-dir:clip'])
    init_default_scope('mmpretrain')
    for name in ('lift_out', 'vlltr_out_cvlp', 'zeroshot_out'):
        cfg = Config.fromfile(f'out/{name}.py')
        assert cfg.model.data_preprocessor.mean == [127.5, 102.0, 76.5]
        assert cfg.model.data_preprocessor.std == [51.0, 51.0, 25.5]
        assert cfg.model.backbone.model == f'local-dir:{tmp_path / "clip"}'  # found from any folder
        built = MODELS.build(cfg.model)
        built.backbone.init_weights()
        assert torch.equal(built.backbone.visual.conv1.weight, clip.visual.conv1.weight)
    with pytest.raises(SystemExit, match="local-dir:clip' brings its weights: leave out --pretrained 'openai'"):
        prepare.main([str(fruit), '--out', 'x', '--model', 'local-dir:clip', '--pretrained', 'openai'])


def test_defaults_suit_the_data():
    tower = probe('mmlt-tiny-rn', None)

    def sizes(n, **kwargs):
        values = template_values(Settings('x', 3, n, '/p', '/b', tower, **kwargs), '')
        return [int(values[name]) for name in ('batch_size', 'epochs', 'interval', 'short_epochs', 'short_interval')]

    assert sizes(10) == [10, 50, 10, 10, 2]
    assert sizes(6400) == [64, 15, 3, 10, 2]
    assert sizes(10**6) == [64, 5, 1, 5, 1]
    assert sizes(6400, epochs=3, batch_size=32) == [32, 3, 1, 3, 1]
    for wrong, sentence in ((dict(epochs=0), 'epochs is 0'), (dict(batch_size=-1), 'batch_size is -1')):
        with pytest.raises(InputError, match=f'{sentence}; it must be positive'):
            sizes(10, **wrong)
    with pytest.raises(InputError, match='There are 1 training images'):
        sizes(1)
    with pytest.raises(InputError, match='image_size is 0; it must be positive'):
        probe('mmlt-tiny-rn', None, image_size=0)


def test_openai_weights_are_named_with_their_activation():
    tower = probe('RN50', 'openai')
    assert tower.quick_gelu and tower.batch_norm and tower.embed_dim == 1024 and tower.pixels == 224
    assert not tower.scratch and not tower.transformer and tower.width is None
    values = template_values(Settings('x', 3, 100, '/p', '/b', tower), '')
    assert (values['tower'], values['pretrained']) == ("model='RN50', quick_gelu=True, norm_eval=True", "'openai'")


@pytest.mark.slow
def test_from_digits_to_a_vlltr_result_in_two_commands(train_tool, tmp_path, monkeypatch):
    digits = pytest.importorskip('sklearn.datasets').load_digits()
    monkeypatch.chdir(tmp_path)
    names = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target)):
        path = tmp_path / 'pics' / f'digit_{names[label]}' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(path)
    prepare.main(['pics', '--out', 'data/digits', '--tail-ratio', '50', '--no-flip', '--epochs', '2', *TINY])
    result = train_tool.main(['data/digits/vlltr_digits.py', '--cfg-options', 'train_dataloader.num_workers=0'])
    assert 0 <= result['shot/all'] <= 100
    assert {'shot/many', 'shot/medium', 'shot/few'} <= result.keys()
    folder = Path('work_dirs/vlltr_digits')
    assert {p.name for p in folder.glob('*')} >= {'epoch_2.pth', 'shot_report.json', 'cvlp'}
    assert (folder / 'cvlp' / 'anchors.safetensors').is_file()


@pytest.mark.slow
def test_a_model_of_an_earlier_split_is_not_tested_on_another(train_tool, fruit):
    options = [str(fruit), '--out', 'out', '--name', 'x', '--epochs', '1', *TINY]
    train = ['out/ce_x.py', '--cfg-options', 'train_dataloader.num_workers=0', 'test_dataloader.num_workers=0']
    prepare.main(options)
    train_tool.main(train)
    prepare.main([*options, '--overwrite'])
    train_tool.main(train)  # the same split
    prepare.main([*options, '--overwrite', '--seed', '5'])
    with pytest.raises(SystemExit, match="'work_dirs/ce_x' holds a run of another config: split_digest was '"):
        train_tool.main(train)
    assert 0 <= train_tool.main([*train, '--restart'])['shot/all'] <= 100


@pytest.mark.slow
def test_every_method_trains_from_a_weight_file(train_tool, test_tool, fruit):
    torch.manual_seed(20)
    weight_file('w.safetensors', 'mmlt-tiny-vit')
    weights = ['--model', 'mmlt-tiny-vit', '--pretrained', 'w.safetensors']
    prepare.main([str(fruit), '--out', 'out', '--name', 'x', '--epochs', '1', '--batch-size', '8', *weights])
    lines = Path('out/dataset_x.py').read_text()
    Path('out/dataset_x.py').write_text(lines.replace("num_workers='auto'", 'num_workers=0'))
    for method in ('vlltr', 'ballad', 'ce', 'lift'):
        assert 0 <= train_tool.main([f'out/{method}_x.py'])['shot/all'] <= 100
    assert list(Path('work_dirs/vlltr_x/features').glob('*.safetensors'))
    assert 0 <= test_tool.main(['out/zeroshot_x.py'])['shot/all'] <= 100
    assert 0 <= test_tool.main(['out/lift_x.py', 'work_dirs/lift_x/epoch_1.pth', '--tta'])['shot/all'] <= 100
