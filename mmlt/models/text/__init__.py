from .functional import can_shorten, encode_text, shared_prefix, text_lengths
from .open_clip_text import OpenCLIPText
from .prompts import BALLAD_TEMPLATES, CLIP_TEMPLATE, class_prompts, get_templates

__all__ = [
    'BALLAD_TEMPLATES',
    'CLIP_TEMPLATE',
    'OpenCLIPText',
    'can_shorten',
    'class_prompts',
    'encode_text',
    'get_templates',
    'shared_prefix',
    'text_lengths',
]
