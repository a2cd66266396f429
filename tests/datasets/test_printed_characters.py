"""Printed characters: nothing but seed and index decide, and every picture shows something."""

import numpy as np
import pytest
from PIL import ImageFont

from mmlt.datasets import PrintedCharacters
from mmlt.datasets.embedded.printed_characters import CHARACTERS, describe_character, font_files, render_character
from mmlt.registry import DATASETS

WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


def make(num_samples=300, **kwargs) -> PrintedCharacters:
    return PrintedCharacters(num_samples, serialize_data=False, **kwargs)


def samples(dataset, indices) -> list:
    infos = [dataset.get_data_info(i) for i in indices]
    return [(i['img'].tobytes(), i['gt_label'], i['caption'], i['font']) for i in infos]


def test_characters_are_digits_and_both_cases():
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 62
    assert make(1).metainfo['classes'] == tuple(CHARACTERS)
    assert CHARACTERS[:10] == '0123456789'


def test_deterministic_in_any_order():
    a, b = make(), make()
    order = np.random.default_rng(0).permutation(300)
    assert samples(a, range(300)) == [s for _, s in sorted(zip(order, samples(b, order)))]
    assert samples(a, [7, 7]) == samples(a, [7]) * 2
    np.random.seed(5)  # the global state plays no part
    assert samples(a, [7]) == samples(b, [7])


def test_seeds_differ():
    a, b = samples(make(), range(300)), samples(make(seed=1), range(300))
    same = np.mean([[x == y for x, y in zip(s, t)] for s, t in zip(a, b)], axis=0)
    assert (same < 0.2).all()  # pictures, labels, captions, fonts: by chance only


def test_seeds_differ_where_character_and_font_are_the_same():
    a, b = make(6000), make(6000, seed=1)
    same = [
        i
        for i, (x, y) in enumerate(zip(a.data_list, b.data_list))
        if (x['gt_label'], x['font']) == (y['gt_label'], y['font']) and a.get_data_info(i)['img'].any()
    ]
    assert same
    assert all((a.get_data_info(i)['img'] != b.get_data_info(i)['img']).any() for i in same)


def test_pictures_of_one_dataset_differ():
    blank = np.zeros((28, 28, 3), np.uint8).tobytes()
    shown = [p for p, *_ in samples(make(), range(300)) if p != blank]
    assert len(set(shown)) == len(shown)


def test_all_characters_and_fonts_come_about_equally_often():
    dataset = make(12000)
    labels = dataset.get_gt_labels()
    assert len(labels) == len(dataset) == 12000
    counts = np.bincount(labels, minlength=62)
    expected = 12000 / 62
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()
    fonts = [dataset.data_list[i]['font'] for i in range(12000)]
    _, counts = np.unique(fonts, return_counts=True)
    assert len(counts) == len(font_files())
    expected = 12000 / len(counts)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_labels_without_drawing_are_those_of_the_samples():
    for serialize in (True, False):
        dataset = PrintedCharacters(100, serialize_data=serialize)
        assert dataset.get_gt_labels().tolist() == [dataset.get_data_info(i)['gt_label'] for i in range(100)]


@pytest.mark.parametrize('font', font_files(), ids=lambda f: f.stem)
def test_every_character_shows_something_in_every_font(font):
    for i, character in enumerate(CHARACTERS):
        image = render_character(character, font, np.random.default_rng(i))
        assert image.shape == (28, 28) and image.dtype == np.uint8
        assert image.max() > 100, f'{character!r} is blank'
        # Between a thin 'i' or 'l' and a full picture.
        assert 15 <= (image > 50).sum() <= 28 * 28 * 0.7, f'{character!r} covers {(image > 50).sum()} pixels'


@pytest.mark.parametrize('font', font_files(), ids=lambda f: f.stem)
def test_every_font_has_every_character(font):
    face = ImageFont.truetype(str(font), 24)
    missing = bytes(face.getmask('\uffff'))  # the sign for characters that a font lacks
    assert [c for c in CHARACTERS if bytes(face.getmask(c)) == missing] == []
    digits = {bytes(face.getmask(c)) for c in '0123456789'}
    assert len(digits) == 10


def test_pictures_of_a_character_vary_but_resemble_each_other():
    font = next(f for f in font_files() if f.stem == 'DejaVuSans')
    rng = np.random.default_rng(0)

    def draw(character):
        return np.stack([render_character(character, font, rng).ravel() / 255.0 for _ in range(60)])

    ones, zeros = draw('1'), draw('0')
    assert len({row.tobytes() for row in ones}) == 60

    def distance(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).mean()

    assert distance(zeros[:30], zeros[30:]) < distance(zeros, ones)
    assert distance(ones[:30], ones[30:]) < distance(zeros, ones)


@pytest.mark.parametrize('digit', range(10))
def test_captions_of_digits_name_the_right_digit(digit):
    rng = np.random.default_rng(digit)
    fonts = font_files()
    captions = [describe_character(str(digit), fonts[i % len(fonts)], rng) for i in range(400)]
    for caption in captions:
        words = caption.split()
        named = [w for w in words if w in WORDS or w.isdigit()]
        assert named in ([WORDS[digit]], [str(digit)]), caption
    for phrase in (f'digit {WORDS[digit]}', f'number {WORDS[digit]}', f'numeral {digit}'):
        assert any(c.endswith(phrase) for c in captions)


def test_captions_of_the_dataset_name_the_right_character():
    dataset = make(2000)
    for info in dataset.data_list:
        character = CHARACTERS[info['gt_label']]
        last = info['caption'].split()[-1]
        if character.isdigit():
            assert last in (WORDS[int(character)], character)
        else:
            size = 'capital' if character.isupper() else 'small'
            assert info['caption'].endswith(f'{size} letter {character.lower()}')


def test_captions_name_styles_only_of_fonts_that_have_them():
    rng = np.random.default_rng(0)
    by_name = {f.stem: f for f in font_files()}

    def words(stem):
        return {w for _ in range(200) for w in describe_character('7', by_name[stem], rng).split()}

    assert {'bold', 'oblique', 'typewriter'} <= words('DejaVuSansMono-BoldOblique')
    assert 'serif' in words('DejaVuSerif')
    assert not words('DejaVuSerif') & {'bold', 'oblique', 'italic', 'typewriter', 'sans'}
    assert not words('cmr10') & {'bold', 'oblique', 'italic', 'typewriter', 'sans', 'serif'}


def test_registered_with_pipeline():
    keys = ['caption']
    pipeline = [dict(type='PackInputs', algorithm_keys=keys)]
    dataset = DATASETS.build(dict(type='mmlt.PrintedCharacters', num_samples=5, pipeline=pipeline))
    sample = dataset[3]
    assert sample['inputs'].shape == (3, 28, 28)
    assert sample['data_samples'].caption == dataset.get_data_info(3)['caption']
    assert f'{len(font_files())}' in repr(dataset)
