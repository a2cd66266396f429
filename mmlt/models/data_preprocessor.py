"""Preprocessing for CLIP towers."""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.models.utils import ClsDataPreprocessor

from mmlt.errors import InputError
from mmlt.registry import MODELS

# CLIP's own statistics, open_clip.OPENAI_DATASET_MEAN / STD, in units of 0..255.
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.3231630)


@MODELS.register_module()
class CLIPDataPreprocessor(ClsDataPreprocessor):
    """MMPretrain's ``ClsDataPreprocessor`` with CLIP's defaults, which lets cached features pass.

    Args:
        mean (Sequence[float]): Mean of R, G, B in 0..255. Defaults to CLIP's.
        std (Sequence[float]): Standard deviation. Defaults to CLIP's.
        to_rgb (bool): Whether images come as BGR. Defaults to True.
        **kwargs: See ``ClsDataPreprocessor``.

    Raises:
        InputError: Batch augmentations on cached features.
    """

    def __init__(
        self, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD, to_rgb: bool = True, **kwargs
    ):
        super().__init__(mean=mean, std=std, to_rgb=to_rgb, **kwargs)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise images of shape (N, 3, H, W); return features of shape (N, D) as they are."""
        inputs = data['inputs']
        if hasattr(inputs, 'ndim') and inputs.ndim == 2:
            if training and self.batch_augments is not None:
                raise InputError(
                    'Cached features cannot be mixed as images are (data_preprocessor.batch_augments): train on images '
                    'with default_hooks.feature_cache=None, or without mixing with '
                    'model.data_preprocessor.batch_augments=None.'
                )
            return data
        return super().forward(data, training)
