from .backbones import OpenCLIPVision
from .data_preprocessor import CLIPDataPreprocessor
from .heads import AnchorKNNHead, LGRHead, LWSHead, NCMHead, TauNormClsHead, TextClsHead
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

__all__ = [
    'CVLP',
    'AnchorKNNHead',
    'BalancedLinearAdapter',
    'BalancedSoftmaxLoss',
    'CCLLoss',
    'CLIPDataPreprocessor',
    'ClassBalancedLoss',
    'ContrastiveLoss',
    'ContrastivePretrainer',
    'ImageTextDistillLoss',
    'LDAMLoss',
    'LGRHead',
    'LWSHead',
    'LogitAdjustedLoss',
    'NCMHead',
    'OpenCLIPText',
    'OpenCLIPVision',
    'SoftmaxFocalLoss',
    'TauNormClsHead',
    'TextClsHead',
]
