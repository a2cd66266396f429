from .anchor_heads import AnchorKNNHead, LGRHead
from .baseline_heads import LWSHead, NCMHead, TauNormClsHead
from .cosine_cls_head import CosineClsHead
from .text_cls_head import TextClsHead

__all__ = ['AnchorKNNHead', 'CosineClsHead', 'LGRHead', 'LWSHead', 'NCMHead', 'TauNormClsHead', 'TextClsHead']
