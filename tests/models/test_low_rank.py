"""W = W_g + B A: ranks, names, checkpoints, merging."""

import copy
import math

import numpy as np
import open_clip
import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict as mmengine_load_state_dict
from mmpretrain.registry import MODELS
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations

from mmlt.checkpoints.split_state import fit_state_dict, merge_state_dict
from mmlt.errors import InputError
from mmlt.models.more import low_rank, merge, split_weights

CLIP = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'),
    head=dict(
        type='mmlt.TextClsHead',
        text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit'),
        classes=['apple', 'pear', 'plum'],
        logit_scale=20.0,
    ),
)


def resnet32():
    return dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.CIFARResNet', depth=32),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
    )


def linear(backbone, width):
    return dict(
        type='ImageClassifier', backbone=backbone, head=dict(type='LinearClsHead', num_classes=3, in_channels=width)
    )


def open_clip_tower(name):
    return linear(dict(type='mmlt.OpenCLIPVision', model=name), open_clip.get_model_config(name)['embed_dim'])


TINY = {
    'resnet-32': resnet32(),
    'vit': linear(
        dict(type='VisionTransformer', arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
             img_size=32, patch_size=8),
        32,
    ),
    'clip-vit': open_clip_tower('mmlt-tiny-vit'),
    'clip-rn': open_clip_tower('mmlt-tiny-rn'),
    'both-towers': CLIP,
}  # fmt: skip
REAL = {'vit-b16': open_clip_tower('ViT-B-16'), 'rn50': open_clip_tower('RN50')}


def build(cfg, seed=0):
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(cfg))
    for module in model.modules():  # statistics of another kind than those of a fresh model
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def with_tails(model, scale=0.02):
    """Low-rank parts that are not zero."""
    for name, parameter in model.named_parameters():
        if name.endswith('.0.B'):
            nn.init.normal_(parameter, std=scale)
    return model


def images(size=32):
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(3))


class Small(nn.Module):
    def __init__(self, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, groups=groups)
        self.attn = nn.MultiheadAttention(8, 2)
        self.cross = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
        self.fc = nn.Linear(20, 5)
        self.norm = nn.LayerNorm(8)
        self.embedding = nn.Embedding(7, 8)


ALL = [
    'conv.weight',
    'attn.in_proj_weight',
    'attn.out_proj.weight',
    'cross.q_proj_weight',
    'cross.k_proj_weight',
    'cross.v_proj_weight',
    'cross.out_proj.weight',
    'fc.weight',
]


# Ranks


@pytest.mark.parametrize(
    ('rank', 'shape', 'expected'),
    [
        (0.1, (64, 32, 3, 3), 6),  # min(64, 288)
        (0.1, (64, 2, 1, 1), 1),
        (0.1, (128, 49), 5),
        (0.1, (300, 1000), 30),
        (0.1, (10, 64), 1),
        (0.1, (3, 64), 1),  # at least 1
        (1.0, (10, 64), 10),
        (1, (10, 64), 1),
        (10, (10, 64), 10),
    ],
)
def test_rank(rank, shape, expected):
    assert low_rank(rank, shape) == expected


def test_rank_is_that_of_the_parts_and_of_their_product():
    model = Small()
    split_weights(model, rank=0.25)
    with_tails(model, 1.0)
    part = model.conv.parametrizations.weight
    assert (part[0].A.shape, part[0].B.shape) == ((2, 36), (6, 2))  # round(0.25 * min(6, 36)), to even
    assert torch.linalg.matrix_rank((model.conv.weight - part.original).flatten(1)) == 2


@pytest.mark.parametrize('rank', [0.0, -0.1, 1.5, float('nan')])
def test_ratio_outside_is_named(rank):
    with pytest.raises(InputError, match=r'ratio is .*in \(0, 1\]'):
        low_rank(rank, (4, 4))


@pytest.mark.parametrize('rank', [0, -1, True, '0.1', None])
def test_rank_that_is_none_is_named(rank):
    with pytest.raises(InputError, match='give a ratio in'):
        low_rank(rank, (4, 4))


def test_rank_larger_than_the_matrix_is_named():
    model = Small()
    with pytest.raises(
        InputError, match="rank of 6 is larger than the matrix of 'cross.v_proj_weight'.*rank 4 at most"
    ):
        split_weights(model, rank=6, exclude=['fc.*', 'cross.k_*'])
    # and nothing is half done
    assert set(model.state_dict()) == set(Small().state_dict())


# Which weights


def test_all_matrices_are_split():
    model = Small()
    assert sorted(split_weights(model).names) == sorted(ALL)
    assert {n for n, _ in model.named_parameters() if n.endswith('.original')} == {
        n[: n.rindex('.')] + '.parametrizations.' + n[n.rindex('.') + 1 :] + '.original' for n in ALL
    }


@pytest.mark.parametrize(
    ('layers', 'exclude', 'expected'),
    [
        ('conv.*', (), ['conv.weight']),
        (['attn.*', 'fc.weight'], (), ['attn.in_proj_weight', 'attn.out_proj.weight', 'fc.weight']),
        ('*in_proj_weight', (), ['attn.in_proj_weight']),
        ('*', ['cross.*', 'attn.*'], ['conv.weight', 'fc.weight']),
        ('attn.*', '*.out_proj.*', ['attn.in_proj_weight']),
    ],
)
def test_patterns(layers, exclude, expected):
    assert sorted(split_weights(Small(), layers, exclude).names) == sorted(expected)


@pytest.mark.parametrize(('layers', 'exclude'), [('convs.*', ()), (['conv.*', 'convs.*'], ()), ('*', 'convs.*')])
def test_pattern_without_a_layer_is_named(layers, exclude):
    with pytest.raises(InputError, match=r"'convs\.\*' matches no weight.*there are 8, for example 'conv.weight'"):
        split_weights(Small(), layers, exclude)


def test_model_without_matrices_is_named():
    with pytest.raises(InputError, match='there are 0, for example none'):
        split_weights(nn.LayerNorm(4))


def test_nothing_left_is_named():
    with pytest.raises(InputError, match='No weight is left to be split'):
        split_weights(Small(), 'conv.*', 'conv.*')
    with pytest.raises(InputError, match='are frozen'):
        split_weights(Small().requires_grad_(False))


def test_frozen_weights_stay_plain():
    model = Small()
    model.attn.requires_grad_(False)
    assert not any(n.startswith('attn') for n in split_weights(model).names)
    assert 'attn.in_proj_weight' in model.state_dict()


def test_shared_weight_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(InputError, match="'0.weight' and '1.weight' are one shared weight"):
        split_weights(model)


def test_parametrized_weight_is_named():
    model = nn.Sequential(nn.Linear(4, 4), parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(InputError, match="'1.weight' is parametrized already.*exclude"):
        split_weights(model)
    assert split_weights(model, exclude='1.*').names == ['0.weight']


# Starting values


def test_start_is_the_plain_model_with_kaiming_a():
    model, plain = Small(), Small()
    plain.load_state_dict(model.state_dict())
    split_weights(model)
    for name, module in model.named_modules():
        if hasattr(module, 'A'):
            assert not module.B.any()
            bound = 1 / math.sqrt(module.A.shape[1])
            assert 0.5 * bound < module.A.abs().max() <= bound, name
    for name in ALL:
        owner, attribute = name.rsplit('.', 1)
        assert torch.equal(getattr(model.get_submodule(owner), attribute), plain.state_dict()[name])


def test_split_draws_no_random_numbers_of_the_run_and_the_same_for_a_seed():
    parts = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        model = Small()
        state = torch.get_rng_state()
        split_weights(model)
        assert torch.equal(torch.get_rng_state(), state)
        parts.append(model.fc.parametrizations.weight[0].A)
    assert torch.equal(parts[0], parts[1]) and not torch.equal(parts[0], parts[2])


# The sum, by hand


@pytest.mark.parametrize('groups', [1, 2])
def test_weights_and_gradients_against_loops_in_double(groups):
    model = Small(groups).double()
    split_weights(model, rank=2)
    with_tails(model, 1.0)
    for name in ALL:
        owner, attribute = name.rsplit('.', 1)
        module = model.get_submodule(owner)
        chain = module.parametrizations[attribute]
        w, a, b = (t.detach().numpy() for t in (chain.original, chain[0].A, chain[0].B))
        expected = w.copy().reshape(len(w), -1)
        for i in range(expected.shape[0]):
            for j in range(expected.shape[1]):
                expected[i, j] += sum(b[i, k] * a[k, j] for k in range(2))
        upstream = torch.randn_like(chain.original)
        (getattr(module, attribute) * upstream).sum().backward()
        assert np.abs(getattr(module, attribute).detach().numpy() - expected.reshape(w.shape)).max() <= 1e-12
        g = upstream.flatten(1).numpy()
        for parameter, gradient in ((chain.original, g.reshape(w.shape)), (chain[0].A, b.T @ g), (chain[0].B, g @ a.T)):
            assert np.abs(parameter.grad.numpy() - gradient).max() <= 1e-12, name


def test_grouped_convolution_uses_the_sum():
    model = Small(groups=2)
    split_weights(model)
    with_tails(model)
    x = torch.randn(2, 4, 8, 8)
    expected = nn.functional.conv2d(x, model.conv.weight, model.conv.bias, groups=2)
    assert torch.equal(model.conv(x), expected)
    assert not torch.equal(model.conv.weight, model.conv.parametrizations.weight.original)


def test_switch_and_cache():
    model = Small()
    split = split_weights(model)
    with_tails(model)
    general = model.fc.parametrizations.weight.original
    full = model.fc.weight
    with split.general_only():
        assert model.fc.weight is general
        with split.computed_once():
            assert model.fc.weight is general
    assert torch.equal(model.fc.weight, full) and model.fc.weight is not model.fc.weight
    with split.computed_once():
        with torch.no_grad():
            assert not model.fc.weight.requires_grad
        assert model.fc.weight.requires_grad and model.fc.weight is model.fc.weight
        assert torch.equal(model.fc.weight, full)
    with pytest.raises(RuntimeError), split.general_only():
        raise RuntimeError
    assert torch.equal(model.fc.weight, full)


def test_autocast_adds_in_full_precision():
    model = Small()
    split_weights(model)
    with_tails(model)
    expected = model.fc.weight
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(model.fc.weight, expected)
        assert model.fc(torch.randn(2, 20)).dtype == torch.bfloat16


# Whole networks


@pytest.mark.parametrize(
    'name', [*TINY, *(pytest.param(n, marks=pytest.mark.slow) for n in REAL)]
)  # fmt: skip
@torch.no_grad()
def test_zero_tail_and_merge_are_the_plain_model(name):
    cfg = {**TINY, **REAL}[name]
    plain, model = build(cfg), build(cfg)
    x = images(224 if name in REAL else 32)
    expected = plain(x)
    split = split_weights(model)
    assert (model(x) - expected).abs().max() <= 1e-6
    with_tails(model)
    for module in model.modules():  # class features were kept
        module.text_features = None
    full = model(x)
    assert (full - expected).abs().max() > 1e-3
    if name != 'both-towers':
        with split.general_only():
            assert (model(x) - expected).abs().max() <= 1e-6
    state = merge_state_dict(model.state_dict())
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in plain.state_dict().items()}
    plain.load_state_dict(state)
    assert (plain(x) - full).abs().max() <= 1e-5
    merge(model)
    assert (model(x) - full).abs().max() <= 1e-5
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert {type(m) for m in model.modules()} == {type(m) for m in plain.modules()}


def test_both_towers_are_split_with_their_projections():
    names = split_weights(build(CLIP)).names
    assert any(n.startswith('backbone.visual') and n.endswith('in_proj_weight') for n in names)
    assert any(n.startswith('head.text') and n.endswith('in_proj_weight') for n in names)
    # matrices that are bare parameters are no layers
    assert not any(n.endswith(('text_projection', 'visual.proj', 'positional_embedding')) for n in names)


# Checkpoints


@pytest.mark.parametrize('load', ['strict', 'mmengine'])
@pytest.mark.parametrize('name', ['resnet-32', 'clip-vit', 'clip-rn'])
def test_plain_checkpoint_loads(name, load):
    plain, model = build(TINY[name], seed=1), build(TINY[name], seed=2)
    split_weights(model)
    with_tails(model)
    a = {n: p.detach().clone() for n, p in model.named_parameters() if n.endswith('.0.A')}
    if load == 'strict':
        model.load_state_dict(plain.state_dict())
    else:
        mmengine_load_state_dict(model, plain.state_dict(), strict=True)
    assert all(not p.any() for n, p in model.named_parameters() if n.endswith('.0.B'))
    assert all(torch.equal(p, a[n]) for n, p in model.named_parameters() if n in a)
    with torch.no_grad():
        assert (model(images()) - plain(images())).abs().max() <= 1e-6


def test_weight_file_of_open_clip_loads_into_split_towers(clip_file):
    cfg = copy.deepcopy(CLIP)
    cfg['backbone']['pretrained'] = cfg['head']['text']['pretrained'] = clip_file
    model = build(cfg)
    split = split_weights(model)
    with split.general_only():
        model.init_weights()
    weights = load_file(clip_file)
    state = merge_state_dict(model.state_dict())
    for key in ('visual.transformer.resblocks.0.attn.in_proj_weight', 'visual.conv1.weight'):
        assert torch.equal(state[f'backbone.{key}'], weights[key])
    assert torch.equal(
        state['head.text.clip.transformer.resblocks.1.mlp.c_fc.weight'],
        weights['transformer.resblocks.1.mlp.c_fc.weight'],
    )


def test_split_checkpoint_loads_as_it_is():
    first, second = build(TINY['clip-rn'], 1), build(TINY['clip-rn'], 2)
    for model in (first, second):
        split_weights(model)
    with_tails(first)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters()))


def test_missing_weight_is_no_silent_miss():
    model = Small()
    split_weights(model)
    state = Small().state_dict()
    del state['fc.weight']
    with pytest.raises(RuntimeError, match=r'Missing key.*fc\.parametrizations\.weight\.original'):
        model.load_state_dict(state)


def test_split_checkpoint_does_not_load_into_the_plain_model():
    model = Small()
    split_weights(model)
    with pytest.raises(RuntimeError, match='Unexpected key'):
        Small().load_state_dict(model.state_dict())


def test_fit_state_dict():
    model, plain = Small(), Small()
    state = plain.state_dict()
    assert fit_state_dict(plain, state) == state
    split_weights(model)
    fitted = fit_state_dict(model, state)
    assert set(fitted) == set(model.state_dict()) and set(state) == set(plain.state_dict())
    assert fitted['fc.parametrizations.weight.original'] is state['fc.weight']


def test_merge_of_half_a_checkpoint_is_named():
    model = Small()
    split_weights(model)
    state = model.state_dict()
    del state['fc.parametrizations.weight.0.B']
    with pytest.raises(InputError, match=r"not 'fc\.parametrizations\.weight\.0\.B'"):
        merge_state_dict(state)


def test_merge_of_a_plain_state_dict_changes_nothing():
    state = Small().state_dict()
    assert merge_state_dict(state) == state


def test_merged_copy_leaves_the_original_alone():
    """A deepcopy (EMA makes one) shares the class that holds the weight's property."""
    model = Small()
    split_weights(model)
    with_tails(model)
    expected = model.fc.weight
    twin = copy.deepcopy(model)
    merge(twin)
    assert torch.equal(twin.fc.weight, expected) and type(twin.fc) is nn.Linear
    assert torch.equal(model.fc.weight, expected)
    merge(model)
    assert torch.equal(model.fc.weight, expected)
    # and it loads plain checkpoints plainly
    model.load_state_dict(Small().state_dict())


def test_merged_parameters_are_those_of_the_optimizer():
    model = Small()
    split_weights(model)
    before = dict(model.named_parameters())
    merge(model)
    assert model.fc.weight is before['fc.parametrizations.weight.original']
    assert isinstance(model.fc.weight, nn.Parameter) and model.fc.weight.requires_grad
