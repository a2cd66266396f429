from .hooks import (
    CheckpointGuardHook,
    ClassInfoHook,
    ExportOpenCLIPHook,
    FeatureCacheHook,
    FiniteLossHook,
    MOREHook,
    ProgressBarHook,
    ShotReportHook,
)
from .optim import BFloat16OptimWrapper
from .runner import Runner

__all__ = [
    'BFloat16OptimWrapper',
    'CheckpointGuardHook',
    'ClassInfoHook',
    'ExportOpenCLIPHook',
    'FeatureCacheHook',
    'FiniteLossHook',
    'MOREHook',
    'ProgressBarHook',
    'Runner',
    'ShotReportHook',
]
