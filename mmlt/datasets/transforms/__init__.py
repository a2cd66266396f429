from .colours import ColorJitter, RandomFlip
from .crops import FiveCropPart, GrowingRandomResizedCrop, RandomResizedCrop, growing_crop_minimum
from .loading import LoadPicture, compose_like, is_loader, picture_pipeline, takes_and_gives_bgr
from .rand_augment import RandAugment

__all__ = [
    'ColorJitter',
    'FiveCropPart',
    'GrowingRandomResizedCrop',
    'LoadPicture',
    'RandAugment',
    'RandomFlip',
    'RandomResizedCrop',
    'compose_like',
    'growing_crop_minimum',
    'is_loader',
    'picture_pipeline',
    'takes_and_gives_bgr',
]
