from .backbones import CIFARResNet, OpenCLIPVision
from .data_preprocessor import CLIPDataPreprocessor
from .heads import AnchorKNNHead, LGRHead, LWSHead, NCMHead, TauNormClsHead, TextClsHead
from .losses import (
    BalancedSoftmaxLoss,
    CCLLoss,
    ClassBalancedBCELoss,
    ClassBalancedLoss,
    ContrastiveLoss,
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

__all__ = [
    'AnchorKNNHead',
    'BalancedLinearAdapter',
    'BalancedSoftmaxLoss',
    'CCLLoss',
    'CIFARResNet',
    'CLIPDataPreprocessor',
    'CVLP',
    'ClassBalancedBCELoss',
    'ClassBalancedLoss',
    'ContrastiveLoss',
    'ContrastivePretrainer',
    'DistributionBalancedLoss',
    'ImageTextDistillLoss',
    'LDAMLoss',
    'LGRHead',
    'LWSHead',
    'LogitAdjustedLoss',
    'MORE',
    'NCMHead',
    'OpenCLIPText',
    'OpenCLIPVision',
    'SoftmaxFocalLoss',
    'TauNormClsHead',
    'TextClsHead',
]
