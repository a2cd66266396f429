"""Preprocessing for CLIP towers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.models.utils import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor

from mmlt.models.batch_augments import without_waiting
from mmlt.registry import MODELS
from mmlt.utils import to_device

_HOST_LABEL = 'host_label'  # a sample's label on the CPU, which it came from

# CLIP's own statistics, open_clip.OPENAI_DATASET_MEAN / STD, in units of 0..255.
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.3231630)


@MODELS.register_module()
class CLIPDataPreprocessor(ClsDataPreprocessor):
    """MMPretrain's ``ClsDataPreprocessor`` with CLIP's defaults, which lets cached features pass.

    A batch goes to a GPU in one copy of images and one of labels, and nothing
    waits for it.

    Args:
        mean (Sequence[float]): Mean of R, G, B in 0..255. Defaults to CLIP's.
        std (Sequence[float]): Standard deviation. Defaults to CLIP's.
        to_rgb (bool): Whether images come as BGR. Defaults to True.
        batch_augments (dict, optional): Mixup and CutMix, see
            ``ClsDataPreprocessor``. Defaults to None.
        **kwargs: See ``ClsDataPreprocessor``.
    """

    def __init__(
        self,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        to_rgb: bool = True,
        batch_augments: dict | None = None,
        **kwargs,
    ):
        batch_augments = without_waiting(batch_augments)
        super().__init__(mean=mean, std=std, to_rgb=to_rgb, batch_augments=batch_augments, **kwargs)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise images of shape (N, 3, H, W); return features of shape (N, D) as they are."""
        if getattr(data['inputs'], 'ndim', 0) == 2:
            return data
        if self.device.type != 'cpu':
            data = _moved(data, self.device)
        return super().forward(data, training)


def _moved(data: dict, device: torch.device) -> dict:
    """A batch on a device: one copy of all images and one of all labels, for none of which anybody waits."""
    inputs, samples = data['inputs'], data.get('data_samples') or []
    if not isinstance(inputs, Tensor) and len({image.shape for image in inputs}) == 1:
        inputs = torch.stack(list(inputs))
    if isinstance(inputs, Tensor):
        inputs = to_device(inputs, device)
    for name, setter in (('gt_label', DataSample.set_gt_label), ('gt_score', DataSample.set_gt_score)):
        if not samples or not all(isinstance(s, DataSample) and isinstance(s.get(name), Tensor) for s in samples):
            continue
        values = [s.get(name) for s in samples]
        if any(v.device.type != 'cpu' for v in values):
            continue
        moved = to_device(torch.cat(values), device).split([len(v) for v in values])
        for sample, value, own in zip(samples, values, moved):
            setter(sample, own)
            if name == 'gt_label':
                sample.set_field(value, _HOST_LABEL, field_type='metainfo')
    return {**data, 'inputs': inputs}


def host_labels(samples: Sequence[DataSample]) -> Tensor:
    """Labels of a batch on the CPU, from before they were moved where that is known.

    Args:
        samples (Sequence[DataSample]): N samples with one label each.

    Returns:
        Tensor: Shape (N, ).
    """
    return torch.cat([s.get(_HOST_LABEL, s.gt_label) for s in samples]).cpu()
