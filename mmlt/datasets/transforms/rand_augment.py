"""RandAugment by tables: what becomes of a value is computed once for each of the 256."""

from __future__ import annotations

import cv2
import numpy as np
from mmpretrain.datasets import transforms as mm
from mmpretrain.datasets.transforms.auto_augment import RANDAUG_POLICIES, BaseAugTransform

from mmlt.registry import TRANSFORMS

_IDENTITY = np.arange(256)


def is_colour_8bit(image) -> bool:
    """Whether a picture is an array of 8 bits with three channels."""
    return isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


class _ByTable(BaseAugTransform):
    """An MMPretrain augmentation by a table, on 8-bit colour; MMPretrain's own on anything else."""

    def transform(self, results: dict) -> dict:
        """Augment; see MMPretrain's."""
        image = results['img']
        if not is_colour_8bit(image):
            return super().transform(results)
        if not self.random_disable():
            results['img'] = cv2.LUT(np.ascontiguousarray(image), self.table(image).astype(np.uint8))
        return results

    def table(self, image: np.ndarray) -> np.ndarray:
        """What becomes of each value: (256,), or (1, 256, 3) where it differs by channel."""
        raise NotImplementedError

    @staticmethod
    def by_channel(image: np.ndarray, table) -> np.ndarray:
        """A table of each channel from its histogram."""
        histograms = (np.bincount(channel.ravel(), minlength=256) for channel in cv2.split(image))
        return np.stack([table(histogram) for histogram in histograms], axis=-1)[None]


@TRANSFORMS.register_module()
class AutoContrast(_ByTable, mm.AutoContrast):
    """MMPretrain's ``AutoContrast``, with the same pixels."""

    def table(self, image: np.ndarray) -> np.ndarray:
        """Every channel stretched to all of 0 to 255."""
        return self.by_channel(image, self._stretch)

    @staticmethod
    def _stretch(histogram: np.ndarray) -> np.ndarray:
        low, high = np.flatnonzero(histogram)[[0, -1]]
        if low >= high:
            return _IDENTITY
        scale = 255.0 / (high - low)
        return np.clip(_IDENTITY * scale - low * scale, 0, 255)


@TRANSFORMS.register_module()
class Equalize(_ByTable, mm.Equalize):
    """MMPretrain's ``Equalize``, with the same pixels."""

    def table(self, image: np.ndarray) -> np.ndarray:
        """Every channel's histogram made flat."""
        return self.by_channel(image, self._flatten)

    @staticmethod
    def _flatten(histogram: np.ndarray) -> np.ndarray:
        present = histogram[histogram > 0]
        step = (present.sum() - present[-1]) // 255
        if step == 0:
            return _IDENTITY
        shifted = (np.cumsum(histogram) + step // 2) // step
        return np.minimum(np.concatenate([[0], shifted[:-1]]), 255)


@TRANSFORMS.register_module()
class Solarize(_ByTable, mm.Solarize):
    """MMPretrain's ``Solarize``, with the same pixels."""

    def table(self, image: np.ndarray) -> np.ndarray:
        """What is not below the threshold is inverted."""
        threshold = self.random_magnitude() if self.thr is None else self.thr
        return np.where(threshold > _IDENTITY, _IDENTITY, 255 - _IDENTITY)


@TRANSFORMS.register_module()
class SolarizeAdd(_ByTable, mm.SolarizeAdd):
    """MMPretrain's ``SolarizeAdd``, with the same pixels."""

    def table(self, image: np.ndarray) -> np.ndarray:
        """What is below the threshold is made brighter."""
        magnitude = self.random_magnitude() if self.magnitude is None else self.magnitude
        return np.where(self.thr > _IDENTITY, np.minimum(_IDENTITY + magnitude, 255), _IDENTITY)


@TRANSFORMS.register_module()
class Contrast(_ByTable, mm.Contrast):
    """MMPretrain's ``Contrast``, with the pixels of its default backend, OpenCV."""

    def table(self, image: np.ndarray) -> np.ndarray:
        """All values blended with the mean grey."""
        factor = 1 + self.random_negative(self.random_magnitude() if self.magnitude is None else self.magnitude)
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)
        values, mean = _IDENTITY.astype(np.float32), np.full(256, round(grey.mean(dtype=np.float64)), np.float32)
        return np.clip(cv2.addWeighted(values, factor, mean, 1 - factor, 0), 0, 255).ravel()


_BY_TABLE = {name: f'mmlt.{name}' for name in ('AutoContrast', 'Contrast', 'Equalize', 'Solarize', 'SolarizeAdd')}


@TRANSFORMS.register_module()
class RandAugment(mm.RandAugment):
    """MMPretrain's ``RandAugment``, faster: the same pixels from the same random numbers.

    Args:
        policies (str | list[dict]): As of MMPretrain's. Its ``AutoContrast``,
            ``Contrast``, ``Equalize``, ``Solarize`` and ``SolarizeAdd`` are
            done by tables.
        *args: See MMPretrain's ``RandAugment``.
        **kwargs: See there.

    Examples:
        >>> transform = dict(type='mmlt.RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9)
    """

    def __init__(self, policies: str | list[dict], *args, **kwargs):
        if isinstance(policies, str):
            policies = RANDAUG_POLICIES.get(policies, policies)
        if isinstance(policies, list):  # of anything else MMPretrain says what it is
            policies = [dict(p, type=_BY_TABLE.get(p['type'], p['type'])) for p in policies]
        super().__init__(policies, *args, **kwargs)
