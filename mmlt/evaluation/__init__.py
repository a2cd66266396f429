from .functional import (
    SHOT_PROTOCOLS,
    average_precision,
    expected_calibration_error,
    negative_log_likelihood,
    shot_accuracy,
    shot_average_precision,
    shot_groups,
)
from .shot_map import ShotMAP
from .shot_metric import ShotAccuracy

__all__ = [
    'SHOT_PROTOCOLS',
    'ShotAccuracy',
    'ShotMAP',
    'average_precision',
    'expected_calibration_error',
    'negative_log_likelihood',
    'shot_accuracy',
    'shot_average_precision',
    'shot_groups',
]
