"""MMPretrain's mixup and CutMix without a wait for the GPU."""

from __future__ import annotations

import numpy as np
import torch
from mmpretrain.models.utils.batch_augments import CutMix as MMPretrainCutMix
from mmpretrain.models.utils.batch_augments import Mixup as MMPretrainMixup
from torch import Tensor

from mmlt.utils import to_device


def _partners(batch: Tensor) -> Tensor:
    """The image that each one is mixed with; MMPretrain indexes by numbers on the CPU, which are waited for."""
    return to_device(torch.randperm(len(batch)), batch.device)


class Mixup(MMPretrainMixup):
    """MMPretrain's ``Mixup``: the same draws, the same result."""

    def mix(self, batch_inputs: Tensor, batch_scores: Tensor) -> tuple[Tensor, Tensor]:
        """See MMPretrain."""
        share, index = np.random.beta(self.alpha, self.alpha), _partners(batch_inputs)
        inputs, scores = (share * x + (1 - share) * x[index] for x in (batch_inputs, batch_scores))
        return inputs, scores


class CutMix(MMPretrainCutMix):
    """MMPretrain's ``CutMix``: the same draws, the same result."""

    def mix(self, batch_inputs: Tensor, batch_scores: Tensor) -> tuple[Tensor, Tensor]:
        """See MMPretrain."""
        share, index = np.random.beta(self.alpha, self.alpha), _partners(batch_inputs)
        (top, bottom, left, right), share = self.cutmix_bbox_and_lam(batch_inputs.shape[-2:], share)
        box = (..., slice(top, bottom), slice(left, right))
        batch_inputs[box] = batch_inputs[box][index]
        return batch_inputs, share * batch_scores + (1 - share) * batch_scores[index]


def without_waiting(batch_augments: dict | None) -> dict | None:
    """Settings of MMPretrain's ``RandomBatchAugment`` with our forms of mixup and CutMix.

    Args:
        batch_augments (dict, optional): ``augments`` and ``probs``.

    Returns:
        dict | None: The same otherwise.
    """
    if not batch_augments:
        return batch_augments
    kinds = {'Mixup': Mixup, 'CutMix': CutMix}
    augments = batch_augments['augments']
    augments = augments if isinstance(augments, (list, tuple)) else [augments]
    ours = []
    for augment in augments:
        kind = kinds.get(augment.get('type')) if isinstance(augment, dict) else None
        ours.append(augment if kind is None else kind(**{k: v for k, v in augment.items() if k != 'type'}))
    return {**batch_augments, 'augments': ours}
