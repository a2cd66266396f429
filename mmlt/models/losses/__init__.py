from .contrastive import (
    CCLLoss,
    ContrastiveLoss,
    ImageTextDistillLoss,
    class_means,
    contrastive_loss,
    distillation_loss,
    positives,
)
from .long_tail import BalancedSoftmaxLoss, ClassBalancedLoss, LDAMLoss, LogitAdjustedLoss, SoftmaxFocalLoss

__all__ = [
    'BalancedSoftmaxLoss',
    'CCLLoss',
    'ClassBalancedLoss',
    'ContrastiveLoss',
    'ImageTextDistillLoss',
    'LDAMLoss',
    'LogitAdjustedLoss',
    'SoftmaxFocalLoss',
    'class_means',
    'contrastive_loss',
    'distillation_loss',
    'positives',
]
