from mmlt.checkpoints import load_restricted_pickle
from mmlt.utils.labels import dataset_labels, dataset_positives
from mmlt.utils.long_tail import count_classes, count_positives, exponential_profile, select_long_tail

from .cifar_lt import CIFAR10LT, CIFAR100LT
from .embedded import MNISTLT, MultiLabelDigits, NamedIcons, PrintedCharacters, TwemojiLT
from .image_text import ImageTextDataset
from .inaturalist import INaturalist2018
from .limited import LimitsImbalance
from .long_tailed_dataset import LongTailedDataset
from .multi_label import LongTailedMultiLabel
from .samplers import ClassAwareSampler, ClassBalancedSampler, MixBalancedSampler, SquareRootSampler
from .texts import ClassTexts
from .transforms import (
    ColorJitter,
    FiveCropPart,
    GrowingRandomResizedCrop,
    LoadPicture,
    RandAugment,
    RandomFlip,
    RandomResizedCrop,
    growing_crop_minimum,
)
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
    'ColorJitter',
    'FiveCropPart',
    'GrowingRandomResizedCrop',
    'ImageTextDataset',
    'LimitsImbalance',
    'LoadPicture',
    'LongTailedDataset',
    'LongTailedMultiLabel',
    'MixBalancedSampler',
    'MultiLabelDigits',
    'NamedIcons',
    'PrintedCharacters',
    'RandAugment',
    'RandomFlip',
    'RandomResizedCrop',
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
