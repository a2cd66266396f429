from .cifar_lt import CIFAR10LT, CIFAR100LT
from .class_texts import ClassTexts
from .image_text import ImageTextDataset
from .long_tail import count_classes, dataset_labels, exponential_profile, select_long_tail
from .long_tailed_dataset import LongTailedDataset
from .mnist_lt import MNISTLT
from .printed_characters import PrintedCharacters
from .samplers import ClassAwareSampler, ClassBalancedSampler, MixBalancedSampler, SquareRootSampler

__all__ = [
    'CIFAR10LT',
    'CIFAR100LT',
    'MNISTLT',
    'ClassAwareSampler',
    'ClassBalancedSampler',
    'ClassTexts',
    'ImageTextDataset',
    'LongTailedDataset',
    'MixBalancedSampler',
    'PrintedCharacters',
    'SquareRootSampler',
    'count_classes',
    'dataset_labels',
    'exponential_profile',
    'select_long_tail',
]
