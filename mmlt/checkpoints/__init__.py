"""Reading of checkpoints and of what is beside them: data come through, nothing that runs does.

Importing the package puts its readers in the place of MMEngine's, so that its
Runner, its hooks and MMPretrain's tools are served as well.
"""

from .config_text import config_of_text
from .file_handlers import register_handlers
from .latest import latest_whole_checkpoint, newest_checkpoint
from .read import DamagedError, read_checkpoint, read_weights
from .restricted_pickle import load_restricted_pickle
from .schemes import register_loaders
from .torchscript import is_torchscript
from .unreadable import damage, why_unreadable

register_loaders()
register_handlers()

__all__ = [
    'DamagedError',
    'config_of_text',
    'damage',
    'is_torchscript',
    'latest_whole_checkpoint',
    'load_restricted_pickle',
    'newest_checkpoint',
    'read_checkpoint',
    'read_weights',
    'register_handlers',
    'register_loaders',
    'why_unreadable',
]
