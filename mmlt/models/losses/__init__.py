from .contrastive import (
    CCLLoss,
    ContrastiveLoss,
    ImageTextDistillLoss,
    class_means,
    contrastive_loss,
    distillation_loss,
    positives,
)
from .cue import CUELoss, binary_logit_adjusted_loss, neighbour_targets, zero_shot_targets
from .long_tail import BalancedSoftmaxLoss, ClassBalancedLoss, LDAMLoss, LogitAdjustedLoss, SoftmaxFocalLoss
from .multi_label import ClassBalancedBCELoss, DistributionBalancedLoss, distribution_balanced_loss
from .neighbours import nearest_classes, neighbour_table, read_neighbours

__all__ = [
    'BalancedSoftmaxLoss',
    'CCLLoss',
    'CUELoss',
    'ClassBalancedBCELoss',
    'ClassBalancedLoss',
    'ContrastiveLoss',
    'DistributionBalancedLoss',
    'ImageTextDistillLoss',
    'LDAMLoss',
    'LogitAdjustedLoss',
    'SoftmaxFocalLoss',
    'binary_logit_adjusted_loss',
    'class_means',
    'contrastive_loss',
    'distillation_loss',
    'distribution_balanced_loss',
    'nearest_classes',
    'neighbour_table',
    'neighbour_targets',
    'positives',
    'read_neighbours',
    'zero_shot_targets',
]
