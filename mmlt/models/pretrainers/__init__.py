from .contrastive_pretrainer import ContrastivePretrainer

__all__ = ['ContrastivePretrainer']
