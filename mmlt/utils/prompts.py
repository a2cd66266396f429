"""Prompts: class names put into templates."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip

from mmlt.errors import InputError

CLIP_TEMPLATE = 'a photo of a {}.'

# The seven templates that the BALLAD paper ensembles (appendix C); the list is CLIP's own advice.
BALLAD_TEMPLATES = (
    'itap of a {}.',
    'a bad photo of the {}.',
    'a origami {}.',
    'a photo of the large {}.',
    'a {} in the video game.',
    'art of the {}.',
    'a photo of the small {}.',
)


def get_templates(templates: str | Sequence[str]) -> list[str]:
    """Templates by name or as given.

    Args:
        templates (str | Sequence[str]): ``'clip'`` ("a photo of a {}."),
            ``'ballad'`` (the seven of its appendix C), ``'imagenet'`` (CLIP's
            80 for ImageNet, from open_clip), one template, or several. A
            template holds ``{}`` where the class name goes.

    Returns:
        list[str]: The templates.

    Raises:
        InputError: A template without ``{}``.
    """
    if isinstance(templates, str):
        named = {
            'clip': [CLIP_TEMPLATE],
            'ballad': list(BALLAD_TEMPLATES),
            'imagenet': [t('{}') for t in open_clip.OPENAI_IMAGENET_TEMPLATES],
        }
        templates = named.get(templates, [templates])
    templates = list(templates)
    for t in templates:
        if '{}' not in t:
            raise InputError(f"The prompt template '{t}' has no {{}} where the class name goes.")
    if not templates:
        raise InputError("There is no prompt template: give at least one, for example 'a photo of a {}.'")
    return templates


def class_prompts(classes: Sequence[str], templates: str | Sequence[str]) -> list[list[str]]:
    """Put every class name into every template.

    Args:
        classes (Sequence[str]): C class names.
        templates (str | Sequence[str]): See :func:`get_templates`.

    Returns:
        list[list[str]]: T lists of C prompts.
    """
    return [[t.replace('{}', name) for name in classes] for t in get_templates(templates)]
