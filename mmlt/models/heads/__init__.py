from .text_cls_head import TextClsHead

__all__ = ['TextClsHead']
