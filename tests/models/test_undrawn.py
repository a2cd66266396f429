"""Weights that are overwritten at once are not drawn, and nothing else changes."""

import json
import math
import shutil

import open_clip
import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from torch import nn

from mmlt import InputError
from mmlt.engine.weights import load_weights
from mmlt.models.open_clip_towers import OpenCLIPTowers
from mmlt.models.undrawn import drawn, undrawn

MODEL = 'mmlt-tiny-vit'
TEXT = dict(context_length=16, vocab_size=49408, width=64, heads=2, layers=1)
# Another kind of tower each, beside open_clip's two.
CONFIGS = {
    'tiny-timm': dict(embed_dim=32, vision_cfg=dict(timm_model_name='test_vit', timm_proj='linear', image_size=160)),
    'tiny-timm-resnet': dict(embed_dim=32, vision_cfg=dict(timm_model_name='test_resnet', image_size=160)),
    'tiny-pooled': dict(
        embed_dim=32,
        vision_cfg=dict(image_size=32, layers=1, width=64, head_width=32, patch_size=8, attentional_pool=True),
        custom_text=True,
    ),
    'tiny-coca': dict(
        embed_dim=64,
        vision_cfg=dict(image_size=32, layers=1, width=64, head_width=32, patch_size=8, attentional_pool=True),
        multimodal_cfg=dict(context_length=16, vocab_size=49408, width=64, heads=2, layers=1),
        custom_text=True,
    ),
}

UNSET = 'text_decoder.text_projection'  # open_clip leaves this one of CoCa as it finds the memory


@pytest.fixture(params=[MODEL, 'mmlt-tiny-rn', *CONFIGS])
def model(request, monkeypatch):
    """Name of an open_clip model."""
    name = request.param
    if name in CONFIGS:
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, {'text_cfg': TEXT, **CONFIGS[name]})
    return name


@pytest.fixture
def weights(model, tmp_path):
    torch.manual_seed(7)
    clip = open_clip.create_model(model, load_weights=False)
    with torch.no_grad():
        for p in clip.parameters():
            p.nan_to_num_()  # see UNSET
    path = tmp_path / 'weights.safetensors'
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, path)
    return str(path)


def contents(module):
    """Every parameter and buffer, those that no checkpoint holds, too."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name], other[name]), name


def test_loaded_towers_are_bit_equal_to_drawn_ones(model, weights):
    with drawn():
        before = OpenCLIPTowers(model, weights, None, None)
    now = OpenCLIPTowers(model, weights, None, None)
    clips = before.clip, now.clip
    assert any(p.isnan().all() for p in clips[1].parameters())
    assert not any(p.isnan().any() for name, p in clips[0].named_parameters() if name != UNSET)
    before.load()
    now.load()
    assert_equal(*(contents(clip) for clip in clips))
    assert [p.requires_grad for p in clips[0].parameters()] == [p.requires_grad for p in clips[1].parameters()]


def test_without_pretrained_weights_the_same_numbers_are_drawn(model):
    torch.manual_seed(3)
    expected = open_clip.create_model(model, load_weights=False)
    after = torch.rand(3)
    torch.manual_seed(3)
    towers = OpenCLIPTowers(model, None, None, None)
    found, expected = contents(towers.clip), contents(expected)
    for tensors in (found, expected):
        tensors.pop(UNSET, None)
    assert_equal(found, expected)
    assert torch.equal(torch.rand(3), after)


def test_a_folder_with_weights(tmp_path, clip_file):
    """The second model, from which a folder's weights come, draws nothing either."""
    config = dict(model_cfg=open_clip.get_model_config(MODEL), preprocess_cfg=dict(size=32))
    (tmp_path / 'open_clip_config.json').write_text(json.dumps(config))
    shutil.copy(clip_file, tmp_path / 'open_clip_model.safetensors')
    state = torch.get_rng_state()
    towers = OpenCLIPTowers(f'local-dir:{tmp_path}', None, None, None)
    clip = towers.clip
    towers.load()
    assert torch.equal(torch.get_rng_state(), state)
    expected = OpenCLIPTowers(MODEL, clip_file, None, None)
    filled = expected.clip
    expected.load()
    assert_equal(contents(clip), contents(filled))


@pytest.mark.parametrize('name', ['uniform', 'normal', 'trunc_normal', 'xavier_uniform', 'xavier_normal'])
@pytest.mark.parametrize('context', [undrawn, drawn])
def test_initialisers(name, context):
    _check_initialiser(getattr(nn.init, f'{name}_'), context)


@pytest.mark.parametrize('name', ['kaiming_uniform', 'kaiming_normal', 'orthogonal'])
@pytest.mark.parametrize('context', [undrawn, drawn])
def test_initialisers_by_size(name, context):
    _check_initialiser(getattr(nn.init, f'{name}_'), context)


def _check_initialiser(function, context):
    state = torch.get_rng_state()
    with context():
        weight = nn.Parameter(torch.zeros(4, 5))
        assert function(weight) is weight
        assert function(tensor=weight) is weight
    assert bool(weight.isnan().all()) == (context is undrawn)
    assert torch.equal(torch.get_rng_state(), state) == (context is undrawn)


def test_draws_and_what_is_no_draw():
    state = torch.get_rng_state()
    with undrawn():
        made = torch.randn(2, 3), torch.rand((3, 2), dtype=torch.float64), torch.zeros(3).normal_(std=2.0)
        kept = torch.ones(2), torch.arange(6).view(2, 3), nn.LayerNorm(4).weight.detach(), torch.eye(2)
        product = nn.Parameter(5 * torch.randn(3, 2))
    assert [tuple(t.shape) for t in made] == [(2, 3), (3, 2), (3,)] and made[1].dtype == torch.float64
    assert all(t.isnan().all() for t in (*made, product))
    assert product.requires_grad and product.is_leaf
    assert [t.tolist() for t in kept] == [[1, 1], [[0, 1, 2], [3, 4, 5]], [1] * 4, [[1, 0], [0, 1]]]
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_come_back_after_an_error():
    with pytest.raises(ZeroDivisionError), undrawn():
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), drawn():
        _ = 1 / 0
    assert not torch.randn(3).isnan().any()
    with undrawn():
        assert torch.randn(3).isnan().all()


def classifier(pretrained):
    clip = dict(model=MODEL, pretrained=pretrained)
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', **clip),
            head=dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', **clip), classes=['cat', 'dog']),
        )
    ).eval()


def test_a_checkpoint_alone_completes_a_model(clip_file, tmp_path):
    """As in a test of a checkpoint, which reads no pretrained weights."""
    source = classifier(None)
    with torch.no_grad():
        for p in source.parameters():
            p.add_(0.01)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'whole.pth')
    model = classifier(clip_file)
    load_weights(model, tmp_path / 'whole.pth')
    assert_equal(contents(model), contents(source))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x, mode='tensor')[-1], source(x, mode='tensor')[-1])


def test_a_model_that_is_not_filled_says_nothing(clip_file):
    """Not a number rather than a number that means nothing."""
    scores = classifier(clip_file).head(classifier(clip_file).backbone(torch.randn(2, 3, 32, 32)))
    assert scores.isnan().all()


def test_a_checkpoint_that_lacks_a_weight_is_refused(clip_file, tmp_path):
    state = classifier(None).state_dict()
    del state['backbone.visual.conv1.weight']
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    with pytest.raises(InputError, match='lacks 1 weights .*backbone.visual.conv1.weight'):
        load_weights(classifier(clip_file), tmp_path / 'part.pth')


def test_later_draws_do_not_depend_on_the_tower(clip_file):
    """A head that follows a pretrained tower begins with the same numbers whatever the tower."""
    drawn_after = []
    for model, pretrained in ((MODEL, clip_file), (None, None)):
        torch.manual_seed(11)
        if model:
            OpenCLIPTowers(model, pretrained, None, None)
        drawn_after.append(nn.Linear(3, 2).weight)
    assert torch.equal(*drawn_after)
    assert math.isfinite(float(drawn_after[0].sum()))
