"""Registries of mmlt.

They hang below MMEngine's root registries under the scope ``mmlt``, so every
mm project can name a component as ``type='mmlt.X'``, whatever its own default
scope is.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

RUNNERS = Registry('runner', parent=MMENGINE_RUNNERS, scope='mmlt', locations=['mmlt.engine'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmlt', locations=['mmlt.engine'])
OPTIM_WRAPPERS = Registry('optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='mmlt', locations=['mmlt.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmlt',
    locations=['mmlt.engine'],
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=MMENGINE_PARAM_SCHEDULERS, scope='mmlt', locations=['mmlt.engine']
)
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmlt', locations=['mmlt.datasets'])
DATA_SAMPLERS = Registry('data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='mmlt', locations=['mmlt.datasets'])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='mmlt', locations=['mmlt.datasets'])
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope='mmlt', locations=['mmlt.evaluation'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmlt', locations=['mmlt.models'])
