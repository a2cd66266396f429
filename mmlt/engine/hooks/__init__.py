from mmlt.engine.anchors import AnchorSelectionHook

from .checkpoint import CheckpointHook
from .checkpoint_guard import CheckpointGuardHook
from .class_info import ClassInfoHook
from .class_means import ClassMeansHook
from .data_time import DataTimeHook
from .epoch import EpochHook
from .export_open_clip import ExportOpenCLIPHook
from .feature_cache import FeatureCacheHook
from .finite_loss import FiniteLossHook
from .finite_scores import FiniteScoresHook
from .fit_head import FitHeadHook
from .more import MOREHook
from .prediction_pictures import PredictionPicturesHook
from .progress_bar import ProgressBarHook
from .random_numbers import RandomNumbersHook
from .runtime_info import RuntimeInfoHook
from .shot_report import ShotReportHook
from .soup import SoupHook

__all__ = [
    'AnchorSelectionHook',
    'CheckpointGuardHook',
    'CheckpointHook',
    'ClassInfoHook',
    'ClassMeansHook',
    'DataTimeHook',
    'EpochHook',
    'ExportOpenCLIPHook',
    'FeatureCacheHook',
    'FiniteLossHook',
    'FiniteScoresHook',
    'MOREHook',
    'FitHeadHook',
    'PredictionPicturesHook',
    'ProgressBarHook',
    'RandomNumbersHook',
    'RuntimeInfoHook',
    'ShotReportHook',
    'SoupHook',
]
