"""The order of one class-aware epoch: a plain Python loop against the vectorised sampler.

    python tools/benchmarks/sampler.py [--rounds 5]

Shape of ImageNet-LT: 1,000 classes, counts from 1,280 to 5, 1.28 million draws, 4 images a class turn.
"""

import argparse
import random

import numpy as np

from mmlt.benchmarks.common import compare
from mmlt.datasets import ClassAwareSampler, exponential_profile


class Labels:
    """A dataset of labels."""

    def __init__(self, labels):
        self.labels = labels

    def get_gt_labels(self):
        return self.labels

    def __len__(self):
        return len(self.labels)


def python_loop(members: list[list[int]], draws: int, k: int, rng: random.Random) -> list[int]:
    """Same order of things: shuffled classes, k images of each at its turn from its own shuffled list."""
    lists = [rng.sample(m, len(m)) for m in members]
    at = [0] * len(members)
    order: list[int] = []
    while len(order) < draws:
        for c in rng.sample(range(len(members)), len(members)):
            for _ in range(k):
                if at[c] == len(lists[c]):
                    rng.shuffle(lists[c])
                    at[c] = 0
                order.append(lists[c][at[c]])
                at[c] += 1
    return order[:draws]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    counts = exponential_profile(1280, 256, 1000)
    labels = np.repeat(np.arange(1000), counts)
    sampler = ClassAwareSampler(Labels(labels), samples_per_class=4, seed=0)
    members = [np.flatnonzero(labels == c).tolist() for c in range(1000)]
    rng = random.Random(0)
    print(f'{sampler.total:,} draws of {len(labels):,} images')
    compare(
        'class-aware order of one epoch',
        {
            'plain Python loop': lambda: python_loop(members, sampler.total, 4, rng),
            'ClassAwareSampler, vectorised': lambda: sampler.epoch_indices(0),
            'ClassAwareSampler as a list (iter)': lambda: list(sampler),
        },
        args.rounds,
    )
