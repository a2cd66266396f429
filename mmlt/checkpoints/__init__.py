"""Reading of checkpoints and weights, none of which can run code."""

from .config_text import read_config_text
from .downloads import check_download, check_hub, in_hub_cache
from .file_handlers import register_handlers
from .read import guard_mmengine, is_whole, latest_checkpoint, newest_whole, read_checkpoint, weights_only
from .restricted_pickle import load_restricted_pickle
from .torchscript import is_torchscript, read_torchscript
from .write import guard_writing, whole_file, write_bytes, write_text

__all__ = [
    'check_download',
    'check_hub',
    'guard_mmengine',
    'guard_writing',
    'in_hub_cache',
    'is_torchscript',
    'is_whole',
    'latest_checkpoint',
    'load_restricted_pickle',
    'newest_whole',
    'read_config_text',
    'read_checkpoint',
    'read_torchscript',
    'register_handlers',
    'weights_only',
    'whole_file',
    'write_bytes',
    'write_text',
]
