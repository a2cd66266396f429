from .crops import FiveCropPart, GrowingRandomResizedCrop, growing_crop_minimum
from .loading import LoadPicture, compose_like, gives_bgr, is_loader, picture_pipeline

__all__ = [
    'FiveCropPart',
    'GrowingRandomResizedCrop',
    'LoadPicture',
    'compose_like',
    'gives_bgr',
    'growing_crop_minimum',
    'is_loader',
    'picture_pipeline',
]
