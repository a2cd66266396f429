"""CIFAR-10-LT and CIFAR-100-LT."""

from __future__ import annotations

import numpy as np
from mmpretrain.datasets import CIFAR10, CIFAR100

from mmlt.datasets.limited import LimitsImbalance
from mmlt.registry import DATASETS
from mmlt.utils.long_tail import exponential_profile, select_long_tail


class _CIFARLT(LimitsImbalance):
    """Cut the train split of a CIFAR dataset to an exponential profile."""

    def __init__(self, *args, imbalance_ratio: float = 100, selection_seed: int = 0, **kwargs):
        self.imbalance_ratio, self.selection_seed = imbalance_ratio, selection_seed
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        data_list = super().load_data_list()
        num_classes = len(self.CLASSES)
        counts = exponential_profile(50000 // num_classes, self.imbalance_ratio, num_classes)
        self._metainfo['class_counts'] = counts
        self._metainfo['classes'] = tuple(c.replace('_', ' ') for c in self.CLASSES)
        if self.split == 'train':
            labels = np.array([d['gt_label'] for d in data_list])
            data_list = [data_list[i] for i in select_long_tail(labels, counts, self.selection_seed)]
        return data_list


@DATASETS.register_module()
class CIFAR10LT(_CIFARLT, CIFAR10):
    """CIFAR-10 with a long-tailed train split and the full test split.

    Args:
        imbalance_ratio (float): Largest over smallest class.
            Defaults to 100 (12,406 images).
        selection_seed (int): Which images are kept. Defaults to 0.
        **kwargs: See MMPretrain's ``CIFAR10`` and :class:`LimitsImbalance`.
    """


@DATASETS.register_module()
class CIFAR100LT(_CIFARLT, CIFAR100):
    """CIFAR-100 with a long-tailed train split and the full test split.

    Args:
        imbalance_ratio (float): Largest over smallest class. Defaults to 100
            (10,847 images, 35 / 35 / 30 many / medium / few).
        selection_seed (int): Which images are kept. Defaults to 0.
        **kwargs: See MMPretrain's ``CIFAR100`` and :class:`LimitsImbalance`.
    """
