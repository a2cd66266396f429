from .adaptformer import AdaptFormer, adapter_bottleneck
from .open_clip_vision import OpenCLIPVision

__all__ = ['AdaptFormer', 'OpenCLIPVision', 'adapter_bottleneck']
