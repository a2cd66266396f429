"""mmlt: vision-language long-tailed recognition for MMPretrain.

Importing the package registers all of its components under the scope ``mmlt``.
"""

import warnings

with warnings.catch_warnings():
    # mmcv-lite says at import that its compiled operators are missing; nothing here uses them.
    warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
    import mmpretrain.models  # noqa: F401

from mmlt import checkpoints, datasets, engine, evaluation, models
from mmlt.errors import InputError, tell_without_traceback
from mmlt.version import __version__

tell_without_traceback()

# mmcv's ColorJitter says this in every worker; the three adjustments of the configs are the same in both backends.
warnings.filterwarnings('ignore', message="Only use 'alpha' for pillow backend")

__all__ = ['InputError', '__version__', 'checkpoints', 'datasets', 'engine', 'evaluation', 'models']
