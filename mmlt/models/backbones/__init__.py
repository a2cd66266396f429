from .adaptformer import AdaptFormer, adapter_bottleneck
from .cifar_resnet import CIFARResNet
from .image_tower import ImageTower
from .open_clip_vision import OpenCLIPVision
from .timm_vit import TimmViT

__all__ = ['AdaptFormer', 'CIFARResNet', 'ImageTower', 'OpenCLIPVision', 'TimmViT', 'adapter_bottleneck']
