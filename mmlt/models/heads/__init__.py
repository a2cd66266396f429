from .anchor_heads import AnchorKNNHead, LGRHead
from .baseline_heads import LWSHead, NCMHead, TauNormClsHead
from .text_cls_head import TextClsHead

__all__ = ['AnchorKNNHead', 'LGRHead', 'LWSHead', 'NCMHead', 'TauNormClsHead', 'TextClsHead']
