from .anchor_knn_head import AnchorKNNHead
from .baseline_heads import LWSHead, NCMHead, TauNormClsHead
from .cosine_cls_head import CosineClsHead
from .lgr_head import LGRHead
from .text_cls_head import TextClsHead

__all__ = ['AnchorKNNHead', 'CosineClsHead', 'LGRHead', 'LWSHead', 'NCMHead', 'TauNormClsHead', 'TextClsHead']
