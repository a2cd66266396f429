"""Changes of colour, and flips, on arrays as they are: no copies into another library's pictures and back."""

from __future__ import annotations

import cv2
import mmcv
import numpy as np
from mmcv.transforms import RandomFlip as MMCVRandomFlip
from mmcv.transforms.utils import cache_randomness
from mmpretrain.datasets.transforms import ColorJitter as MMPretrainColorJitter

from mmlt.datasets.transforms.rand_augment import is_colour_8bit
from mmlt.registry import TRANSFORMS

# cv2.addWeighted rounds, Pillow cuts off: with this addend rounding cuts off, but for results within 0.001 of the next.
_CUT_OFF = -0.499

_FLIPS = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}


def blend_table(value: int, factor: float) -> np.ndarray:
    """What Pillow's ``Image.blend`` with a picture of one value makes of every value of 8 bits.

    Args:
        value (int): Of the picture that ``factor=0`` gives.
        factor (float): Not negative; 1 changes nothing.

    Returns:
        np.ndarray: uint8, (256,).
    """
    values = np.arange(256, dtype=np.float32)
    return np.clip(np.float32(value) + np.float32(factor) * (values - np.float32(value)), 0, 255).astype(np.uint8)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """As ``mmcv.adjust_brightness`` by Pillow.

    Args:
        image (np.ndarray): uint8, (H, W, 3).
        factor (float): Not negative; 0 gives black, 1 changes nothing.

    Returns:
        np.ndarray: uint8, (H, W, 3).
    """
    return cv2.LUT(image, blend_table(0, factor))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """As ``mmcv.adjust_contrast`` by Pillow.

    Args:
        image (np.ndarray): uint8, BGR, (H, W, 3).
        factor (float): Not negative; 0 gives the mean grey, 1 changes nothing.

    Returns:
        np.ndarray: uint8, (H, W, 3).
    """
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0] + 0.5)
    return cv2.LUT(image, blend_table(mean, factor))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """As ``mmcv.adjust_color`` by Pillow, but for a rounding of the grey.

    Args:
        image (np.ndarray): uint8, BGR, (H, W, 3).
        factor (float): Not negative; 0 gives grey, 1 changes nothing.

    Returns:
        np.ndarray: uint8, (H, W, 3).
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, factor, grey, 1 - factor, _CUT_OFF)


@TRANSFORMS.register_module()
class ColorJitter(MMPretrainColorJitter):
    """MMPretrain's ``ColorJitter``, several times faster: the same colours from the same random numbers.

    Its pixels are those of Pillow, MMPretrain's default backend, up to a
    rounding. Arrays that are not 8-bit BGR go through MMPretrain's.

    Args:
        *args: See MMPretrain's ``ColorJitter``.
        **kwargs: See there.

    Examples:
        >>> transform = dict(type='mmlt.ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
    """

    def transform(self, results: dict) -> dict:
        """Change the colours; see MMPretrain's."""
        image = results['img']
        if not is_colour_8bit(image):
            return super().transform(results)
        order, brightness, contrast, saturation, hue = self._rand_params()
        image = np.ascontiguousarray(image)
        for index in order:
            if index == 0 and brightness is not None:
                image = adjust_brightness(image, brightness)
            elif index == 1 and contrast is not None:
                image = adjust_contrast(image, contrast)
            elif index == 2 and saturation is not None:
                image = adjust_saturation(image, saturation)
            elif index == 3 and hue is not None:
                image = mmcv.adjust_hue(image, hue, backend=self.backend)
        results['img'] = image
        return results


@TRANSFORMS.register_module()
class RandomFlip(MMCVRandomFlip):
    """MMCV's ``RandomFlip``, faster: the same flips from the same random numbers, in one piece of memory.

    MMCV leaves a picture that is read from right to left, which makes the
    next transforms slower.

    Args:
        *args: See MMCV's ``RandomFlip``.
        **kwargs: See there.

    Examples:
        >>> transform = dict(type='mmlt.RandomFlip', prob=0.5, direction='horizontal')
    """

    @cache_randomness
    def _choose_direction(self) -> str | None:
        if isinstance(self.direction, str) and isinstance(self.prob, float):
            # What np.random.choice does with the two probabilities.
            return self.direction if np.random.random_sample() < self.prob else None
        return super()._choose_direction()

    def _flip(self, results: dict) -> None:
        image = np.ascontiguousarray(results['img'])
        super()._flip(results)  # boxes and maps, too; of the picture only a view
        flipped = cv2.flip(image, _FLIPS[results['flip_direction']])
        results['img'] = flipped.reshape(image.shape)  # cv2 drops a single channel
