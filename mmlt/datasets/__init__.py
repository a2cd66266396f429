from mmlt.checkpoints import load_restricted_pickle

from .cifar_lt import CIFAR10LT, CIFAR100LT
from .class_texts import ClassTexts
from .image_text import ImageTextDataset
from .inaturalist import INaturalist2018
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
from .named_icons import NamedIcons
from .printed_characters import PrintedCharacters
from .samplers import ClassAwareSampler, ClassBalancedSampler, MixBalancedSampler, SquareRootSampler
from .transforms import FiveCropPart, GrowingRandomResizedCrop, LoadPicture, growing_crop_minimum
from .twemoji_lt import TwemojiLT
from .unscored import MarkUnscored

__all__ = [
    'CIFAR10LT',
    'CIFAR100LT',
    'INaturalist2018',
    'MNISTLT',
    'MarkUnscored',
    'ClassAwareSampler',
    'ClassBalancedSampler',
    'ClassTexts',
    'FiveCropPart',
    'GrowingRandomResizedCrop',
    'ImageTextDataset',
    'LoadPicture',
    'LongTailedDataset',
    'LongTailedMultiLabel',
    'MixBalancedSampler',
    'MultiLabelDigits',
    'NamedIcons',
    'PrintedCharacters',
    'SquareRootSampler',
    'TwemojiLT',
    'count_classes',
    'count_positives',
    'dataset_labels',
    'dataset_positives',
    'exponential_profile',
    'load_restricted_pickle',
    'growing_crop_minimum',
    'select_long_tail',
]
