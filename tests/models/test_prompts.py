"""Templates by name and class names in them."""

import open_clip
import pytest

from mmlt import InputError
from mmlt.models.text import BALLAD_TEMPLATES, CLIP_TEMPLATE, class_prompts, get_templates


def test_named_templates():
    assert get_templates('clip') == ['a photo of a {}.'] == [CLIP_TEMPLATE]
    imagenet = get_templates('imagenet')
    assert len(imagenet) == 80
    assert [t.replace('{}', 'tench') for t in imagenet] == [t('tench') for t in open_clip.OPENAI_IMAGENET_TEMPLATES]


def test_ballads_templates_are_clips_seven_with_the_papers_wording():
    assert get_templates('ballad') == list(BALLAD_TEMPLATES)
    seven = [t('{}') for t in open_clip.SIMPLE_IMAGENET_TEMPLATES]
    assert sorted(BALLAD_TEMPLATES) == sorted(t.replace('in a video', 'in the video') for t in seven)


def test_own_templates():
    assert get_templates('art of the {}.') == ['art of the {}.']
    assert get_templates(['{}', 'a {} or a {}']) == ['{}', 'a {} or a {}']
    assert get_templates(('{}',)) == ['{}']


def test_a_named_list_is_not_shared():
    get_templates('ballad').append('broken')
    assert len(get_templates('ballad')) == 7


def test_prompts_are_one_list_a_template():
    prompts = class_prompts(['cat', 'sea lion'], ['a {}.', 'the {}, a {}'])
    assert prompts == [['a cat.', 'a sea lion.'], ['the cat, a cat', 'the sea lion, a sea lion']]


@pytest.mark.parametrize('name', ['curly {braces}', '100 %', '{0}', '{'])
def test_odd_class_names_are_taken_as_they_are(name):
    assert class_prompts([name], 'clip') == [[f'a photo of a {name}.']]


def test_bad_templates():
    with pytest.raises(InputError, match=r"template 'a photo of a cat' has no \{\}"):
        get_templates('a photo of a cat')
    with pytest.raises(InputError, match=r"template 'balad' has no \{\}"):
        get_templates('balad')
    with pytest.raises(InputError, match=r"template 'the \{name\}' has no \{\}"):
        class_prompts(['cat'], ['a {}', 'the {name}'])
    with pytest.raises(InputError, match='no prompt template: give at least one'):
        get_templates([])
