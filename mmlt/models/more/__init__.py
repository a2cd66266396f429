from .functional import class_discrepancy, group_sums, prior_weighted, sinusoidal_alpha
from .low_rank import (
    LowRank,
    WeightSplit,
    fit_state_dict,
    is_split_key,
    low_rank,
    merge,
    merge_state_dict,
    merge_weight,
    misfit,
    split_weights,
)
from .more_classifier import MORE

__all__ = [
    'MORE',
    'LowRank',
    'WeightSplit',
    'class_discrepancy',
    'fit_state_dict',
    'group_sums',
    'is_split_key',
    'low_rank',
    'merge',
    'merge_state_dict',
    'merge_weight',
    'misfit',
    'prior_weighted',
    'sinusoidal_alpha',
    'split_weights',
]
