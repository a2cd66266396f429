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
from .multi_label import ClassBalancedBCELoss, DistributionBalancedLoss, distribution_balanced_loss

__all__ = [
    'BalancedSoftmaxLoss',
    'CCLLoss',
    'ClassBalancedBCELoss',
    'ClassBalancedLoss',
    'ContrastiveLoss',
    'DistributionBalancedLoss',
    'ImageTextDistillLoss',
    'LDAMLoss',
    'LogitAdjustedLoss',
    'SoftmaxFocalLoss',
    'class_means',
    'contrastive_loss',
    'distillation_loss',
    'distribution_balanced_loss',
    'positives',
]
