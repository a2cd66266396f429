from .functional import class_discrepancy, group_sums, prior_weighted, sinusoidal_alpha
from .low_rank import (
    LowRank,
    WeightSplit,
    low_rank,
    merge,
    split_weights,
)
from .more_classifier import MORE

__all__ = [
    'MORE',
    'LowRank',
    'WeightSplit',
    'class_discrepancy',
    'group_sums',
    'low_rank',
    'merge',
    'prior_weighted',
    'sinusoidal_alpha',
    'split_weights',
]
