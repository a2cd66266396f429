from .classifier import DeployedClassifier, plain_classifier
from .export import FORMATS, compare, export, load_exported, median_times

__all__ = [
    'FORMATS',
    'DeployedClassifier',
    'compare',
    'export',
    'load_exported',
    'median_times',
    'plain_classifier',
]
