from .backbones import CIFARResNet, OpenCLIPVision
from .data_preprocessor import CLIPDataPreprocessor
from .heads import TextClsHead
from .losses import ContrastiveLoss
from .more import MORE
from .necks import BalancedLinearAdapter
from .pretrainers import ContrastivePretrainer
from .text import OpenCLIPText

__all__ = [
    'MORE',
    'BalancedLinearAdapter',
    'CIFARResNet',
    'CLIPDataPreprocessor',
    'ContrastiveLoss',
    'ContrastivePretrainer',
    'OpenCLIPText',
    'OpenCLIPVision',
    'TextClsHead',
]
