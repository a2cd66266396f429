from .backbones import AdaptFormer, CIFARResNet, ImageTower, OpenCLIPVision, TimmViT
from .classifiers import CUEClassifier
from .data_preprocessor import CLIPDataPreprocessor
from .heads import AnchorKNNHead, CosineClsHead, LGRHead, LWSHead, NCMHead, TauNormClsHead, TextClsHead
from .losses import (
    BalancedSoftmaxLoss,
    CCLLoss,
    ClassBalancedBCELoss,
    ClassBalancedLoss,
    ContrastiveLoss,
    CUELoss,
    DistributionBalancedLoss,
    ImageTextDistillLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    SoftmaxFocalLoss,
)
from .more import MORE
from .necks import BalancedLinearAdapter
from .pretrainers import CVLP, ContrastivePretrainer
from .text import OpenCLIPText
from .tta import LogitTTA

__all__ = [
    'AdaptFormer',
    'AnchorKNNHead',
    'BalancedLinearAdapter',
    'BalancedSoftmaxLoss',
    'CCLLoss',
    'CIFARResNet',
    'CLIPDataPreprocessor',
    'CUEClassifier',
    'CUELoss',
    'CVLP',
    'ClassBalancedBCELoss',
    'ClassBalancedLoss',
    'ContrastiveLoss',
    'ContrastivePretrainer',
    'CosineClsHead',
    'DistributionBalancedLoss',
    'ImageTextDistillLoss',
    'ImageTower',
    'LDAMLoss',
    'LGRHead',
    'LWSHead',
    'LogitAdjustedLoss',
    'LogitTTA',
    'MORE',
    'NCMHead',
    'OpenCLIPText',
    'OpenCLIPVision',
    'SoftmaxFocalLoss',
    'TauNormClsHead',
    'TextClsHead',
    'TimmViT',
]
