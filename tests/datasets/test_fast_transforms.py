"""The fast transforms against MMPretrain's own: from the same random numbers the same crops, flips and colours."""

import io

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageEnhance

from mmlt import InputError
from mmlt.datasets import GrowingRandomResizedCrop, LoadPicture
from mmlt.datasets.deferred_picture import ANTIALIASED, DeferredPicture, resize_as_pillow
from mmlt.datasets.pictures import decode_picture
from mmlt.datasets.transforms import picture_pipeline
from mmlt.datasets.transforms.colours import adjust_brightness, adjust_contrast, adjust_saturation

CROP = dict(type='mmlt.RandomResizedCrop', scale=64, backend='pillow', interpolation='bicubic')
LOAD, PACK = dict(type='mmlt.LoadPicture'), dict(type='PackInputs')


def scene(height=150, width=200, seed=0):
    """Smooth colours of several scales, and noise, RGB."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120, np.float32)
    for cells, strength in ((4, 60), (16, 30), (50, 10)):
        image += strength * cv2.resize(
            rng.normal(size=(cells, cells, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
    image += rng.normal(scale=4, size=(height, width, 1)).astype(np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=90, **options)
    return buffer.getvalue()


def build(transform):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return TRANSFORMS.build(dict(transform))


def by_both(ours, image, seed):
    """Results and next random numbers of our transform and of MMPretrain's of the same settings."""
    found = []
    for transform in (ours, dict(ours, type=ours['type'].removeprefix('mmlt.'))):
        np.random.seed(seed)
        found.append((build(transform)(dict(img=image.copy())), np.random.random()))
    return found


def difference(a, b):
    return np.abs(a.astype(int) - b)


# Deferred pictures


@pytest.mark.parametrize('options', [{}, dict(progressive=True), dict(subsampling=0)])
def test_parts_of_jpegs_are_those_of_the_whole(options):
    for image in (scene(), scene()[..., 0]):
        data = jpeg(image, **(options if image.ndim == 3 else {}))
        deferred, whole = DeferredPicture(data, 'a.jpg'), decode_picture(data)
        assert deferred.shape == whole.shape
        assert np.array_equal(deferred.crop((20, 30, 70, 90)), whole[20:90, 30:120, ::-1])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turned_jpegs(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(scene(), exif=exif)
    deferred, whole = DeferredPicture(data, 'a.jpg'), decode_picture(data)
    assert deferred.shape == whole.shape == ((150, 200, 3) if orientation < 5 else (200, 150, 3))
    assert np.array_equal(deferred.crop((0, 0, *whole.shape[:2])), whole[..., ::-1])


@pytest.mark.parametrize(
    'mode, form', [('CMYK', 'JPEG'), ('RGBA', 'PNG'), ('LA', 'PNG'), ('P', 'GIF'), ('I;16', 'PNG')]
)
def test_other_forms_are_read_as_ever(mode, form):
    buffer = io.BytesIO()
    if mode == 'I;16':
        Image.fromarray(np.linspace(0, 65535, 4800).astype(np.uint16).reshape(60, 80)).save(buffer, form)
    else:
        Image.fromarray(scene(60, 80)).convert(mode).save(buffer, form)
    whole = decode_picture(buffer.getvalue())
    assert np.array_equal(DeferredPicture(buffer.getvalue(), 'a').crop((0, 0, 60, 80)), whole[..., ::-1])


def test_damaged_jpegs_are_named(tmp_path):
    data = jpeg(scene())
    path = tmp_path / 'cut.jpg'
    for kept in (len(data) // 2, len(data) - 2):
        path.write_bytes(data[:kept])
        with pytest.raises(InputError, match=r"'.*cut\.jpg' cannot be read \(OSError: image file is truncated"):
            Compose([build(t) for t in picture_pipeline([LOAD, CROP])])(dict(img_path=str(path)))
    path.write_bytes(data[:100])
    with pytest.raises(InputError, match=r"'.*cut\.jpg' cannot be read"):
        LoadPicture(defer=True)(dict(img_path=str(path)))


@pytest.mark.parametrize('box', [(0, 0, 1000, 1200), (101, 33, 701, 803), (7, 9, 300, 310)])
@pytest.mark.parametrize('interpolation', ANTIALIASED)
def test_scaled_decoding_differs_little(box, interpolation, monkeypatch):
    data, (top, left, height, width) = jpeg(scene(1000, 1200)), box
    shrinks = []
    scaled = DeferredPicture._scaled_crop
    monkeypatch.setattr(
        DeferredPicture, '_scaled_crop', lambda self, *args: shrinks.append(args[-1]) or scaled(self, *args)
    )
    found = DeferredPicture(data, 'a.jpg').resized_crop(box, (96, 112), interpolation)
    assert shrinks == [max(n for n in (1, 2, 4, 8) if height >= 96 * n and width >= 112 * n)]
    part = Image.fromarray(decode_picture(data)[top : top + height, left : left + width])
    expected = np.asarray(part.resize((112, 96), ANTIALIASED[interpolation]))[..., ::-1]
    assert found.shape == (96, 112, 3) and difference(found, expected).mean() <= 1.5


def test_small_pictures_and_small_parts_are_decoded_in_full_size(monkeypatch):
    monkeypatch.setattr(DeferredPicture, '_scaled_crop', None)
    DeferredPicture(jpeg(scene(900, 1000)), 'a').resized_crop((0, 0, 900, 1000), (64, 64), 'bilinear')
    DeferredPicture(jpeg(scene(1000, 1200)), 'a').resized_crop((0, 0, 127, 1200), (64, 64), 'bilinear')


@pytest.mark.parametrize('interpolation', ANTIALIASED)
@pytest.mark.parametrize('size', [(64, 64), (40, 200), (300, 301)])
def test_resizing_is_pillows(interpolation, size):
    """Both round between the two directions, each in its own order: so neither is nearer to exact numbers."""
    image = scene()[3:, 5:]
    method = ANTIALIASED[interpolation]
    exact = [np.asarray(Image.fromarray(x.astype(np.float32)).resize(size[::-1], method)) for x in cv2.split(image)]
    exact = np.stack(exact, -1).clip(0, 255)
    found = resize_as_pillow(image, size, interpolation)
    pillow = np.asarray(Image.fromarray(image).resize(size[::-1], method))
    off = found.astype(int) - pillow
    assert np.abs(off).max() <= 2 and abs(off.mean()) < 0.005
    assert np.abs(found - exact).mean() <= np.abs(pillow - exact).mean() + 0.002
    if 40 not in size:
        assert np.abs(off).mean() < 0.01


# Which loaders defer


def test_loaders_defer_before_a_crop_that_takes_it():
    growing = dict(type='mmlt.GrowingRandomResizedCrop', scale=8)
    for crop in (CROP, growing):
        assert picture_pipeline([LOAD, crop, PACK]) == [dict(LOAD, defer=True), crop, PACK]
        assert picture_pipeline([dict(type='LoadImageFromFile'), crop])[0] == dict(LOAD, defer=True)
    kept = [
        [LOAD, dict(CROP, type='RandomResizedCrop')],
        [LOAD, dict(type='mmlt.RandomFlip'), CROP],
        [dict(LOAD, defer=False), CROP],
        [dict(LOAD, to_float32=True), CROP],
        [LOAD],
    ]
    for pipeline in kept:
        assert picture_pipeline(pipeline) == pipeline
    with pytest.raises(InputError, match='no mmlt.RandomResizedCrop stands directly behind it'):
        picture_pipeline([dict(LOAD, defer=True), PACK])
    with pytest.raises(InputError, match='goes with neither to_float32 nor ignore_empty'):
        LoadPicture(defer=True, ignore_empty=True)


# The same random numbers


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize('deferred', [False, True])
def test_crops_are_mmpretrains(tmp_path, backend, deferred):
    path = tmp_path / 'a.jpg'
    path.write_bytes(jpeg(scene()))
    crop = dict(CROP, backend=backend)
    pipelines = [
        Compose([build(dict(LOAD, defer=deferred)), build(crop)]),
        Compose(
            [
                build(dict(type='LoadImageFromFile', imdecode_backend='pillow')),
                build(dict(crop, type='RandomResizedCrop')),
            ]
        ),
    ]
    for seed in range(20):
        found = []
        for pipeline in pipelines:
            np.random.seed(seed)
            found.append((pipeline(dict(img_path=str(path))), np.random.random()))
        (ours, after), (theirs, expected) = found
        assert after == expected and ours['img_shape'] == theirs['img_shape']
        assert difference(ours['img'], theirs['img']).max() <= (2 if backend == 'pillow' else 0)


@pytest.mark.parametrize('square', [False, True])
def test_growing_crops_take_deferred_pictures(square):
    data = jpeg(scene())
    crop = GrowingRandomResizedCrop(64, square=square, backend='pillow', interpolation='bicubic')
    crop.set_epoch(2, 5)
    found = []
    for image in (DeferredPicture(data, 'a'), decode_picture(data)[..., ::-1]):
        np.random.seed(1)
        found.append(crop(dict(img=image))['img'])
    assert np.array_equal(*found)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal', ['horizontal', 'vertical']])
def test_flips_are_mmcvs(direction):
    flip = dict(type='mmlt.RandomFlip', prob=0.5, direction=direction)
    flipped = set()
    for seed in range(40):
        for image in (scene(12, 15), scene(12, 15)[..., :1]):
            (ours, after), (theirs, expected) = by_both(flip, image, seed)
            assert after == expected and np.array_equal(ours['img'], theirs['img'])
            assert (ours['flip'], ours['flip_direction']) == (theirs['flip'], theirs['flip_direction'])
            assert ours['img'].flags.c_contiguous
            flipped.add(ours['flip_direction'])
    assert len(flipped) == (3 if isinstance(direction, list) else 2)


@pytest.mark.parametrize('factor', [0.0, 0.35, 0.6, 1.0, 1.27, 1.4])
@pytest.mark.parametrize(
    'ours, theirs, most',
    [
        (adjust_brightness, ImageEnhance.Brightness, 0),
        (adjust_contrast, ImageEnhance.Contrast, 0),
        (adjust_saturation, ImageEnhance.Color, 2),
    ],
)
def test_colours_are_pillows(ours, theirs, most, factor):
    for seed in range(3):
        image = scene(seed=seed)
        expected = np.asarray(theirs(Image.fromarray(image)).enhance(factor))
        off = difference(ours(np.ascontiguousarray(image[..., ::-1]), factor)[..., ::-1], expected)
        assert off.max() <= most and off.mean() < 0.05


def test_jitter_is_mmpretrains():
    jitter = dict(type='mmlt.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
    for seed in range(30):
        (ours, after), (theirs, expected) = by_both(jitter, scene(), seed)
        assert after == expected and difference(ours['img'], theirs['img']).mean() < 0.5
        assert difference(ours['img'], theirs['img']).max() <= 4


@pytest.mark.parametrize('image', [scene(), np.full((9, 8, 3), 7, np.uint8), scene(3, 4)])
def test_rand_augment_is_mmpretrains(image):
    settings = dict(policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9, magnitude_std=0.5)
    settings['hparams'] = dict(pad_val=[104, 117, 123], interpolation='bicubic')
    changed = 0
    for seed in range(150):
        (ours, after), (theirs, expected) = by_both(dict(type='mmlt.RandAugment', **settings), image, seed)
        assert after == expected and np.array_equal(ours['img'], theirs['img'])
        changed += not np.array_equal(ours['img'], image)
    assert changed > 50
