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
from .optim import BFloat16OptimWrapper, RatesOptimWrapperConstructor
from .runner import Runner
from .schedule import EpochCosineLR, cosine_by_epoch

__all__ = [
    'AnchorSelectionHook',
    'BFloat16OptimWrapper',
    'CheckpointGuardHook',
    'ClassInfoHook',
    'EpochCosineLR',
    'EpochHook',
    'ExportOpenCLIPHook',
    'FeatureCacheHook',
    'FiniteLossHook',
    'MOREHook',
    'FitHeadHook',
    'ProgressBarHook',
    'RatesOptimWrapperConstructor',
    'Runner',
    'ShotReportHook',
    'compute_features',
    'cosine_by_epoch',
]
