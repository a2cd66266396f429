from .backbones import OpenCLIPVision
from .data_preprocessor import CLIPDataPreprocessor
from .heads import TextClsHead
from .losses import ClassBalancedBCELoss, ContrastiveLoss, DistributionBalancedLoss
from .necks import BalancedLinearAdapter
from .pretrainers import ContrastivePretrainer
from .text import OpenCLIPText

__all__ = [
    'BalancedLinearAdapter',
    'CLIPDataPreprocessor',
    'ClassBalancedBCELoss',
    'ContrastiveLoss',
    'ContrastivePretrainer',
    'DistributionBalancedLoss',
    'OpenCLIPText',
    'OpenCLIPVision',
    'TextClsHead',
]
