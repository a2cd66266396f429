from .contrastive import ContrastiveLoss, class_means, contrastive_loss
from .multi_label import ClassBalancedBCELoss, DistributionBalancedLoss, distribution_balanced_loss

__all__ = [
    'ClassBalancedBCELoss',
    'ContrastiveLoss',
    'DistributionBalancedLoss',
    'class_means',
    'contrastive_loss',
    'distribution_balanced_loss',
]
