from .features import compute_features
from .hooks import (
    AnchorSelectionHook,
    CheckpointGuardHook,
    ClassInfoHook,
    EpochHook,
    ExportOpenCLIPHook,
    FeatureCacheHook,
    FiniteLossHook,
    FitHeadHook,
    MOREHook,
    ProgressBarHook,
    ShotReportHook,
)
from .optim import BFloat16OptimWrapper
from .runner import Runner

__all__ = [
    'AnchorSelectionHook',
    'BFloat16OptimWrapper',
    'CheckpointGuardHook',
    'ClassInfoHook',
    'EpochHook',
    'ExportOpenCLIPHook',
    'FeatureCacheHook',
    'FiniteLossHook',
    'MOREHook',
    'FitHeadHook',
    'ProgressBarHook',
    'Runner',
    'ShotReportHook',
    'compute_features',
]
