from .dist import gather_with_grad
from .model import unwrap

__all__ = ['gather_with_grad', 'unwrap']
