from .inference import Inferencer, find_pictures, inference
from .models import get_model, list_models, load_weights, register_models

__all__ = ['Inferencer', 'find_pictures', 'get_model', 'inference', 'list_models', 'load_weights', 'register_models']
