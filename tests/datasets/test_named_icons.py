"""Named icons: nothing but seed and index decide, captions fit, every icon shows something."""

import importlib.util
import json
from collections import Counter

import numpy as np
import pytest

from mmlt import InputError
from mmlt.datasets import NamedIcons
from mmlt.datasets.embedded import named_icons
from mmlt.datasets.embedded.named_icons import (
    FONT_STYLES,
    KIND_FILE,
    describe_icon,
    icon_kind,
    icon_masks,
    icon_name,
    icon_table,
    render_icon,
)
from mmlt.datasets.embedded.twemoji_lt import CLASS_FILE
from mmlt.registry import DATASETS

pytestmark = pytest.mark.skipif(importlib.util.find_spec('qtawesome') is None, reason="pip install 'mmlt[demo]'")


def make(num_samples=200, **kwargs) -> NamedIcons:
    return NamedIcons(num_samples, serialize_data=False, **kwargs)


def samples(dataset, indices) -> list:
    infos = [dataset.get_data_info(i) for i in indices]
    return [(i['img'].tobytes(), i['gt_label'], i['caption'], i['code']) for i in infos]


@pytest.mark.parametrize(
    ('font', 'key', 'name'),
    [
        ('materialdesignicons6', 'airplane-takeoff', 'airplane takeoff'),
        ('materialdesignicons6', 'heart-off-outline', 'heart'),
        ('materialdesignicons6', 'format-bold', 'format bold'),
        ('phosphor', 'airplane-duotone', 'airplane duotone'),
        ('phosphor', 'bug-bold', 'bug'),
        ('remixicon', 'delete-bin-2-fill', 'delete bin'),
        ('remixicon', 'line', 'line'),  # nothing else would be left
    ],
)
def test_names(font, key, name):
    assert icon_name(key, FONT_STYLES[font]) == name


def test_kind_is_that_of_the_first_word_that_tells():
    kinds = dict(dog='animal', house='building')
    assert icon_kind('dog house', kinds) == 'animal'
    assert icon_kind('big house dog', kinds) == 'building'
    assert icon_kind('hotdog', kinds) is None


def test_kinds_are_classes_and_share_no_word():
    kinds = json.loads(KIND_FILE.read_text())
    assert set(kinds) <= set(json.loads(CLASS_FILE.read_text()))
    words = [w for words in kinds.values() for w in words.split()]
    assert len(set(words)) == len(words)
    used = Counter(icon['kind'] for icon in icon_table())
    assert all(used[kind] >= 5 for kind in kinds)
    assert set(words) <= {w for icon in icon_table() for w in icon['name'].split()}


def test_icons_of_all_fonts_without_brands():
    icons = icon_table()
    fonts = Counter(next(f for f in FONT_STYLES if f in icon['font']) for icon in icons)
    assert set(fonts) == set(FONT_STYLES) and min(fonts.values()) > 100
    assert not any('brands' in icon['font'] for icon in icons)
    assert not any('logo' in icon['name'].split() for icon in icons)
    assert 12000 < len(icons) < 16000


def test_every_icon_shows_something():
    for icon in icon_table()[::7]:
        strokes, filled = icon_masks(icon['font'], icon['code'])
        assert strokes.shape == filled.shape == (64, 64)
        assert (strokes > 128).sum() >= 40, icon
        assert (filled >= strokes).all()
        columns, rows = (np.flatnonzero((strokes > 20).any(axis)) for axis in (0, 1))
        assert 50 <= max(np.ptp(columns), np.ptp(rows)) <= 60, icon


def test_masks_fill_what_is_enclosed():
    icon = next(i for i in icon_table() if i['name'] == 'circle' and 'phosphor' in i['font'])
    strokes, filled = icon_masks(icon['font'], icon['code'])
    assert strokes[32, 32] == 0 and filled[32, 32] == 255
    assert strokes[1, 1] == filled[1, 1] == 0


def test_pictures_vary_in_colour_and_are_light_in_most_cases():
    icon = next(i for i in icon_table() if i['name'] == 'heart')
    rng = np.random.default_rng(0)
    images = np.stack([render_icon(icon['font'], icon['code'], rng) for _ in range(200)])
    assert images.shape == (200, 32, 32, 3) and images.dtype == np.uint8
    assert len({i.tobytes() for i in images}) == 200
    corners = images[:, 0, 0].astype(int)
    assert 0.6 <= (corners.min(1) >= 250).mean() <= 0.85
    assert 0.8 <= (corners.max(1) >= 200).mean() <= 0.97
    assert (images.std((1, 2)).max(1) > 8).mean() > 0.95  # the heart is seen
    assert np.abs(images.astype(int)[..., 0] - images[..., 2]).max((1, 2)).mean() > 50  # in colour
    assert render_icon(icon['font'], icon['code'], rng, 48).shape == (48, 48, 3)


def test_captions():
    rng = np.random.default_rng(0)
    captions = {describe_icon('airplane takeoff', 'aircraft', rng) for _ in range(500)}
    assert 'a picture of an airplane takeoff' in captions
    assert 'an icon of the airplane takeoff, an aircraft' in captions
    assert 'a picture of the aircraft' in captions
    assert len(captions) == 15
    captions = {describe_icon('timeline', None, rng) for _ in range(200)}
    assert len(captions) == 5 and all(c.endswith('timeline') for c in captions)


def test_captions_of_the_dataset_fit_their_labels():
    dataset = make(3000)
    classes, by_code = dataset.metainfo['classes'], {}
    for icon in icon_table():
        by_code.setdefault((icon['font'], icon['code']), []).append(icon)
    for info in dataset.data_list:
        thing = classes[info['gt_label']]
        icons = by_code[info['font'], info['code']]
        assert any((i['kind'] or i['name']) == thing for i in icons)
        assert any(i['name'] in info['caption'] or (i['kind'] or '-') in info['caption'] for i in icons)


def test_rare_kinds_are_drawn_more_often():
    dataset, icons = make(20000), icon_table()
    classes = dataset.metainfo['classes']
    drawn = Counter(classes[y] for y in dataset.get_gt_labels())
    there = Counter(icon['kind'] for icon in icons)
    assert drawn['boat'] / there['boat'] > 4 * drawn['everyday object'] / there['everyday object']
    assert all(drawn[kind] > 100 for kind in json.loads(KIND_FILE.read_text()))


def test_deterministic_in_any_order():
    a, b = make(), make()
    order = np.random.default_rng(0).permutation(200)
    assert samples(a, range(200)) == [s for _, s in sorted(zip(order, samples(b, order)))]
    np.random.seed(5)  # the global state plays no part
    assert samples(a, [7, 7]) == samples(b, [7]) * 2


def test_seeds_differ():
    a, b = samples(make(), range(200)), samples(make(seed=1), range(200))
    same = np.mean([[x == y for x, y in zip(s, t)] for s, t in zip(a, b)], axis=0)
    assert (same < 0.1).all()


def test_labels_without_drawing_are_those_of_the_samples():
    for serialize in (True, False):
        dataset = NamedIcons(50, serialize_data=serialize)
        assert dataset.get_gt_labels().tolist() == [dataset.get_data_info(i)['gt_label'] for i in range(50)]


@pytest.fixture
def empty_cache():
    icon_table.cache_clear()
    yield
    icon_table.cache_clear()


def test_names_the_missing_package(monkeypatch, empty_cache):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(
        InputError, match=r"NamedIcons reads from the package qtawesome: run pip install 'mmlt\[demo\]'"
    ):
        make()


def test_names_the_missing_font(monkeypatch, empty_cache, tmp_path):
    monkeypatch.setattr(named_icons, 'package_folder', lambda name, reader: tmp_path)
    with pytest.raises(InputError, match="has no font 'fontawesome6-regular'"):
        make()


def test_registered_with_pipeline():
    pipeline = [dict(type='PackInputs', algorithm_keys=['caption'])]
    dataset = DATASETS.build(dict(type='mmlt.NamedIcons', num_samples=5, image_size=40, pipeline=pipeline))
    sample = dataset[3]
    assert sample['inputs'].shape == (3, 40, 40)
    assert sample['data_samples'].caption == dataset.get_data_info(3)['caption']
    assert f'{len(icon_table())}' in repr(dataset)
