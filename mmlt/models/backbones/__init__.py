from .cifar_resnet import CIFARResNet
from .open_clip_vision import OpenCLIPVision

__all__ = ['CIFARResNet', 'OpenCLIPVision']
