"""Vision Transformers of timm: timm's values, its positions at any size, LIFT's adapters, and what is refused."""

import copy
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.models import TimmViT
from mmlt.models.backbones import adapter_bottleneck
from mmlt.utils.class_info import ClassInfo

DINO, REG, DINO3 = 'vit_small_patch14_dinov2', 'vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3'
SIGLIP, GAP, DEIT3 = 'vit_base_patch16_siglip_224', 'vit_base_patch16_siglip_gap_224', 'deit3_small_patch16_224'
DISTILLED, EVA = 'deit_tiny_distilled_patch16_224', 'eva02_tiny_patch14_224'
WIDTH, BLOCKS = 48, 2
TINY = dict(depth=BLOCKS, embed_dim=WIDTH, num_heads=3)
SIZE = {DINO: 28, REG: 28, DINO3: 32, SIGLIP: 32, GAP: 32, DEIT3: 32, DISTILLED: 32, EVA: 28}
ADAPTER = dict(type='mmlt.AdaptFormer', bottleneck=3)


def built(model, size=None, **kwargs):
    """A tower with random weights none of which is 0 or 1, as after a training: norms, registers and scales count."""
    tower = TimmViT(model, image_size=size or SIZE[model], options=TINY, **kwargs)
    return stirred(tower.visual) and tower.eval()


@torch.no_grad()
def stirred(module):
    for parameter in module.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def reference(tower, **kwargs):
    """timm's own model with the weights of a tower."""
    size = tower.visual.patch_embed.img_size
    own = timm.create_model(tower.model_name, num_classes=0, img_size=size, **TINY, **kwargs).eval()
    own.load_state_dict(tower.visual.state_dict())
    return own


def images(size, number=2):
    return torch.randn(number, 3, size, size)


# timm's values


@pytest.mark.parametrize('adapter', [None, ADAPTER], ids=['plain', 'adapters'])
@pytest.mark.parametrize('model', SIZE)
def test_values_are_timms(model, adapter):
    tower, x = built(model, adapter=adapter), images(SIZE[model])
    own = reference(tower)
    out = tower(x)
    assert isinstance(out, tuple) and len(out) == 1 and out[0].shape == (2, tower.out_channels) == (2, WIDTH)
    tokens = own.forward_features(x)
    rounding = 1e-6 * tokens.abs().max().clamp(min=1)
    assert (tower.visual.forward_features(x) - tokens).abs().max() <= rounding
    assert (out[0] - own.forward_head(tokens, pre_logits=True)).abs().max() <= rounding
    assert (out[0] - own(x)).abs().max() <= rounding
    assert out[0].std(0).min() > 1e-5  # pictures are told apart


@pytest.mark.parametrize('pooling', ['cls', 'avg', 'cls+avg'])
@pytest.mark.parametrize('model', [DINO, REG, DINO3, GAP, EVA, DISTILLED])
def test_pooling_is_the_formula(model, pooling):
    if model == GAP and 'cls' in pooling:
        with pytest.raises(InputError, match=f"'{model}' has no class token, so pooling='cls.*set 'avg' or 'timm'"):
            built(model, pooling=pooling)
        return
    tower, x = built(model, pooling=pooling).double(), images(SIZE[model]).double()
    tokens = tower.visual.forward_features(x)
    prefix = {DINO: 1, REG: 5, DINO3: 5, GAP: 0, EVA: 1, DISTILLED: 2}[model]
    rows = []
    for image in tokens:
        patches = image[prefix:]
        assert len(patches) == 4
        mean = sum(patches) / 4
        rows.append(torch.cat([{'cls': image[0], 'avg': mean}[part] for part in pooling.split('+')]))
    norm = tower.visual.fc_norm  # of models that pool before they normalise
    expected = torch.cat([norm(part) for part in torch.stack(rows).split(WIDTH, -1)], -1)
    assert tower.out_channels == expected.shape[1] == WIDTH * (1 + ('+' in pooling))
    assert (tower(x)[0] - expected).abs().max() <= 1e-12


def test_pooling_of_other_models_is_their_own():
    tower = built(SIGLIP, pooling='avg')
    assert not any(p.requires_grad for p in tower.visual.attn_pool.parameters())  # unused
    assert all(p.requires_grad for p in built(SIGLIP).visual.attn_pool.parameters())
    with pytest.raises(InputError, match="pooling is 'max'; choose one of 'cls', 'avg', 'cls\\+avg', 'timm'"):
        built(DINO, pooling='max')


# Sizes


@pytest.mark.parametrize('size', [14, 42, 56, 70])
@pytest.mark.parametrize('model', [DINO, REG])
def test_positions_are_resized_as_timm_does(model, size, tmp_path):
    path = str(tmp_path / 'weights.pth')
    torch.save(built(model, 42).visual.state_dict(), path)
    tower = TimmViT(model, path, image_size=size, options=TINY)
    tower.init_weights()
    own = timm.create_model(
        model,
        num_classes=0,
        img_size=size,
        pretrained=True,
        pretrained_cfg_overlay=dict(state_dict=torch.load(path, weights_only=True)),
        **TINY,
    ).eval()
    assert tower.visual.pos_embed.shape[1] == (size // 14) ** 2 + (model == DINO)
    x = images(size)
    assert torch.equal(tower.eval()(x)[0], own(x))


@pytest.mark.parametrize('model', [DINO, REG, DINO3])
def test_dynamic_takes_all_sizes(model):
    tower, patch = built(model, dynamic=True), SIZE[model] // 2
    own = reference(tower, dynamic_img_size=True)
    for height, width in ((2, 2), (3, 3), (1, 4)):
        x = torch.randn(1, 3, height * patch, width * patch)
        assert (tower(x)[0] - own(x)).abs().max() <= 1e-6
    with pytest.raises(InputError, match=f'not filled by the patches of {patch} pixels .* choose a multiple'):
        tower(images(SIZE[model] + 1))


def test_wrong_sizes():
    with pytest.raises(InputError, match='30 x 30 are not filled by the patches of 14 pixels .* such as 28 or 42'):
        built(DINO, 30)
    with pytest.raises(
        InputError, match='28 x 42 and .* built for 28 x 28: resize them to 28 x 28, or set .*dynamic=T'
    ):
        built(DINO)(torch.randn(1, 3, 28, 42))
    with pytest.raises(InputError, match='28 x 30 are not .* in place of 30 choose a multiple such as 28 or 42'):
        built(DINO, dynamic=True)(torch.randn(1, 3, 28, 30))
    with pytest.raises(InputError, match=r'42 x 42 and .* built for 28 x 28: set model.backbone.image_size=42, or d'):
        built(DINO)(images(42))
    for size in (0, '28', 28.0):
        with pytest.raises(InputError, match='image_size is .*: give a number of pixels'):
            TimmViT(DINO, image_size=size)


# LIFT's adapters


def layer_norm(x, norm):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean) ** 2).mean(-1, keepdim=True).add(norm.eps).sqrt() * norm.weight + norm.bias


def naive_block(block, adapter, x):
    """x + a(LN(x)), then x + l MLP(LN(x)) + s up(ReLU(down(LN'(x)))), head by head."""
    attention, heads = block.attn, []
    q, k, v = (layer_norm(x, block.norm1) @ attention.qkv.weight.t() + attention.qkv.bias).chunk(3, -1)
    size = WIDTH // 3
    for h in range(3):
        part = slice(h * size, (h + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(-1, -2) / math.sqrt(size)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(weights @ v[..., part])
    x = x + block.ls1.gamma * (torch.cat(heads, -1) @ attention.proj.weight.t() + attention.proj.bias)
    y = layer_norm(x, block.norm2) @ block.mlp.fc1.weight.t() + block.mlp.fc1.bias
    y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
    y = block.ls2.gamma * (y @ block.mlp.fc2.weight.t() + block.mlp.fc2.bias)
    hidden = (layer_norm(x, adapter.norm) @ adapter.down.weight.t() + adapter.down.bias).clamp(min=0)
    return x + y + adapter.scale * (hidden @ adapter.up.weight.t() + adapter.up.bias)


def naive_tokens(tower, x):
    """A DINOv2 with registers, by its equations."""
    visual = tower.visual
    patches = x.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = patches @ visual.patch_embed.proj.weight.flatten(1).t() + visual.patch_embed.proj.bias
    tokens = tokens + visual.pos_embed  # of the patches only
    tokens = torch.cat([visual.cls_token.expand(len(x), 1, -1), visual.reg_token.expand(len(x), 4, -1), tokens], 1)
    for block, adapter in zip(visual.blocks, tower.adapters):
        tokens = naive_block(block, adapter, tokens)
    return layer_norm(tokens, visual.norm)


def test_adapted_tower_is_the_naive_one():
    tower = built(REG, adapter=ADAPTER, pooling='cls+avg').double()
    stirred(tower.adapters)
    x = images(28).double()
    with torch.no_grad():
        tokens = naive_tokens(tower, x)
        expected = torch.cat([tokens[:, 0], sum(tokens[:, 5 + i] for i in range(4)) / 4], -1)
        assert (tower(x)[0] - expected).abs().max() <= 1e-10
        for adapter in tower.adapters:
            adapter.scale.zero_()
        assert (tower(x)[0] - expected).abs().max() > 1e-3


@pytest.mark.parametrize('model', [DINO3, EVA])
def test_blocks_of_eva_have_the_branch_too(model):
    tower, x = built(model, adapter=ADAPTER), images(SIZE[model])
    stirred(tower.adapters)
    block, adapter = tower.visual.blocks[0], tower.adapters[0]
    plain, tokens = reference(tower).blocks[0], torch.randn(2, 5, WIDTH)
    attended = plain.norm1(tokens)
    scale = 1 if plain.gamma_1 is None else plain.gamma_1
    attended = tokens + scale * plain.attn(attended)
    assert (block(tokens) - plain(tokens) - adapter(attended)).abs().max() <= 1e-5
    assert (tower(x)[0] - reference(tower)(x)).abs().max() > 1e-3


@pytest.mark.parametrize('model', [REG, DINO3, SIGLIP])
def test_only_the_adapters_are_trained(model):
    tower = built(model, adapter=dict(type='mmlt.AdaptFormer', num_classes=16)).train()
    b = adapter_bottleneck(16, BLOCKS)
    trained = {n: p for n, p in tower.named_parameters() if p.requires_grad}
    per_block = 2 * WIDTH + (WIDTH + 1) * b + (b + 1) * WIDTH + 1
    assert b == 4 and sum(p.numel() for p in trained.values()) == BLOCKS * per_block
    assert all(n.startswith('adapters.') for n in trained)
    assert not any(m.training for m in tower.visual.modules()) and tower.adapters[0].training
    before = copy.deepcopy(tower.state_dict())
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):  # at first, only `up` has a gradient
        optimizer.zero_grad()
        tower(images(SIZE[model]))[0][:, 0].sum().backward()  # of all numbers the norm would fix the sum
        optimizer.step()
    assert {n for n, v in tower.state_dict().items() if not torch.equal(v, before[n])} == set(trained)


def test_number_of_trained_weights_of_lift_on_vit_b14():
    """768 wide, 12 blocks, 1,000 classes: adapters of width 32, 0.7 % of the tower."""
    tower = TimmViT('vit_base_patch14_dinov2', image_size=28, adapter=dict(type='mmlt.AdaptFormer', num_classes=1000))
    trained = sum(p.numel() for p in tower.parameters() if p.requires_grad)
    assert trained == 12 * (2 * 768 + 769 * 32 + 33 * 768 + 1) == 617_868
    assert sum(p.numel() for p in tower.visual.parameters()) == 86_579_712 - (1370 - 5) * 768  # positions of 28 px


@pytest.mark.parametrize('pooling', ['timm', 'avg'])
@pytest.mark.parametrize('model', SIZE)
def test_fine_tuning_trains_every_weight(model, pooling):
    """Under DDP a weight without a gradient would stall."""
    tower = built(model, pooling=pooling).train()
    assert all(m.training for m in tower.modules())
    tower(images(SIZE[model]))[0].square().sum().backward()
    missing = {n for n, p in tower.named_parameters() if p.requires_grad and p.grad is None}
    assert not missing


def test_frozen():
    tower = built(REG, adapter=ADAPTER, frozen=True)
    for mode in (True, False, True):
        assert not any(m.training for m in tower.train(mode).visual.modules())
    out = tower(images(28))[0]
    assert not out.requires_grad and not any(p.requires_grad for p in tower.parameters())
    x = torch.randn(3, WIDTH)
    assert tower(x)[0] is x  # cached features


def test_names_are_timms():
    tower = built(REG, adapter=ADAPTER)
    own = timm.create_model(REG, num_classes=0, img_size=28, **TINY)
    assert tower.visual.state_dict().keys() == own.state_dict().keys()
    assert {k.split('.')[0] for k in tower.state_dict()} == {'visual', 'adapters'}


def test_twin_has_adapters_of_its_own():
    tower, x = built(REG, adapter=ADAPTER), images(28)
    stirred(tower.adapters)
    twin, expected = copy.deepcopy(tower), tower(x)[0]
    assert torch.equal(twin(x)[0], expected)
    stirred(twin.adapters)
    assert torch.equal(tower(x)[0], expected) and not torch.equal(twin(x)[0], expected)


# How it runs


@pytest.mark.parametrize('model', [REG, DINO3])
def test_gradient_checkpointing_gives_the_same(model):
    plain, saving = (built(model, adapter=ADAPTER, grad_checkpointing=on) for on in (False, True))
    saving.load_state_dict(stirred(plain).state_dict())
    x = images(SIZE[model])
    for tower in (plain, saving):
        tower.train()(x)[0].square().sum().backward()
    for (name, a), b in zip(plain.adapters.named_parameters(), saving.adapters.parameters()):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize('model', [REG, DINO3])
def test_bfloat16(model):
    tower, x = stirred(built(model, adapter=ADAPTER)), images(SIZE[model])
    with torch.autocast('cpu', torch.bfloat16):
        out = tower(x)[0]
    assert F.cosine_similarity(out.float(), tower(x)[0]).min() > 0.98


def test_compiled_blocks():
    tower, x = stirred(built(REG, adapter=ADAPTER)), images(28)
    compiled = TimmViT(REG, image_size=28, options=TINY, adapter=ADAPTER, compile=dict(backend='eager')).eval()
    compiled.load_state_dict(tower.state_dict())
    assert (compiled(x)[0] - tower(x)[0]).abs().max() <= 1e-5
    assert all(block._compiled_call_impl is not None for block in compiled.visual.blocks)
    assert compiled.state_dict().keys() == tower.state_dict().keys()


# In MORE: low-rank parts of all matrices


def test_low_rank_parts_of_a_fine_tuned_tower():
    plain = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.TimmViT', model=REG, image_size=28, options=TINY),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=WIDTH),
    )
    torch.manual_seed(2)
    expected = MODELS.build(copy.deepcopy(plain)).eval()
    torch.manual_seed(2)
    model = MODELS.build(dict(type='mmlt.MORE', classifier=plain)).eval()
    matrices = {f'blocks.{i}.{name}' for i in range(BLOCKS) for name in ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')}
    split = {f'backbone.visual.{name}.weight' for name in {*matrices, 'patch_embed.proj'}} | {'head.fc.weight'}
    assert set(model.split.names) == split
    x, samples = images(28, 3), [DataSample().set_gt_label(y) for y in (0, 2, 1)]
    with torch.no_grad():
        assert (model(x) - expected(x)).abs().max() <= 1e-6
    model.set_class_info(ClassInfo(['a', 'b', 'c'], [30, 9, 1]))
    model.set_progress(3, 10)
    sum(model.train()(x, samples, mode='loss').values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        stirred(model)
        before = model.eval()(x)
        assert (copy.deepcopy(model).merge().eval()(x) - before).abs().max() <= 1e-5 * before.abs().max().clamp(min=1)


# Bad input


@pytest.mark.parametrize(
    ('kwargs', 'sentence'),
    [
        (dict(model='vit_base_patch14_dinov22'), "no model 'vit_base_patch14_dinov22'. Near it: vit_base_patch14_dino"),
        (dict(model='zzzzzz'), r"timm has no model 'zzzzzz'. See timm.list_models\('\*vit\*'\)"),
        (dict(model='resnet18'), "'resnet18' is no plain Vision Transformer, .* choose one such as vit_base_patch14"),
        (dict(model='tiny_vit_5m_224'), "'tiny_vit_5m_224' is no plain Vision Transformer"),
        (dict(model=f'{DINO}.lvd142m'), f"a tag of timm: set model='{DINO}' and pretrained='lvd142m'"),
        (dict(model=DINO, pretrained='in21k'), "no pretrained tag 'in21k'. Its tags: lvd142m. A local weight file"),
        (dict(model=DINO, options=dict(img_size=28)), "options hold 'img_size', which is not theirs: set image_size"),
        (
            dict(model=DINO, options=dict(patch_drop_rate=0.5)),
            "'patch_drop_rate'.*patches are not dropped",
        ),
        (dict(model=DINO, options=dict(depht=3)), f"'{DINO}' could not be built .TypeError: .*depht"),
        (dict(model='vit_base_patch32_plus_256', adapter=dict(type='mmlt.AdaptFormer')), 'give model.backbone.adapter'),
        (dict(model='vit_small_patch16_18x2_224', options=TINY, adapter=ADAPTER), 'no Vision Transformer whose blocks'),
    ],
)
def test_bad_settings(kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        TimmViT(**kwargs)


def test_image_size_for_the_export_tool():
    assert TimmViT(REG, image_size=42, options=TINY).image_size == (42, 42)
