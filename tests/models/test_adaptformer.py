"""Adapters beside a frozen tower: the formula, the zero start, and what is trained, stored and refused."""

import copy
import math

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from safetensors.torch import load_file

from mmlt import InputError
from mmlt.checkpoints.open_clip_files import to_open_clip
from mmlt.engine import FeatureCacheHook
from mmlt.engine.hooks.export_open_clip import ExportOpenCLIPHook, tower_weights
from mmlt.models import AdaptFormer, OpenCLIPVision
from mmlt.models.anchors import Anchors
from mmlt.models.backbones import adapter_bottleneck
from mmlt.utils.class_info import ClassInfo

VIT, RN, TIMM = 'mmlt-tiny-vit', 'mmlt-tiny-rn', 'ViT-B-16-SigLIP'
WIDTH, BLOCKS = 64, 2
ADAPTER = dict(type='mmlt.AdaptFormer', bottleneck=3)


@pytest.fixture(autouse=True)
def _other_seed(_fresh_state):
    torch.manual_seed(1)  # with the seed of clip_file a random model would have its weights


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32)


def loaded(clip_file, **kwargs):
    tower = OpenCLIPVision(VIT, clip_file, **kwargs)
    tower.init_weights()
    return tower.eval()


def stirred(tower):
    """The tower with adapters as after a training."""
    with torch.no_grad():
        for name, parameter in tower.adapters.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
            assert name
    return tower


def naive_branch(adapter, x):
    """scale * up(ReLU(down(LN(x)))) of one token, float64, by sums."""
    p = {k: v.detach().double() for k, v in adapter.state_dict().items()}
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    normed = [(v - mean) / math.sqrt(variance + 1e-5) * w + b for v, w, b in zip(x, p['norm.weight'], p['norm.bias'])]
    hidden = [
        max(sum(w * v for w, v in zip(row, normed)) + b, torch.tensor(0.0))
        for row, b in zip(p['down.weight'], p['down.bias'])
    ]
    return torch.stack(
        [p['scale'] * (sum(w * h for w, h in zip(row, hidden)) + b) for row, b in zip(p['up.weight'], p['up.bias'])]
    )


def test_branch_is_the_formula():
    adapter = AdaptFormer(6, 2, bottleneck=3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    x = torch.randn(2, 3, 6)
    out = adapter(x)
    for i in range(2):
        for j in range(3):
            assert (out[i, j].double() - naive_branch(adapter, x[i, j].double())).abs().max() <= 1e-5


def test_block_adds_the_branch_beside_its_mlp(clip_file, images):
    tower = stirred(loaded(clip_file, adapter=ADAPTER))
    plain = loaded(clip_file)
    tokens = plain.visual._embeds(images)
    expected = tokens
    for block, adapter in zip(plain.visual.transformer.resblocks, tower.adapters):
        x = expected + block.attention(block.ln_1(expected))
        expected = x + block.mlp(block.ln_2(x)) + adapter(x)
    assert (tower.visual.transformer(tokens) - expected).abs().max() <= 1e-5
    assert (plain.visual.transformer(tokens) - expected).abs().max() > 1e-2


@pytest.mark.parametrize(
    ('classes', 'blocks', 'expected'),
    [(1000, 12, 32), (365, 12, 8), (8142, 12, 256), (100, 12, 4), (24, 12, 1), (10, 12, 1), (10, 3, 1), (48, 12, 2)],
)
def test_bottleneck(classes, blocks, expected):
    assert adapter_bottleneck(classes, blocks) == expected
    assert AdaptFormer(8, blocks, num_classes=classes).down.out_features == expected
    assert AdaptFormer(8, blocks, bottleneck=5, num_classes=classes).down.out_features == 5


@pytest.mark.parametrize('init', ['uniform', 'normal'])
def test_both_ways_to_start_have_one_deviation(init):
    """1 / sqrt(3 W); numbers of the uniform one are at most sqrt(3) deviations, of the normal one some are more."""
    adapter = AdaptFormer(600, 2, bottleneck=300, init=init)
    weights = adapter.down.weight.detach().double().flatten()
    deviation = math.sqrt(sum(w * w for w in weights.tolist()) / len(weights))
    assert deviation == pytest.approx(1 / math.sqrt(3 * 600), rel=0.01)
    assert (weights.abs().max() > math.sqrt(3) * 1.01 / math.sqrt(3 * 600)) == (init == 'normal')
    assert not adapter.down.bias.any() and not adapter.up.weight.any() and not adapter.up.bias.any()
    with pytest.raises(InputError, match="init is 'zero'; choose 'uniform' or 'normal'"):
        AdaptFormer(8, 2, bottleneck=1, init='zero')


def test_training_starts_at_the_plain_tower(clip_file, images):
    plain, adapted = loaded(clip_file), loaded(clip_file, adapter=ADAPTER)
    assert (adapted(images)[0] - plain(images)[0]).abs().max() <= 1e-6
    assert all(a.scale.item() == 1 and not a.up.weight.any() for a in adapted.adapters)
    assert all(a.down.weight.any() for a in adapted.adapters)
    assert (stirred(adapted)(images)[0] - plain(images)[0]).abs().max() > 1e-2


def test_only_the_adapters_are_trained(images):
    tower = OpenCLIPVision(VIT, adapter=dict(type='mmlt.AdaptFormer', num_classes=16)).train()
    bottleneck = adapter_bottleneck(16, BLOCKS)
    per_block = 2 * WIDTH + (WIDTH + 1) * bottleneck + (bottleneck + 1) * WIDTH + 1
    trained = {n: p for n, p in tower.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == BLOCKS * per_block
    assert all(n.startswith('adapters.') for n in trained)
    assert not any(m.training for m in tower.visual.modules()) and tower.adapters[0].training
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    before = copy.deepcopy(tower.state_dict())
    for _ in range(2):  # at first, only `up` has a gradient
        optimizer.zero_grad()
        tower(images)[0].square().sum().backward()
        optimizer.step()
    changed = {n for n, v in tower.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == set(trained)


def test_frozen_freezes_the_adapters_too(images):
    tower = OpenCLIPVision(VIT, adapter=ADAPTER, frozen=True).train()
    assert not any(p.requires_grad for p in tower.parameters())
    assert not tower(images)[0].requires_grad


def test_weights_of_the_tower_keep_their_names(clip_file, images):
    tower = stirred(loaded(clip_file, adapter=ADAPTER))
    file = {k.removeprefix('visual.'): v for k, v in load_file(clip_file).items() if k.startswith('visual.')}
    assert tower.visual.state_dict().keys() == file.keys()
    assert all(torch.equal(v, file[k]) for k, v in tower.visual.state_dict().items())
    # plain weights into the adapted tower leave the adapters; its own checkpoint fills both
    other = OpenCLIPVision(VIT, adapter=ADAPTER).eval()
    start = copy.deepcopy(other.adapters.state_dict())
    other.visual.load_state_dict(file)
    assert all(torch.equal(v, start[k]) for k, v in other.adapters.state_dict().items())
    other.load_state_dict(tower.state_dict())
    assert torch.equal(other(images)[0], tower(images)[0])
    # and the plain tower reads of an adapted checkpoint what it has
    plain = OpenCLIPVision(VIT).eval()
    missing, unexpected = plain.load_state_dict(tower.state_dict(), strict=False)
    assert not missing and all(k.startswith('adapters.') for k in unexpected)
    assert (plain(images)[0] - loaded(clip_file)(images)[0]).abs().max() <= 1e-6


def test_deepcopy_has_adapters_of_its_own(clip_file, images):
    tower = stirred(loaded(clip_file, adapter=ADAPTER))
    twin, expected = copy.deepcopy(tower), tower(images)[0]
    assert torch.equal(twin(images)[0], expected)
    with torch.no_grad():
        for adapter in twin.adapters:
            adapter.scale.zero_()
    assert torch.equal(tower(images)[0], expected)
    assert (twin(images)[0] - loaded(clip_file)(images)[0]).abs().max() <= 1e-6


def test_gradient_checkpointing_gives_the_same(clip_file, images):
    towers = [loaded(clip_file, adapter=ADAPTER, grad_checkpointing=on) for on in (False, True)]
    towers[1].load_state_dict(stirred(towers[0]).state_dict())
    for tower in towers:
        tower.train()
        tower(images)[0].square().sum().backward()
    for (name, a), b in zip(towers[0].adapters.named_parameters(), towers[1].adapters.parameters()):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-4), name


def test_exported_program_holds_the_adapters(clip_file, images):
    tower = stirred(loaded(clip_file, adapter=ADAPTER, projection=False))
    program = torch.export.export(tower, (images,), strict=False)
    assert torch.allclose(program.module()(images)[0], tower(images)[0], atol=1e-5)


def test_bfloat16(clip_file, images):
    tower = stirred(loaded(clip_file, adapter=ADAPTER))
    with torch.autocast('cpu', torch.bfloat16):
        out = tower(images)[0]
    assert torch.nn.functional.cosine_similarity(out.float(), tower(images)[0]).min() > 0.99


def test_timm_tower():
    tower = OpenCLIPVision(TIMM, adapter=ADAPTER).eval()
    x = torch.randn(1, 3, 224, 224)
    assert len(tower.adapters) == 12 and tower.adapters[0].up.out_features == 768
    with torch.no_grad():
        expected = tower.visual.trunk.blocks[0]
        tokens = torch.randn(1, 4, 768)
        plain = copy.deepcopy(expected)
        plain._forward_hooks.clear()
        assert torch.equal(expected(tokens), plain(tokens))
        stirred(tower)
        attended = tokens + plain.attn(plain.norm1(tokens))
        assert torch.allclose(expected(tokens), plain(tokens) + tower.adapters[0](attended), atol=1e-5)
        assert tower(x)[0].shape == (1, 768)


# The feature before the projection


def test_without_projection(clip_file, images):
    tower, plain = loaded(clip_file, projection=False), loaded(clip_file)
    (feature,) = tower(images)
    assert tower.out_channels == feature.shape[1] == WIDTH
    assert torch.allclose(feature @ plain.visual.proj, plain(images)[0], atol=1e-6)
    assert not torch.allclose(feature, plain(images)[0], atol=0.1)
    trained = OpenCLIPVision(VIT, projection=False).train()
    trained(images)[0].sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in trained.parameters())
    assert {n for n, p in trained.named_parameters() if not p.requires_grad} == {'visual.proj'}


# What cannot be


def test_towers_without_transformer_blocks_are_refused():
    with pytest.raises(InputError, match=f"tower of '{RN}' is no Vision Transformer .* such as ViT-B-16, or leave out"):
        OpenCLIPVision(RN, adapter=ADAPTER)
    with pytest.raises(InputError, match=f"tower of '{RN}' has no projection that could be left out"):
        OpenCLIPVision(RN, projection=False)


def test_width_must_be_known():
    with pytest.raises(InputError, match='give model.backbone.adapter num_classes=<classes of the dataset>'):
        OpenCLIPVision(VIT, adapter=dict(type='mmlt.AdaptFormer'))
    with pytest.raises(InputError, match='bottleneck is 0; it must be at least 1'):
        OpenCLIPVision(VIT, adapter=dict(type='mmlt.AdaptFormer', bottleneck=0))


def pretrainer(**backbone):
    return MODELS.build(
        dict(
            type='mmlt.ContrastivePretrainer',
            backbone=dict(type='mmlt.OpenCLIPVision', model=VIT, **backbone),
            text=dict(type='mmlt.OpenCLIPText', model=VIT),
        )
    )


class FakeRunner:
    def __init__(self, model):
        self.model = model


def test_export_says_that_adapters_would_be_lost():
    with pytest.raises(InputError, match='has adapters, which are no part of an open_clip model'):
        to_open_clip(tower_weights(pretrainer(adapter=ADAPTER)), 'a')
    with pytest.raises(InputError, match='remove ExportOpenCLIPHook'):
        ExportOpenCLIPHook().before_train(FakeRunner(pretrainer(adapter=ADAPTER)))
    ExportOpenCLIPHook().before_train(FakeRunner(pretrainer()))


def test_features_of_trained_adapters_are_not_cached():
    model = pretrainer(adapter=ADAPTER)
    with pytest.raises(InputError, match="adapters are trained, so an image's features change at every step"):
        FeatureCacheHook(views=1).before_train(FakeRunner(model))


# In MORE


def test_more_around_a_classifier_with_adapters():
    """LIFT's classifier in MORE: the adapters are split; the tower is not, nor are the class vectors (no layer's)."""
    plain = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.OpenCLIPVision', model=VIT, adapter=ADAPTER, projection=False),
        head=dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=WIDTH, init='random'),
    )
    torch.manual_seed(2)
    expected = MODELS.build(copy.deepcopy(plain))
    torch.manual_seed(2)
    model = MODELS.build(dict(type='mmlt.MORE', classifier=copy.deepcopy(plain)))
    assert model.split.names == [
        f'backbone.adapters.{block}.{layer}.weight' for block in range(BLOCKS) for layer in ('down', 'up')
    ]
    inputs, samples = torch.randn(3, 3, 32, 32), [DataSample().set_gt_label(y) for y in (0, 2, 1)]
    with torch.no_grad():
        assert (model.eval()(inputs) - expected.eval()(inputs)).abs().max() <= 1e-6

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # as after a training: no zeros left
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.set_class_info(ClassInfo(['a', 'b', 'c'], [30, 9, 1]))
    model.set_progress(3, 10)
    losses = model.train()(inputs, samples, mode='loss')
    assert losses['loss_more'] > 1e-4
    sum(losses.values()).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert not any('visual' in name for name in trained)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())
    assert all(p.grad is None for p in model.backbone.visual.parameters())

    with torch.no_grad():
        split = model.eval()(inputs)
        merged = copy.deepcopy(model).merge().eval()
        assert (merged(inputs) - split).abs().max() <= 1e-5 * split.abs().max().clamp(min=1)
        assert (expected(inputs) - split).abs().max() > 1e-2
    assert merged.state_dict().keys() == expected.state_dict().keys()


# With the LGR head


def test_lgr_head_on_an_adapted_tower(clip_file, tmp_path):
    path = str(tmp_path / 'anchors.safetensors')
    texts = [[f'class {c}, {m}' for m in range(4)] for c in range(3)]
    Anchors(torch.randn(3, 4, 64), torch.full((3,), 4), torch.rand(3, 4), texts, 20.0, {}).save(path)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model=VIT, pretrained=clip_file, adapter=ADAPTER),
            head=dict(type='mmlt.LGRHead', num_classes=3, in_channels=64, anchors=path),
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
        )
    )
    model.init_weights()
    model.train()
    samples = [DataSample().set_gt_label(y) for y in (0, 2)]
    inputs = torch.randn(2, 3, 32, 32)
    sum(v for k, v in model.loss(inputs, samples).items() if k.startswith('loss')).backward()
    assert all(a.up.weight.grad.abs().max() > 0 for a in model.backbone.adapters)
    assert all(p.grad is None for p in model.backbone.visual.parameters())
    assert model.head.query.weight.grad is not None
    scores = model.eval().predict(inputs)
    assert scores[0].pred_score.sum().item() == pytest.approx(1, abs=1e-5)
