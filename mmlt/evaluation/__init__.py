from .functional import (
    SHOT_PROTOCOLS,
    average_precision,
    expected_calibration_error,
    negative_log_likelihood,
    shot_accuracy,
    shot_average_precision,
    shot_groups,
)
from .predictions import PREDICTIONS, Predictions
from .shot_map import ShotMAP
from .shot_metric import ShotAccuracy

__all__ = [
    'PREDICTIONS',
    'SHOT_PROTOCOLS',
    'Predictions',
    'ShotAccuracy',
    'ShotMAP',
    'average_precision',
    'expected_calibration_error',
    'negative_log_likelihood',
    'shot_accuracy',
    'shot_average_precision',
    'shot_groups',
]
