from .classifier import DeployedClassifier, plain_classifier
from .export import FORMATS, check_target, compare, export, load_exported, median_times

__all__ = [
    'FORMATS',
    'DeployedClassifier',
    'check_target',
    'compare',
    'export',
    'load_exported',
    'median_times',
    'plain_classifier',
]
