from .dist import check_sizes, gather, leave_together, local_part
from .fingerprint import digest, object_fingerprint, tensors_fingerprint, texts_fingerprint
from .garbage import quick_collections
from .model import HostCount, to_device, unwrap
from .progress import show_progress
from .unreadable import damage, why_unreadable

__all__ = [
    'HostCount',
    'check_sizes',
    'damage',
    'digest',
    'gather',
    'leave_together',
    'local_part',
    'object_fingerprint',
    'quick_collections',
    'show_progress',
    'tensors_fingerprint',
    'texts_fingerprint',
    'to_device',
    'unwrap',
    'why_unreadable',
]
