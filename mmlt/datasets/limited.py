"""Subsets of a train list in which no class is more than so many times as large as the smallest."""

from __future__ import annotations

import numpy as np
from mmengine.dataset import BaseDataset

from mmlt.errors import InputError
from mmlt.utils.long_tail import limit_imbalance, select_long_tail


class LimitsImbalance(BaseDataset):
    """A dataset whose train split can be cut to a limited imbalance.

    Args:
        *args: See the dataset.
        max_imbalance (float, optional): Largest over smallest class, at most;
            see :func:`limit_imbalance`. ``class_counts``, which losses and
            samplers see, are those of what is kept. Defaults to None, all
            images are.
        subset_seed (int): Which images are kept. A larger subset of the same
            seed holds the smaller ones. Defaults to 0.
        **kwargs: See the dataset.

    Raises:
        InputError: A number below 1; it is not the train split.
    """

    def __init__(self, *args, max_imbalance: float | None = None, subset_seed: int = 0, **kwargs):
        if max_imbalance is not None and not 1 <= max_imbalance < np.inf:
            raise InputError(
                f"{type(self).__name__}'s max_imbalance is {max_imbalance}; it is largest over smallest class, so at "
                'least 1.'
            )
        self.max_imbalance, self.subset_seed = max_imbalance, subset_seed
        super().__init__(*args, **kwargs)

    def filter_data(self) -> list[dict]:
        """See MMEngine; what the limit leaves, in the order of the list."""
        data = super().filter_data()
        if self.max_imbalance is None:
            return data
        labels = np.array([info['gt_label'] for info in data], dtype=np.int64)
        counts = np.bincount(labels, minlength=len(self._metainfo['class_counts'])).tolist()
        if counts != [int(n) for n in self._metainfo['class_counts']]:
            raise InputError(
                f'{type(self).__name__} has max_imbalance={self.max_imbalance} on a split that is not the train split: '
                'a model is evaluated on all of it, take it off there.'
            )
        self._metainfo['class_counts'] = limit_imbalance(counts, self.max_imbalance)
        return [data[i] for i in np.sort(select_long_tail(labels, self._metainfo['class_counts'], self.subset_seed))]
