"""Crops: random ones, read no further than they reach, LIFT+'s that grow, and the five of its ensembling."""

from __future__ import annotations

import math

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmpretrain.datasets.transforms import RandomResizedCrop as MMPretrainRandomResizedCrop

from mmlt.datasets.deferred_picture import ANTIALIASED, DeferredPicture, resize_as_pillow
from mmlt.errors import InputError
from mmlt.registry import TRANSFORMS

_CORNERS = {
    'top-left': (0, 0),
    'top-right': (0, 1),
    'bottom-left': (1, 0),
    'bottom-right': (1, 1),
    'centre': (0.5, 0.5),
}


def growing_crop_minimum(epoch: int, max_epochs: int, start: float = 0.08) -> float:
    """Smallest area of a crop, as a share of the image, in an epoch.

    ``start + (1 - start) * (1 - sqrt(1 - (e / (E - 1)) ** 2))``: slowly at
    first, and 1 in the last epoch.

    Args:
        epoch (int): e, the first is 0.
        max_epochs (int): E. With a single epoch it stays at the start.
        start (float): Defaults to 0.08.

    Returns:
        float: In [start, 1].
    """
    progress = min(epoch / max(max_epochs - 1, 1), 1.0)
    return start + (1 - start) * (1 - math.sqrt(1 - progress**2))


@TRANSFORMS.register_module()
class RandomResizedCrop(MMPretrainRandomResizedCrop):
    """MMPretrain's ``RandomResizedCrop``, several times faster: the same crops from the same random numbers.

    With ``backend='pillow'`` and 'bilinear' or 'bicubic', pixels are resized as
    Pillow does, up to a rounding; otherwise by MMPretrain's functions. In a
    data set of this project where ``mmlt.LoadPicture`` stands directly before
    it, the picture is decoded when the crop is known, see
    :class:`mmlt.datasets.deferred_picture.DeferredPicture`: large pictures in
    less than their full size, where that is enough for the crop.

    Args:
        scale (int | Sequence[int]): Size of the result in pixels, of both
            sides or height and width.
        *args: See MMPretrain's ``RandomResizedCrop``.
        **kwargs: See there.

    Examples:
        >>> crop = dict(type='mmlt.RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic')
        >>> pipeline = [dict(type='mmlt.LoadPicture'), crop, dict(type='PackInputs')]
    """

    takes_deferred = True  # see `picture_pipeline`

    def transform(self, results: dict) -> dict:
        """Crop; see MMPretrain's."""
        results['img'] = self._resized_crop(results['img'])
        results['img_shape'] = results['img'].shape
        return results

    def _resized_crop(self, image: np.ndarray | DeferredPicture) -> np.ndarray:
        top, left, height, width = box = self.rand_crop_params(image)
        as_pillow = self.backend == 'pillow' and self.interpolation in ANTIALIASED
        if isinstance(image, DeferredPicture):
            if as_pillow:
                return image.resized_crop(box, self.scale, self.interpolation)
            part = image.crop(box)
        else:
            part = image[top : top + height, left : left + width]
        if as_pillow and part.dtype == np.uint8 and part.ndim == 3:
            return resize_as_pillow(part, self.scale, self.interpolation)
        return mmcv.imresize(part, tuple(self.scale[::-1]), interpolation=self.interpolation, backend=self.backend)


@TRANSFORMS.register_module()
class GrowingRandomResizedCrop(RandomResizedCrop):
    """:class:`RandomResizedCrop` whose smallest crop grows with the epochs (LIFT+).

    :class:`EpochHook` tells it the epoch, through shared memory, so that worker
    processes that live for several epochs hear of it. Without the hook it stays
    at the first epoch. See :func:`growing_crop_minimum`.

    Args:
        scale (int | Sequence[int]): Size of the result in pixels.
        start (float): Smallest area in the first epoch, as a share of the
            image. Defaults to 0.08.
        square (bool): Square crops, anywhere in the image, whose area is a
            share of the shorter side squared, as in LIFT+'s published code.
            Defaults to False, MMPretrain's crops.
        **kwargs: See ``RandomResizedCrop``, without ``crop_ratio_range``.

    Raises:
        InputError: A start outside (0, 1], or a ``crop_ratio_range``.
    """

    def __init__(self, scale, start: float = 0.08, square: bool = False, **kwargs):
        if 'crop_ratio_range' in kwargs:
            raise InputError('GrowingRandomResizedCrop has no crop_ratio_range: give the first minimum as start=0.08.')
        if not 0 < start <= 1:
            raise InputError(f"GrowingRandomResizedCrop's start is {start}; it is a share of the image, in (0, 1].")
        super().__init__(scale, crop_ratio_range=(start, 1.0), **kwargs)
        self.start, self.square = start, square
        self._epochs = torch.tensor([0, 1]).share_memory_()  # the epoch, and how many there are

    def set_epoch(self, epoch: int, max_epochs: int) -> None:
        """Take the epoch, for this process and for workers that it started or will start.

        Args:
            epoch (int): The first is 0.
            max_epochs (int): How many there are.
        """
        self._epochs.copy_(torch.tensor([epoch, max_epochs]))

    def transform(self, results: dict) -> dict:
        """Crop; see MMPretrain's."""
        epoch, max_epochs = self._epochs.tolist()
        self.crop_ratio_range = (growing_crop_minimum(epoch, max_epochs, self.start), 1.0)
        return super().transform(results)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale}, start={self.start}, square={self.square})'

    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        """Where to crop.

        Args:
            img (np.ndarray): Shape (H, W, 3).

        Returns:
            tuple[int, int, int, int]: Top, left, height and width in pixels.
        """
        return self._square_crop(img) if self.square else super().rand_crop_params(img)

    @cache_randomness
    def _square_crop(self, img: np.ndarray) -> tuple[int, int, int, int]:
        height, width = img.shape[:2]
        shorter = min(height, width)
        side = max(1, round(shorter * math.sqrt(np.random.uniform(*self.crop_ratio_range))))
        return np.random.randint(height - side + 1), np.random.randint(width - side + 1), side, side


@TRANSFORMS.register_module()
class FiveCropPart(BaseTransform):
    """One of the five crops, the corners and the centre, of an image.

    Five of them in a ``TestTimeAug`` are the views of a ``tta_pipeline``.

    Required and modified keys: ``img``, ``img_shape``.

    Args:
        crop_size (int): Height and width in pixels.
        position (str): 'top-left', 'top-right', 'bottom-left', 'bottom-right'
            or 'centre'.

    Raises:
        InputError: No such position; an image smaller than the crop.
    """

    def __init__(self, crop_size: int, position: str):
        if position not in _CORNERS:
            raise InputError(f"FiveCropPart's position is '{position}'; choose one of {', '.join(_CORNERS)}.")
        self.crop_size, self.position = crop_size, position

    def transform(self, results: dict) -> dict:
        """Cut the part out."""
        height, width = results['img'].shape[:2]
        if min(height, width) < self.crop_size:
            raise InputError(
                f'FiveCropPart cannot cut {self.crop_size} px out of an image of {width} x {height}: resize it before, '
                "for example by dict(type='ResizeEdge', scale=248)."
            )
        down, right = (
            round(share * (size - self.crop_size)) for share, size in zip(_CORNERS[self.position], (height, width))
        )
        results['img'] = results['img'][down : down + self.crop_size, right : right + self.crop_size]
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(crop_size={self.crop_size}, position='{self.position}')"
