from .functional import (
    SHOT_PROTOCOLS,
    expected_calibration_error,
    negative_log_likelihood,
    shot_accuracy,
    shot_groups,
)
from .shot_metric import ShotAccuracy

__all__ = [
    'SHOT_PROTOCOLS',
    'ShotAccuracy',
    'expected_calibration_error',
    'negative_log_likelihood',
    'shot_accuracy',
    'shot_groups',
]
