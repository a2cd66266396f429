from .backbones import OpenCLIPVision
from .data_preprocessor import CLIPDataPreprocessor
from .heads import TextClsHead
from .losses import ContrastiveLoss
from .necks import BalancedLinearAdapter
from .pretrainers import ContrastivePretrainer
from .text import OpenCLIPText

__all__ = [
    'BalancedLinearAdapter',
    'CLIPDataPreprocessor',
    'ContrastiveLoss',
    'ContrastivePretrainer',
    'OpenCLIPText',
    'OpenCLIPVision',
    'TextClsHead',
]
