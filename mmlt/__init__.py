"""mmlt: vision-language long-tailed recognition for MMPretrain.

Importing the package registers all of its components under the scope ``mmlt``.
"""

import warnings

from mmlt.stack import clash, mend_package_lookup

if (sentence := clash()) is not None:
    warnings.warn(sentence, stacklevel=2)

with warnings.catch_warnings():
    # mmcv-lite says at import that its compiled operators are missing; nothing here uses them.
    warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
    import mmpretrain.models  # noqa: F401

from mmlt import datasets, engine, evaluation, models
from mmlt.checkpoints import guard_mmengine, guard_writing, register_handlers
from mmlt.engine.config_text import remember_layouts
from mmlt.engine.workers import accept_auto_workers
from mmlt.errors import InputError, tell_without_traceback
from mmlt.version import __version__

guard_mmengine()
guard_writing()
register_handlers()
mend_package_lookup()
tell_without_traceback()
remember_layouts()
accept_auto_workers()

# mmcv's ColorJitter says this in every worker; the three adjustments of the configs are the same in both backends.
warnings.filterwarnings('ignore', message="Only use 'alpha' for pillow backend")


def __getattr__(name: str):
    """``mmlt.fit`` and ``mmlt.load``, whose imports nobody else waits for."""
    if name in ('fit', 'load'):
        from mmlt import apis

        return getattr(apis, name)
    raise AttributeError(f"module 'mmlt' has no attribute '{name}'")


__all__ = ['InputError', '__version__', 'datasets', 'engine', 'evaluation', 'fit', 'load', 'models']
