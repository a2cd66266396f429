from .contrastive import ContrastiveLoss, class_means, contrastive_loss

__all__ = ['ContrastiveLoss', 'class_means', 'contrastive_loss']
