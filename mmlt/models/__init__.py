from .backbones import AdaptFormer, OpenCLIPVision
from .data_preprocessor import CLIPDataPreprocessor
from .heads import AnchorKNNHead, CosineClsHead, LGRHead, LWSHead, NCMHead, TauNormClsHead, TextClsHead
from .losses import (
    BalancedSoftmaxLoss,
    CCLLoss,
    ClassBalancedLoss,
    ContrastiveLoss,
    ImageTextDistillLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    SoftmaxFocalLoss,
)
from .necks import BalancedLinearAdapter
from .pretrainers import CVLP, ContrastivePretrainer
from .text import OpenCLIPText
from .tta import LogitTTA

__all__ = [
    'CVLP',
    'AdaptFormer',
    'AnchorKNNHead',
    'BalancedLinearAdapter',
    'BalancedSoftmaxLoss',
    'CCLLoss',
    'CLIPDataPreprocessor',
    'ClassBalancedLoss',
    'ContrastiveLoss',
    'ContrastivePretrainer',
    'CosineClsHead',
    'ImageTextDistillLoss',
    'LDAMLoss',
    'LGRHead',
    'LWSHead',
    'LogitAdjustedLoss',
    'LogitTTA',
    'NCMHead',
    'OpenCLIPText',
    'OpenCLIPVision',
    'SoftmaxFocalLoss',
    'TauNormClsHead',
    'TextClsHead',
]
