from .crops import FiveCropPart, GrowingRandomResizedCrop, growing_crop_minimum
from .loading import LoadPicture, compose_like, is_loader, picture_pipeline, takes_and_gives_bgr

__all__ = [
    'FiveCropPart',
    'GrowingRandomResizedCrop',
    'LoadPicture',
    'compose_like',
    'growing_crop_minimum',
    'is_loader',
    'picture_pipeline',
    'takes_and_gives_bgr',
]
