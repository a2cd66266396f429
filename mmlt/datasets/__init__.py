from .cifar_lt import CIFAR10LT, CIFAR100LT
from .image_text import ImageTextDataset
from .long_tail import (
    count_classes,
    count_positives,
    dataset_labels,
    dataset_positives,
    exponential_profile,
    select_long_tail,
)
from .long_tailed_dataset import LongTailedDataset
from .mnist_lt import MNISTLT
from .multi_label import LongTailedMultiLabel
from .multi_label_digits import MultiLabelDigits
from .printed_characters import PrintedCharacters
from .restricted_pickle import load_restricted_pickle
from .samplers import ClassAwareSampler, ClassBalancedSampler, MixBalancedSampler, SquareRootSampler

__all__ = [
    'CIFAR10LT',
    'CIFAR100LT',
    'MNISTLT',
    'ClassAwareSampler',
    'ClassBalancedSampler',
    'ImageTextDataset',
    'LongTailedDataset',
    'LongTailedMultiLabel',
    'MixBalancedSampler',
    'MultiLabelDigits',
    'PrintedCharacters',
    'SquareRootSampler',
    'count_classes',
    'count_positives',
    'dataset_labels',
    'dataset_positives',
    'exponential_profile',
    'load_restricted_pickle',
    'select_long_tail',
]
