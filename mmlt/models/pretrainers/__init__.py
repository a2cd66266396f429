from .contrastive_pretrainer import ContrastivePretrainer
from .cvlp import CVLP

__all__ = ['CVLP', 'ContrastivePretrainer']
