from .fit import Run, fit, load
from .inference import Inferencer, find_pictures, inference
from .models import get_model, list_models, load_weights, register_models

__all__ = [
    'Inferencer',
    'Run',
    'find_pictures',
    'fit',
    'get_model',
    'inference',
    'list_models',
    'load',
    'load_weights',
    'register_models',
]
