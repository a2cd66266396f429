import pytest
import torch
from mmpretrain.registry import MODELS

from mmlt import InputError


def build(**options):
    return MODELS.build(dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit', **options))


def test_checkpoint_of_the_other_activation_is_refused():
    quick = build(quick_gelu=True)
    state = quick.state_dict()
    build(quick_gelu=True).load_state_dict(state)
    with pytest.raises(InputError, match='trained with QuickGELU, but .* with GELU: set quick_gelu=True'):
        build().load_state_dict(state)
    with pytest.raises(InputError, match='trained with GELU, but .* with QuickGELU: set quick_gelu=False'):
        quick.load_state_dict(build().state_dict())
    # what the guard prevents: the same weights give other features
    plain = build()
    plain.clip.load_state_dict(quick.clip.state_dict())
    tokens = plain.tokenize(['a photo of a dog.'])
    assert not torch.allclose(plain(tokens), quick(tokens), atol=1e-4)


def test_weights_from_elsewhere_load_without_the_mark():
    text = build()
    state = {k: v for k, v in text.state_dict().items() if 'activation' not in k}
    state['clip.text_projection'] = state['clip.text_projection'] + 1
    text.load_state_dict(state)
    assert torch.equal(text.clip.text_projection, state['clip.text_projection'])


def test_setting_that_contradicts_the_tag_is_refused():
    options = dict(type='mmlt.OpenCLIPText', model='ViT-B-32', pretrained='openai')
    with pytest.raises(InputError, match="contradicts the weights 'openai' of 'ViT-B-32'"):
        MODELS.build(dict(quick_gelu=False, **options))
    with pytest.raises(InputError, match='contradicts'):
        MODELS.build(dict(type='mmlt.OpenCLIPText', model='RN50-quickgelu', quick_gelu=False))
