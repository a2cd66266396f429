from .cifar_lt import CIFAR10LT, CIFAR100LT
from .class_texts import ClassTexts
from .image_text import ImageTextDataset
from .inaturalist import INaturalist2018
from .long_tail import count_classes, dataset_labels, exponential_profile, select_long_tail
from .long_tailed_dataset import LongTailedDataset
from .mnist_lt import MNISTLT
from .named_icons import NamedIcons
from .printed_characters import PrintedCharacters
from .samplers import ClassAwareSampler, ClassBalancedSampler, MixBalancedSampler, SquareRootSampler
from .transforms import FiveCropPart, GrowingRandomResizedCrop, growing_crop_minimum
from .twemoji_lt import TwemojiLT

__all__ = [
    'CIFAR10LT',
    'CIFAR100LT',
    'INaturalist2018',
    'MNISTLT',
    'ClassAwareSampler',
    'ClassBalancedSampler',
    'ClassTexts',
    'FiveCropPart',
    'GrowingRandomResizedCrop',
    'ImageTextDataset',
    'LongTailedDataset',
    'MixBalancedSampler',
    'NamedIcons',
    'PrintedCharacters',
    'SquareRootSampler',
    'TwemojiLT',
    'count_classes',
    'dataset_labels',
    'exponential_profile',
    'growing_crop_minimum',
    'select_long_tail',
]
