from .dist import gather, gather_with_grad
from .fingerprint import tensors_fingerprint, texts_fingerprint
from .model import unwrap

__all__ = ['gather', 'gather_with_grad', 'tensors_fingerprint', 'texts_fingerprint', 'unwrap']
