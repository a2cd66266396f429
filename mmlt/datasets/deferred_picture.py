"""Pictures of which only a part is wanted, read when it is known which: that costs a third of reading the whole."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_jpeg

from mmlt.datasets.pictures import decode_picture, open_picture, why_no_picture
from mmlt.errors import InputError

# Interpolations of which torch's for 8 bits is Pillow's, up to a rounding of 1.
ANTIALIASED = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}

_TURNED = range(2, 9)  # EXIF orientations other than upright
_WORTH_SCALING = 1_000_000  # pixels; of a smaller picture Pillow's scaled decoding saves less than its resizing costs


class DeferredPicture:
    """A picture file's content, of which a part can be had.

    Ordinary JPEGs (8 bits, colour or grey, upright) are decoded by torchvision,
    pixel for pixel as Pillow does; large ones for a small part at a half, a
    quarter or an eighth of their size. Everything else is read at once, by
    :func:`mmlt.datasets.pictures.decode_picture`.

    Args:
        data (bytes): The file's content.
        path (str): Its name, for errors.

    Raises:
        Exception: It cannot be read: by the constructor as Pillow says it, by
            the methods as an InputError that names it.
    """

    def __init__(self, data: bytes, path: str):
        self._data, self._path = data, path
        self._pixels: np.ndarray | None = None
        size = _plain_jpeg_size(data)
        if size is None:
            self._pixels = decode_picture(data)
        self._shape = (*(size or self._pixels.shape[:2]), 3)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and 3, in pixels; of the upright picture."""
        return self._shape

    def crop(self, box: Sequence[int]) -> np.ndarray:
        """A part as it is.

        Args:
            box (Sequence[int]): Top, left, height and width in pixels.

        Returns:
            np.ndarray: BGR, uint8, (height, width, 3).
        """
        top, left, height, width = box
        part = self._decoded()[top : top + height, left : left + width]
        return cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2BGR)

    def resized_crop(self, box: Sequence[int], size: Sequence[int], interpolation: str) -> np.ndarray:
        """A part in another size, see :func:`resize_as_pillow`.

        Where the part has at least twice as many pixels a side as are asked
        for, a large picture is decoded at the smallest of a half, a quarter
        and an eighth of its size that leaves the part no smaller than ``size``.

        Args:
            box (Sequence[int]): Top, left, height and width in pixels.
            size (Sequence[int]): Height and width of the result in pixels.
            interpolation (str): 'bilinear' or 'bicubic'.

        Returns:
            np.ndarray: BGR, uint8, (*size, 3).
        """
        top, left, height, width = box
        shrink = self._shrink(height, width, size)
        if shrink > 1:
            part = self._scaled_crop(box, size, interpolation, shrink)
        else:
            part = resize_as_pillow(self._decoded()[top : top + height, left : left + width], size, interpolation)
        return cv2.cvtColor(part, cv2.COLOR_RGB2BGR)

    def _shrink(self, height: int, width: int, size: Sequence[int]) -> int:
        if self._pixels is not None or math.prod(self._shape[:2]) < _WORTH_SCALING:
            return 1
        return next((n for n in (8, 4, 2) if height >= n * size[0] and width >= n * size[1]), 1)

    def _scaled_crop(self, box: Sequence[int], size: Sequence[int], interpolation: str, shrink: int) -> np.ndarray:
        """As ``resized_crop``, in RGB, of the picture decoded at a share of its size."""
        top, left, height, width = (n / shrink for n in box)
        # Nothing outside of the part may be mixed into its border, but for the share of a pixel that it cuts.
        outer = (math.floor(left), math.floor(top), math.ceil(left + width), math.ceil(top + height))
        inner = (left - outer[0], top - outer[1], left - outer[0] + width, top - outer[1] + height)
        try:
            with Image.open(io.BytesIO(self._data), formats=('JPEG',)) as image:
                image.draft(None, (self._shape[1] // shrink, self._shape[0] // shrink))
                part = image.crop(outer).resize((size[1], size[0]), ANTIALIASED[interpolation], box=inner)
                return np.array(part.convert('RGB'))
        except Exception as e:  # decoders fail in many ways
            raise unreadable(self._path, e, self._data) from e

    def _decoded(self) -> np.ndarray:
        """All of it, in RGB."""
        if self._pixels is None:
            try:
                self._pixels = _decode_jpeg(self._data)
            except Exception as e:
                raise unreadable(self._path, e, self._data) from e
        return self._pixels


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of an ordinary JPEG, None of anything else."""
    if not data.startswith(b'\xff\xd8\xff'):
        return None
    try:
        with open_picture(data, formats=('JPEG',)) as image:  # without it, others look at the file first
            if image.format != 'JPEG' or image.mode not in ('RGB', 'L'):
                return None
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            return None if turned else (image.height, image.width)
    except UnidentifiedImageError:
        return None  # perhaps another format's


def _decode_jpeg(data: bytes) -> np.ndarray:
    """RGB, (H, W, 3)."""
    try:
        pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except (
        RuntimeError
    ):  # torchvision was built without JPEG, or the file is damaged: what is wrong with it, Pillow says
        return decode_picture(data)
    return pixels.permute(1, 2, 0).numpy()


def resize_as_pillow(image: np.ndarray, size: Sequence[int], interpolation: str) -> np.ndarray:
    """Resize with antialiasing, as Pillow does but for a rounding of 1, several times faster.

    Args:
        image (np.ndarray): uint8, (H, W, 3).
        size (Sequence[int]): Height and width of the result in pixels.
        interpolation (str): 'bilinear' or 'bicubic'.

    Returns:
        np.ndarray: uint8, (*size, 3).
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2)
    resized = interpolate(pixels, tuple(size), mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def unreadable(path: str, error: Exception, data: bytes | None) -> InputError:
    """The error of a picture that cannot be read, which names it."""
    return InputError(f"The picture '{path}' cannot be read ({why_no_picture(error, data)}).")
