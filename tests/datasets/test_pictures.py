"""Pictures of every stored form as 8-bit RGB, and the forms that are refused."""

import io
import struct
import zlib

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image, ImageCms

from mmlt import InputError
from mmlt.datasets.pictures import PICTURE_SUFFIXES, array_to_8bit, decode_picture, picture_error, to_rgb

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
DEEP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def stored(image, form='PNG', **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def rgb(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, -1)


def by_cv2(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize('form, options', [('PNG', {}), ('TIFF', {}), ('JPEG2000', {})])
def test_16_bit_grey_is_what_opencv_reads_in_colour(form, options):
    data = stored(Image.fromarray(DEEP), form, **options)
    assert np.array_equal(decode_picture(data), rgb(DEEP >> 8))
    assert np.array_equal(decode_picture(data), by_cv2(data))


@pytest.mark.parametrize('suffix', ['.png', '.pgm', '.tiff'])
def test_16_bit_files_of_opencv(suffix):
    data = cv2.imencode(suffix, DEEP)[1].tobytes()
    assert np.array_equal(decode_picture(data), by_cv2(data))
    assert len(np.unique(decode_picture(data))) == 64  # none saturates


@pytest.mark.parametrize('suffix', ['.png', '.ppm', '.tiff'])
def test_16_bit_colour_has_opencvs_values(suffix):
    values = RNG.integers(0, 65536, (16, 16, 3)).astype(np.uint16)
    data = cv2.imencode(suffix, values)[1].tobytes()
    assert np.abs(decode_picture(data).astype(int) - by_cv2(data)).max() <= 1


@pytest.mark.parametrize('mode', ['I;16', 'I;16B', 'I;16L'])
def test_16_bit_modes(mode):
    order = '>u2' if mode == 'I;16B' else '<u2'
    image = Image.frombytes(mode, (8, 8), DEEP.astype(order).tobytes())
    assert np.array_equal(to_rgb(image), rgb(DEEP >> 8))


def tiff(data, size, bits, photometric=1, sample_format=1) -> bytes:
    """A TIFF of one strip of grey, little-endian."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: photometric, 277: 1, 278: size[1], 339: sample_format}
    tags |= {273: 8 + 2 + 12 * (len(tags) + 2) + 4, 279: len(data)}
    entries = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b'II*\0' + struct.pack('<IH', 8, len(tags)) + entries + struct.pack('<I', 0) + data


def test_tiffs_whose_white_is_zero_or_that_have_12_bits():
    data = tiff(DEEP.tobytes(), (8, 8), 16, photometric=0)
    assert np.array_equal(decode_picture(data), rgb(255 - (DEEP >> 8)))
    values = DEEP >> 4
    pairs = values.reshape(-1, 2).astype(int)
    packed = bytes(b for x, y in pairs for b in (x >> 4, (x & 15) << 4 | y >> 8, y & 255))
    assert np.array_equal(decode_picture(tiff(packed, (8, 8), 12)), rgb(values >> 4))


def test_floating_point_is_taken_in_0_to_1():
    values = (GREY / 255).astype(np.float32)
    assert np.array_equal(decode_picture(stored(Image.fromarray(values), 'TIFF')), rgb(GREY))
    for wrong, told in (
        (GREY.astype(np.float32), 'from 1 to 245'),
        (values - 0.5, 'from -0.49'),
        (values * np.nan, 'from nan'),
    ):
        with pytest.raises(InputError, match=rf'floating-point values go {told}.*must be in \[0, 1\]: rescale'):
            decode_picture(stored(Image.fromarray(wrong.astype(np.float32)), 'TIFF'))


@pytest.mark.parametrize('sample_format, dtype', [(1, np.uint32), (2, np.int32)])
def test_32_bit_whole_numbers_are_refused(sample_format, dtype):
    data = tiff(DEEP.astype(dtype).tobytes(), (8, 8), 32, sample_format=sample_format)
    with pytest.raises(InputError, match='32-bit whole numbers, which do not tell what is white: save it with 8 or 16'):
        decode_picture(data)
    assert picture_error(data).startswith('it has 32-bit')


def on_white(colour, alpha):
    return np.rint(colour * (alpha / 255.0) + 255 * (1 - alpha / 255.0)).astype(int)


@pytest.mark.parametrize('mode, form', [('RGBA', 'PNG'), ('LA', 'PNG'), ('RGBA', 'TIFF'), ('RGBA', 'WEBP')])
def test_alpha_is_put_on_white(mode, form):
    alpha = RNG.integers(0, 256, (6, 8, 1), dtype=np.uint8)
    alpha[0] = 0
    values = np.concatenate([COLOUR if mode == 'RGBA' else GREY[..., None], alpha], -1)
    read = decode_picture(
        stored(Image.fromarray(values), form, **(dict(lossless=True, exact=True) if form == 'WEBP' else {}))
    )
    assert np.abs(read - on_white(values[..., :-1].astype(float), alpha)).max() <= 1
    assert (read[0] == 255).all()


def test_palettes_and_transparent_colours():
    image = Image.fromarray(COLOUR).quantize(4)
    plain = np.asarray(image.convert('RGB'))
    assert np.array_equal(decode_picture(stored(image)), plain)
    index = int(np.asarray(image)[2, 3])
    expected = np.where((np.asarray(image) == index)[..., None], 255, plain)
    for form in ('PNG', 'GIF'):
        assert np.array_equal(decode_picture(stored(image, form, transparency=index)), expected)
    several = bytes(range(0, 256, 85))  # an alpha of its own for every colour
    alpha = np.frombuffer(several, np.uint8)[np.asarray(image)][..., None]
    assert np.abs(decode_picture(stored(image, transparency=several)) - on_white(plain.astype(float), alpha)).max() <= 1
    key = int(GREY[1, 1])
    assert np.array_equal(
        decode_picture(stored(Image.fromarray(GREY), transparency=key)), rgb(np.where(key == GREY, 255, GREY))
    )
    key = tuple(COLOUR[1, 1].tolist())
    read = decode_picture(stored(Image.fromarray(COLOUR), transparency=key))
    assert (read[1, 1] == 255).all() and np.array_equal(read[2], COLOUR[2])


def png_16(values, key=None) -> bytes:
    """A PNG of 16 bits, written by hand: with a transparent colour, or with alpha."""

    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    channels = values.shape[-1]
    header = struct.pack('>IIBBBBB', values.shape[1], values.shape[0], 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b''.join(b'\0' + line.astype('>u2').tobytes() for line in values)
    parts = [(b'IHDR', header), (b'IDAT', zlib.compress(lines)), (b'IEND', b'')]
    if key is not None:
        parts.insert(1, (b'tRNS', np.array(key, '>u2').tobytes()))
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


def test_transparency_of_16_bits():
    grey = DEEP[..., None]
    read = decode_picture(png_16(grey, [DEEP[3, 4]]))
    assert (read[3, 4] == 255).all() and np.array_equal(read[:3], rgb(DEEP >> 8)[:3])
    read = decode_picture(png_16(np.repeat(grey, 3, -1), [DEEP[3, 4]] * 3))
    assert (read[3, 4] == 255).all() and np.array_equal(read[:3], rgb(DEEP >> 8)[:3])
    for channels in (2, 4):
        values = np.concatenate([np.repeat(grey, channels - 1, -1), np.full_like(grey, 32896)], -1)
        expected = on_white(rgb(DEEP >> 8).astype(float), np.full((8, 8, 1), 128))
        assert np.abs(decode_picture(png_16(values)) - expected).max() <= 1


def test_other_colour_spaces():
    image = Image.fromarray(COLOUR)
    assert np.array_equal(to_rgb(image.convert('CMYK')), COLOUR)
    assert np.array_equal(decode_picture(stored(image.convert('CMYK'), 'TIFF')), COLOUR)
    for mode, difference in (('YCbCr', 3), ('HSV', 8)):
        assert np.abs(to_rgb(image.convert(mode)).astype(int) - COLOUR).max() <= difference
    srgb, lab = map(ImageCms.createProfile, ('sRGB', 'LAB'))
    near_grey = Image.fromarray((COLOUR // 8 + 100).astype(np.uint8))  # no colours that 8-bit LAB lacks
    converted = ImageCms.profileToProfile(near_grey, srgb, lab, outputMode='LAB')
    read = decode_picture(stored(converted, 'TIFF')).astype(int)
    assert np.abs(read - np.asarray(near_grey)).max() <= 4
    bits = Image.fromarray(GREY > 127)
    assert bits.mode == '1'
    for form in ('PNG', 'TIFF', 'BMP', 'PPM'):
        assert np.array_equal(decode_picture(stored(bits, form)), rgb(np.where(GREY > 127, 255, 0)))


@pytest.mark.parametrize('mode', Image.MODES)
def test_every_mode_of_pillow_is_converted_or_refused(mode):
    """No mode ends in another error, or comes out in another shape."""
    image = Image.new(mode, (5, 4))
    if mode == 'I':
        with pytest.raises(InputError, match='32-bit whole numbers'):
            to_rgb(image)
    else:
        assert to_rgb(image).shape == (4, 5, 3) and to_rgb(image).dtype == np.uint8


@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize(
    'form, values',
    [(f, v) for f in ('PNG', 'TIFF', 'WEBP') for v in (COLOUR, DEEP[:6, :5]) if f != 'WEBP' or v.ndim == 3],
)
def test_exif_turns(form, values, turn):
    upright = values
    # What the viewer has to do is written down; stored is the inverse of it.
    stored_pixels = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x),
        7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
        8: lambda x: np.rot90(x, -1),
    }[turn](upright)
    exif = Image.Exif()
    exif[274] = turn
    options = dict(lossless=True) if form == 'WEBP' else {}
    data = stored(Image.fromarray(np.ascontiguousarray(stored_pixels)), form, exif=exif, **options)
    expected = upright if upright.ndim == 3 else rgb(upright >> 8)
    assert np.array_equal(decode_picture(data), expected)


@pytest.mark.parametrize('form', ['GIF', 'TIFF', 'PNG', 'WEBP'])
def test_first_frame(form):
    frames = [Image.new('RGB', (5, 4), c) for c in ((250, 0, 0), (0, 250, 0))]
    data = stored(frames[0], form, save_all=True, append_images=frames[1:])
    assert decode_picture(data).reshape(-1, 3).mean(0).round().tolist() == pytest.approx([250, 0, 0], abs=3)


@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF'])
def test_ordinary_pictures_are_as_before(form):
    pixels = np.kron(COLOUR, np.ones((5, 5, 1), np.uint8))
    for image in (Image.fromarray(pixels), Image.fromarray(pixels[..., 0])):
        data = stored(image, form)
        assert np.array_equal(decode_picture(data), mmcv.imfrombytes(data, backend='pillow')[..., ::-1])


def test_deep_colour_of_jpeg_2000_is_refused():
    deep = cv2.imencode('.jp2', cv2.merge([np.kron(DEEP, np.ones((8, 8), np.uint16))] * 3))[1].tobytes()
    with pytest.raises(InputError, match='JPEG 2000 in colour with more than 8 bits a channel: save it with 8'):
        decode_picture(deep)
    flat = cv2.imencode('.jp2', np.full((64, 64, 3), 200, np.uint8))[1].tobytes()
    assert (decode_picture(flat) == 200).all()


def test_damaged_ones_are_told():
    whole = stored(Image.fromarray(np.kron(COLOUR, np.ones((30, 30, 1), np.uint8))), 'JPEG')
    assert picture_error(whole) is None
    assert picture_error(whole[: len(whole) // 2]).startswith('OSError: image file is truncated')
    assert picture_error(b'') == 'UnidentifiedImageError: the file is empty'
    assert picture_error(b'<html>') == 'UnidentifiedImageError: it is damaged, or of a format that Pillow does not know'


@pytest.mark.parametrize(
    'array, expected',
    [
        (COLOUR, COLOUR),
        (GREY, rgb(GREY)),
        (GREY[..., None], rgb(GREY)),
        (DEEP, rgb(DEEP >> 8)),
        (COLOUR.astype(np.uint16) * 257, COLOUR),
        (COLOUR / 255, COLOUR),
        ((COLOUR / 255).astype(np.float32), COLOUR),
        (GREY > 99, rgb((GREY > 99) * 255)),
        (np.dstack([COLOUR, np.full_like(GREY, 255)]), COLOUR),
        (np.dstack([COLOUR, np.zeros_like(GREY)]), np.full_like(COLOUR, 255)),
        (np.dstack([GREY, np.full_like(GREY, 255)]), rgb(GREY)),
        (np.dstack([COLOUR, np.full_like(GREY, 255)]) / 255, COLOUR),
    ],
)
def test_arrays(array, expected):
    assert np.array_equal(array_to_8bit(array), expected) and array_to_8bit(array).dtype == np.uint8


@pytest.mark.parametrize(
    'array, sentence',
    [
        (COLOUR.astype(np.float32), r'floating-point values go from .* must be in \[0, 1\]'),
        (np.full((4, 4), np.inf), 'from inf to inf'),
        (COLOUR.astype(np.int64), 'its values are int64, .* give uint8, uint16, bool, or floating'),
        (COLOUR.transpose(2, 0, 1), r'not \(3, 6, 8\): put the channels last'),
        (COLOUR[0, 0], r'not \(3,\)'),
        (COLOUR[:0], r'not \(0, 8, 3\)'),
        (COLOUR[None], r'not \(1, 6, 8, 3\)'),
    ],
)
def test_arrays_that_are_refused(array, sentence):
    with pytest.raises(InputError, match=sentence):
        array_to_8bit(array)


def test_suffixes_are_those_that_pillow_opens():
    assert {'.png', '.jpg', '.jfif', '.tga', '.tif', '.gif'} <= set(PICTURE_SUFFIXES)
    extensions = Image.registered_extensions()
    assert all(extensions[suffix] in Image.OPEN for suffix in PICTURE_SUFFIXES)
    assert '.heic' not in PICTURE_SUFFIXES
