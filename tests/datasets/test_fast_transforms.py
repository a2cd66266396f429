"""The fast transforms against MMPretrain's own: from the same random numbers the same crops, flips and colours."""

import io
from importlib.metadata import version

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms as torchvision
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.utils import digit_version
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


def kernel(interpolation, x):
    x = np.abs(x)
    if interpolation == 'bilinear':
        return np.clip(1 - x, 0, None)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))


def weights(old, new, interpolation):
    """(new, old): of how much of every pixel of a line a new one is made, antialiased."""
    step = old / new
    wide = max(step, 1)
    centres = (np.arange(new)[:, None] + 0.5) * step - 0.5
    found = kernel(interpolation, (np.arange(old) - centres) / wide)
    return found / found.sum(1, keepdims=True)


def resized(image, size, interpolation, order):
    """In float64, one direction after the other, rounded to 8 bits after each."""
    found = image.astype(float)
    for axis in order:
        table = weights(image.shape[axis], size[axis], interpolation)
        found = np.moveaxis(np.tensordot(table, found, (1, axis)), 0, axis)
        found = np.floor(found.clip(0, 255) + 0.5)
    return found


@pytest.mark.parametrize('interpolation', ANTIALIASED)
@pytest.mark.parametrize('size', [(64, 64), (40, 200), (300, 301), (200, 40)])
def test_resizing_is_pillows(interpolation, size):
    """All of the difference is the order: ours is lines first, Pillow's at times columns first."""
    image = scene()[3:, 5:]
    pillow = np.asarray(Image.fromarray(image).resize(size[::-1], ANTIALIASED[interpolation]))
    ours = resize_as_pillow(image, size, interpolation)
    lines, columns = (resized(image, size, interpolation, order) for order in ((1, 0), (0, 1)))
    for found, expected in ((ours, [lines]), (pillow, [lines, columns])):
        off = [difference(found, e) for e in expected]
        assert min(o.mean() for o in off) < 0.01 and min(o.max() for o in off) <= 1
    assert difference(ours, pillow).max() <= 2 and abs((ours.astype(int) - pillow).mean()) < 0.005


@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize('damage', ['bits', 'a hole', 'zeros'])
@pytest.mark.parametrize('shape', [(150, 200), (1000, 1200)])
def test_damaged_jpegs_are_what_pillow_makes_of_them(progressive, damage, shape):
    if progressive and damage != 'bits' and digit_version(version('torchvision')) < digit_version('0.22'):
        pytest.skip('its libjpeg makes up the missing parts of progressive pictures otherwise than that of Pillow')
    rng, box = np.random.default_rng(0), (0, 0, *shape)
    sound = jpeg(scene(*shape), progressive=progressive)
    for _ in range(5 if shape[0] < 1000 else 2):
        data, start = bytearray(sound), int(rng.integers(len(sound) // 4, len(sound) // 2))
        part = slice(start, start + len(sound) // 4)
        if damage == 'a hole':
            del data[part]
        elif damage == 'zeros':
            data[part] = bytes(len(sound) // 4)
        else:
            for i in rng.integers(len(sound) // 4, len(sound) - 2, 5):
                data[i] ^= 1 << int(rng.integers(8))
        try:
            expected = decode_picture(bytes(data))
        except Exception:
            for read in (lambda d: d.crop(box), lambda d: d.resized_crop(box, (64, 64), 'bilinear')):
                with pytest.raises(InputError, match="'a.jpg' cannot be read"):
                    read(DeferredPicture(bytes(data), 'a.jpg'))
        else:
            assert np.array_equal(DeferredPicture(bytes(data), 'a.jpg').crop(box), expected[..., ::-1])


def test_large_jpegs_that_end_early_are_named():
    data = jpeg(scene(1000, 1200))
    for kept in (len(data) // 2, len(data) - 2):
        for size in ((64, 64), (300, 300), (600, 800)):
            with pytest.raises(InputError, match=r"'a\.jpg' cannot be read \(OSError: image file is truncated"):
                DeferredPicture(data[:kept], 'a.jpg').resized_crop((0, 0, 1000, 1200), size, 'bicubic')


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


# The same distribution as torchvision's, which draws other random numbers


def apart(a, b):
    """Kolmogorov and Smirnov's distance of two samples, as a multiple of what one in a hundred pairs exceeds."""
    a, b = np.sort(a), np.sort(b)
    both = np.concatenate([a, b])
    distance = np.abs(np.searchsorted(a, both, 'right') / len(a) - np.searchsorted(b, both, 'right') / len(b)).max()
    return distance / (1.628 * np.sqrt(1 / len(a) + 1 / len(b)))


@pytest.mark.parametrize('shape', [(150, 200), (200, 150), (60, 300)])
@pytest.mark.parametrize('area', [(0.08, 1.0), (0.5, 1.0)])
def test_crops_are_distributed_as_torchvisions(shape, area):
    number, (height, width) = 3000, shape
    np.random.seed(0)
    torch.manual_seed(0)
    crop, image = build(dict(CROP, crop_ratio_range=area)), scene(*shape)
    ours = np.array([crop.rand_crop_params(image) for _ in range(number)])
    empty = torch.empty(3, *shape)
    theirs = [torchvision.RandomResizedCrop.get_params(empty, area, (3 / 4, 4 / 3)) for _ in range(number)]
    measures = [
        lambda box: box[:, 2] * box[:, 3] / (height * width),
        lambda box: box[:, 3] / box[:, 2],
        lambda box: (box[:, 0] + box[:, 2] / 2) / height,
        lambda box: (box[:, 1] + box[:, 3] / 2) / width,
    ]
    for measure in measures:
        assert apart(measure(ours), measure(np.array(theirs))) < 1.2
    other = build(dict(CROP, crop_ratio_range=(area[0] - 0.05, 1.0)))
    moved = np.array([other.rand_crop_params(image) for _ in range(number)])
    if shape != (60, 300):  # where most crops are the middle
        assert apart(measures[0](moved), measures[0](np.array(theirs))) > 1.2  # what the bound can tell


def test_flips_are_as_frequent_as_torchvisions():
    np.random.seed(0)
    for prob in (0.5, 0.2):
        flip = build(dict(type='mmlt.RandomFlip', prob=prob, direction='horizontal'))
        rate = np.mean([flip._choose_direction() is not None for _ in range(4000)])
        assert abs(rate - prob) < 3 * np.sqrt(prob * (1 - prob) / 4000)


def test_colours_are_distributed_as_torchvisions():
    np.random.seed(0)
    torch.manual_seed(0)
    strength = dict(brightness=0.4, contrast=0.3, saturation=0.2)
    jitter, reference = build(dict(type='mmlt.ColorJitter', **strength)), torchvision.ColorJitter(**strength)
    ours = [jitter._rand_params() for _ in range(3000)]
    theirs = [
        reference.get_params(reference.brightness, reference.contrast, reference.saturation, None) for _ in range(3000)
    ]
    for i, width in enumerate((0.4, 0.3, 0.2), 1):
        found, expected = (np.array([p[i] for p in params]) for params in (ours, theirs))
        assert apart(found, expected) < 1.2
        assert np.abs(found - 1).max() <= width and apart(1 + (found - 1) * 1.2, expected) > 1.2
    # Hue changes nothing here: which of the other three comes when is all of the order.
    orders = [[tuple(i for i in map(int, p[0]) if i != 3) for p in params] for params in (ours, theirs)]
    for order in set(orders[0]) | set(orders[1]):
        shares = [found.count(order) / 3000 for found in orders]
        assert all(abs(share - 1 / 6) < 4 * np.sqrt(5 / 36 / 3000) for share in shares)
