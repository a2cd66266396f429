from mmlt.utils.prompts import BALLAD_TEMPLATES, CLIP_TEMPLATE, class_prompts, get_templates

from .functional import (
    TextPlan,
    can_shorten,
    encode_text,
    equal_groups,
    few_groups,
    length_groups,
    plan_texts,
    shared_prefix,
    text_lengths,
)
from .open_clip_text import OpenCLIPText

__all__ = [
    'BALLAD_TEMPLATES',
    'CLIP_TEMPLATE',
    'OpenCLIPText',
    'TextPlan',
    'can_shorten',
    'class_prompts',
    'encode_text',
    'equal_groups',
    'few_groups',
    'get_templates',
    'length_groups',
    'plan_texts',
    'shared_prefix',
    'text_lengths',
]
