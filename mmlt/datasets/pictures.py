"""Pictures as they are stored, and what this project sees of them: 8-bit RGB."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from mmengine.fileio import BaseStorageBackend, get
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from mmlt.errors import InputError

# Still pictures only: Pillow knows videos, grids and documents, too. Which it can open depends on how it was built.
PICTURE_SUFFIXES = tuple(
    suffix
    for suffix in (
        *('.jpg', '.jpeg', '.jpe', '.jfif', '.jp2', '.png', '.apng', '.bmp', '.dib', '.webp', '.avif'),
        *('.tif', '.tiff', '.gif', '.ppm', '.pgm', '.pbm', '.pnm', '.tga'),
    )
    if Image.registered_extensions().get(suffix) in Image.OPEN
)

# What telephones write, and Pillow cannot open.
HEIC_SUFFIXES = ('.heic', '.heif')

# How pictures become 8-bit RGB, for those who use an exported model without this project.
READING = dict(
    orientation='EXIF orientation is applied',
    transparency='on white',
    depth_16='the high byte (value >> 8), as OpenCV reads it in colour',
    floating_point='values in [0, 1] times 255, rounded; others are refused',
    colours='to RGB as Pillow converts; embedded colour profiles are not applied',
    several_pictures='the first frame or page',
)

MAX_RATIO = 200  # of the sides of a picture

# EPS is a program, which Pillow gives to Ghostscript to run, whatever the file is called.
_FORMATS = tuple(name for name in Image.ID if name != 'EPS')
_EPS = (b'%!PS', b'\xc5\xd0\xd3\xc6')

_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags
_16_BIT_AS_32 = ('PNG', 'PPM')  # of these Pillow gives 16 bits in its mode of 32


def is_picture(name: str) -> bool:
    """Whether a file has the suffix of a picture."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def listing(names: Sequence[str], limit: int = 5) -> str:
    """The first names in quotes, and how many more there are."""
    more = f' and {len(names) - limit:,} more' if len(names) > limit else ''
    return ', '.join(f"'{n}'" for n in names[:limit]) + more


def no_pictures(files: Sequence[str]) -> str:
    """Say that files are no pictures, HEIC apart: ``'3 files are no pictures'``, and which."""
    heic = [f for f in files if f.lower().endswith(HEIC_SUFFIXES)]
    rest = [f for f in files if f not in set(heic)]
    told = '1 file is no picture and is' if len(rest) == 1 else f'{len(rest):,} files are no pictures and are'
    parts = [f'{told} left out: {listing(rest)}'] if rest else []
    if heic:
        parts.append(
            f'{len(heic):,} HEIC pictures, which Pillow cannot open, are left out: {listing(heic)}; convert them to '
            'JPEG'
        )
    return '. '.join(parts) + '.'


def check_size(image: Image.Image) -> Image.Image:
    """Refuse a picture that would fill the memory, before it is decoded.

    Args:
        image (Image.Image): Opened, not read.

    Returns:
        Image.Image: The same.

    Raises:
        InputError: It has more than ``PIL.Image.MAX_IMAGE_PIXELS`` pixels (89
            million, unless somebody sets another number), or is more than
            ``MAX_RATIO`` times as long as it is wide: its shorter side made as
            long as a model's input, the other would fill the memory.
    """
    width, height = image.size
    most = Image.MAX_IMAGE_PIXELS
    if most and width * height > most:
        raise InputError(
            f'it has {width} x {height} pixels, more than {most:,}: make it smaller, or set PIL.Image.MAX_IMAGE_PIXELS'
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(
            f'it has {width} x {height} pixels, more than {MAX_RATIO} times as many along as across: crop it'
        )
    return image


def to_rgb(image: Image.Image) -> np.ndarray:
    """A picture of any form in 8-bit RGB.

    - EXIF's orientation is applied.
    - 16-bit grey becomes its high byte, as when OpenCV reads a file in
      colour; 16-bit colour Pillow reduces in the same way, or rounds.
    - Floating point is taken in [0, 1], times 255, rounded.
    - What is transparent is put on white: alpha, or one transparent colour.
    - Everything else is converted by Pillow; of LAB, by LittleCMS. Of several
      frames or pages the first counts. Colour profiles are not applied.

    Args:
        image (Image.Image): Of any mode.

    Returns:
        np.ndarray: uint8, (H, W, 3).

    Raises:
        InputError: Its form does not tell what is black and white: 32-bit
            whole numbers, or floating point outside [0, 1].
    """
    form, tags = image.format, getattr(image, 'tag_v2', {})
    image = ImageOps.exif_transpose(image)
    if image.mode == 'F' or image.mode.startswith('I'):
        grey = _grey(image, form, tags)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode == 'LAB':
        lab, rgb = ImageCms.createProfile('LAB'), ImageCms.createProfile('sRGB')
        image = ImageCms.profileToProfile(image, lab, rgb, outputMode='RGB')
    elif image.has_transparency_data:
        image = _on_white(image)
    return np.array(image.convert('RGB'))


def _grey(image: Image.Image, form: str | None, tags: dict) -> np.ndarray:
    """8-bit grey of a picture with more than 8 bits a pixel, (H, W)."""
    values = np.asarray(image)
    if image.mode == 'I' and form not in _16_BIT_AS_32:
        raise InputError('it has 32-bit whole numbers, which do not tell what is white: save it with 8 or 16 bits')
    bits = tags.get(_BITS, (16,))[0] if image.mode != 'F' else 0
    grey = float_to_8bit(values) if image.mode == 'F' else (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow turns for 8 bits only
        grey = 255 - grey
    if isinstance(key := image.info.get('transparency'), int):
        grey = np.where(values == key, np.uint8(255), grey)
    return grey


def float_to_8bit(values: np.ndarray) -> np.ndarray:
    """Values of [0, 1] as those of 0 to 255; an InputError for others."""
    if not (values.min() >= 0 and values.max() <= 1):  # also for nan
        raise InputError(
            f'its floating-point values go from {values.min():g} to {values.max():g}, but must be in [0, 1]: rescale '
            'them, or give 8-bit ones'
        )
    return np.rint(values * np.float32(255)).astype(np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    key = image.info.get('transparency')
    if isinstance(key, tuple) and max(key) > 255:  # of a 16-bit picture, whose pixels have 8 bits by now
        image.info['transparency'] = tuple(value >> 8 for value in key)
    image = (image.convert('LA') if image.mode == 'La' else image).convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)


def array_to_8bit(array: np.ndarray) -> np.ndarray:
    """An array of a picture with three channels of 8 bits, whose order stays.

    Args:
        array (np.ndarray): (H, W), or (H, W, C) with C of 1 (grey), 2 (grey
            and alpha), 3 (colours) or 4 (colours and alpha). uint8, uint16,
            bool, or floating point in [0, 1]; see :func:`to_rgb`.

    Returns:
        np.ndarray: uint8, (H, W, 3).

    Raises:
        InputError: Another shape, type or range.
    """
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or not array.size or array.shape[-1] > 4:
        hint = ': put the channels last' if array.ndim == 3 and array.size and array.shape[0] <= 4 else ''
        raise InputError(f'an array of a picture is (H, W), or (H, W, C) with 1 to 4 channels, not {shape}{hint}')
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype == bool:
        array = array * np.uint8(255)
    elif np.issubdtype(array.dtype, np.floating):
        array = float_to_8bit(array)
    elif array.dtype != np.uint8:
        raise InputError(
            f'its values are {array.dtype}, which do not tell what is white: give uint8, uint16, bool, or floating '
            'point in [0, 1]'
        )
    if array.shape[-1] == 3:
        return array
    return to_rgb(Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array))


def decode_picture(data: bytes) -> np.ndarray:
    """The content of a picture file in 8-bit RGB, see :func:`to_rgb`.

    Args:
        data (bytes): Of a format that Pillow knows.

    Returns:
        np.ndarray: uint8, (H, W, 3).

    Raises:
        InputError: See :func:`to_rgb`.
        Exception: It is damaged, as Pillow says it.
    """
    with open_picture(data) as image:
        if image.format == 'JPEG2000' and image.mode != 'I;16' and _jpeg2000_bits(data) > 8:
            # Pillow's rounding turns white into black there.
            raise InputError('it is a JPEG 2000 in colour with more than 8 bits a channel: save it with 8, or as PNG')
        return to_rgb(image)


def open_picture(data: bytes, formats: list[str] | tuple[str, ...] = _FORMATS) -> Image.Image:
    """Open a picture of a bearable size, see :func:`check_size`; its pixels are not read.

    Args:
        data (bytes): The file's content.
        formats (list[str] | tuple[str, ...]): Pillow's names of those that it may have.
            Defaults to all that Pillow decodes itself, so not EPS.

    Returns:
        Image.Image: A context, as Pillow gives it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # check_size says more
        return check_size(Image.open(io.BytesIO(data), formats=formats))


def _jpeg2000_bits(data: bytes) -> int:
    """Bits of the first channel, by the size marker that follows the start of the code stream."""
    return (data[data.find(b'\xff\x4f\xff\x51') + 42] & 0x7F) + 1


def picture_error(data: bytes) -> str | None:
    """Why a picture file's content cannot be read, or None if it can."""
    try:
        decode_picture(data)
    except Exception as e:
        return why_no_picture(e, data)
    return None


def why_no_picture(error: Exception, data: bytes | None = None) -> str:
    """What an error in reading a picture means.

    Args:
        error (Exception): Of reading the file, or of :func:`decode_picture`.
        data (bytes, optional): The file's content, if it could be read.
            Defaults to None.

    Returns:
        str: No sentence, for brackets.
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return 'it has far too many pixels: make it smaller, or set PIL.Image.MAX_IMAGE_PIXELS'
    if isinstance(error, UnidentifiedImageError):  # its own message names the memory that the bytes lie in
        reason = 'the file is empty' if data == b'' else 'it is damaged, or of a format that Pillow does not know'
        if (data or b'').startswith(_EPS):
            reason = 'it is an EPS file, a program that is not run: save it as PNG'
        return f'{type(error).__name__}: {reason}'
    return f'{type(error).__name__}: {error}'


def read_error(path: str, backend: BaseStorageBackend | None = None) -> str | None:
    """Why a picture cannot be read, by its address or from a backend, or None if it can."""
    try:
        data = get(path) if backend is None else backend.get(path)
    except Exception as e:  # of a backend, which may be anybody's
        return why_no_picture(e)
    return 'there is nothing of this name' if data is None else picture_error(data)
