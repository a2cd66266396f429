from .adaptformer import AdaptFormer, adapter_bottleneck
from .cifar_resnet import CIFARResNet
from .open_clip_vision import OpenCLIPVision

__all__ = ['AdaptFormer', 'CIFARResNet', 'OpenCLIPVision', 'adapter_bottleneck']
