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
from .write import (
    WriteError,
    check_folder,
    register_writer,
    remove_parts,
    save_figure,
    save_json,
    save_tensors,
    save_torch,
    write_atomic,
)

register_loaders()
register_handlers()
register_writer()

__all__ = [
    'DamagedError',
    'WriteError',
    'check_folder',
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
    'register_writer',
    'remove_parts',
    'save_figure',
    'save_json',
    'save_tensors',
    'save_torch',
    'why_unreadable',
    'write_atomic',
]
