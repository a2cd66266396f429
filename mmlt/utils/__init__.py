from .dist import gather, gather_with_grad, leave_together, local_part
from .fingerprint import object_fingerprint, tensors_fingerprint, texts_fingerprint
from .model import HostCount, to_device, unwrap

__all__ = [
    'HostCount',
    'gather',
    'gather_with_grad',
    'leave_together',
    'local_part',
    'object_fingerprint',
    'tensors_fingerprint',
    'texts_fingerprint',
    'to_device',
    'unwrap',
]
