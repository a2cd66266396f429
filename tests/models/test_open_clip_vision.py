"""The image tower: open_clip's values, and what is frozen stays as it is."""

import copy

import open_clip
import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import load_file

from mmlt.models import OpenCLIPVision
from mmlt.models.open_clip_towers import open_clip_load_checkpoint

VIT, RN = 'mmlt-tiny-vit', 'mmlt-tiny-rn'


@pytest.fixture(autouse=True)
def _other_seed(_fresh_state):
    torch.manual_seed(1)  # with the seed of clip_file a random model would have its weights


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32)


def norms(tower):
    return [m for m in tower.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def statistics(tower):
    return [b.clone() for m in norms(tower) for b in (m.running_mean, m.running_var, m.num_batches_tracked)]


def reference(clip_file, **kwargs):
    """open_clip's own model with the weights of the file."""
    clip = open_clip.create_model(VIT, **kwargs).eval()
    open_clip_load_checkpoint(clip, clip_file)
    return clip


def loaded(clip_file, **kwargs):
    tower = OpenCLIPVision(VIT, clip_file, **kwargs)
    tower.init_weights()
    return tower.eval()


def test_values_are_open_clips(clip_file, images):
    tower, clip = loaded(clip_file), reference(clip_file)
    out = tower(images)
    assert isinstance(out, tuple) and len(out) == 1
    assert tower.out_channels == out[0].shape[1] == 64
    assert torch.equal(out[0], clip.encode_image(images))
    assert (out[0].norm(dim=-1) - 1).abs().min() > 1e-2  # not normalised


def test_resnet_values_are_open_clips(images):
    tower = OpenCLIPVision(RN).eval()
    clip = open_clip.create_model(RN).eval()
    clip.visual.load_state_dict(tower.visual.state_dict())
    out = tower(images)[0]
    assert out.shape == (4, tower.out_channels) == (4, 128)
    assert torch.equal(out, clip.encode_image(images))
    assert out.std() > 1e-4


def test_image_size_resizes_the_positions_as_open_clip_does(clip_file):
    tower, clip = loaded(clip_file, image_size=48), reference(clip_file, force_image_size=48)
    x = torch.randn(2, 3, 48, 48)
    assert tower.visual.positional_embedding.shape == (37, 64)
    assert torch.equal(tower(x)[0], clip.encode_image(x))


def test_cached_features_pass_unchanged(clip_file):
    tower = loaded(clip_file, frozen=True)
    x = torch.randn(3, 64)
    assert tower(x)[0] is x


def test_built_by_name():
    tower = MODELS.build(dict(type='mmlt.OpenCLIPVision', model=VIT))
    assert isinstance(tower, OpenCLIPVision)


def test_all_weights_are_trained_unless_frozen(images):
    for model in (VIT, RN):
        tower = OpenCLIPVision(model)
        assert tower.training and all(m.training for m in tower.modules())
        tower(images)[0].square().sum().backward()
        assert all(p.grad is not None for p in tower.parameters())


@pytest.mark.parametrize('model', [VIT, RN])
def test_frozen(model, images):
    tower = OpenCLIPVision(model, frozen=True)
    for mode in (None, True, False, True):
        if mode is not None:
            tower.train(mode)
        assert not any(m.training for m in tower.visual.modules())
    before, weights = statistics(tower), copy.deepcopy(tower.state_dict())
    first = tower(images)[0]
    assert not first.requires_grad
    assert first.grad_fn is None
    assert not any(p.requires_grad for p in tower.parameters())
    assert torch.equal(tower(images)[0], first)
    assert all(torch.equal(a, b) for a, b in zip(statistics(tower), before))
    assert all(torch.equal(a, weights[k]) for k, a in tower.state_dict().items())


def test_a_frozen_tower_stays_frozen_inside_a_model_in_training(images):
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model=RN, frozen=True),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=128),
        )
    )
    model.train()
    assert model.head.training and not any(m.training for m in model.backbone.visual.modules())
    before = statistics(model.backbone)
    model.head(model.backbone(images)).sum().backward()
    assert model.head.fc.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(torch.equal(a, b) for a, b in zip(statistics(model.backbone), before))


def test_norm_eval_keeps_the_statistics_and_trains_the_weights(images):
    tower = OpenCLIPVision(RN, norm_eval=True).train()
    assert norms(tower) and not any(m.training for m in norms(tower))
    assert tower.visual.training
    before = statistics(tower)
    tower(images)[0].square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(statistics(tower), before))
    assert all(p.grad is not None for p in tower.parameters())
    tower.eval().train()
    assert not any(m.training for m in norms(tower))


def test_without_norm_eval_the_statistics_change(images):
    tower = OpenCLIPVision(RN)
    before = statistics(tower)
    tower(images)
    assert not any(torch.equal(a, b) for a, b in zip(statistics(tower), before))


def test_gradient_checkpointing_gives_the_same(clip_file, images):
    plain, saving = loaded(clip_file).train(), loaded(clip_file, grad_checkpointing=True).train()
    calls = []
    block = saving.visual.transformer.resblocks[0]
    block.register_forward_pre_hook(lambda *args: calls.append(1))
    outs = [tower(images)[0] for tower in (plain, saving)]
    assert torch.equal(*outs)
    assert len(calls) == 1
    for out in outs:
        out.square().sum().backward()
    assert len(calls) == 2  # recomputed
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        assert torch.allclose(a.grad, b.grad, atol=1e-5), name


def test_init_cfg_comes_after_the_pretrained_weights(clip_file):
    tower = OpenCLIPVision(VIT, clip_file, init_cfg=dict(type='Constant', layer='LayerNorm', val=0.5, bias=0.25))
    tower.init_weights()
    expected = {k[len('visual.') :]: v for k, v in load_file(clip_file).items() if k.startswith('visual.')}
    for name, tensor in tower.visual.state_dict().items():
        if 'ln_' in name:
            assert bool((tensor == (0.5 if name.endswith('weight') else 0.25)).all()), name
        else:
            assert torch.equal(tensor, expected[name]), name


def test_deepcopy_is_independent(clip_file, images):
    tower = loaded(clip_file, frozen=True)
    twin = copy.deepcopy(tower)
    expected = tower(images)[0]
    assert torch.equal(twin(images)[0], expected)
    with torch.no_grad():
        twin.visual.proj.zero_()
    assert torch.equal(tower(images)[0], expected)
    assert not twin(images)[0].any()
    twin.train()
    assert not twin.visual.training
