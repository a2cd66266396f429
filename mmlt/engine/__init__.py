from .features import compute_features
from .hooks import (
    AnchorSelectionHook,
    CheckpointGuardHook,
    CheckpointHook,
    ClassInfoHook,
    ClassMeansHook,
    EpochHook,
    ExportOpenCLIPHook,
    FeatureCacheHook,
    FiniteLossHook,
    FiniteScoresHook,
    FitHeadHook,
    MOREHook,
    ProgressBarHook,
    ShotReportHook,
    SoupHook,
)
from .optim import BFloat16OptimWrapper, RatesOptimWrapperConstructor
from .runner import Runner
from .schedule import EpochCosineLR, cosine_by_epoch

__all__ = [
    'AnchorSelectionHook',
    'BFloat16OptimWrapper',
    'CheckpointGuardHook',
    'CheckpointHook',
    'ClassInfoHook',
    'ClassMeansHook',
    'EpochCosineLR',
    'EpochHook',
    'ExportOpenCLIPHook',
    'FeatureCacheHook',
    'FiniteLossHook',
    'FiniteScoresHook',
    'MOREHook',
    'FitHeadHook',
    'ProgressBarHook',
    'RatesOptimWrapperConstructor',
    'Runner',
    'ShotReportHook',
    'SoupHook',
    'compute_features',
    'cosine_by_epoch',
]
