from .crops import FiveCropPart, GrowingRandomResizedCrop, growing_crop_minimum

__all__ = ['FiveCropPart', 'GrowingRandomResizedCrop', 'growing_crop_minimum']
