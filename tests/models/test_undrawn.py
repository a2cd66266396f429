"""Weights that are overwritten at once are not drawn, and nothing else changes."""

import copy
import json
import math
import shutil
from contextlib import nullcontext

import open_clip
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS, RUNNERS
from safetensors.torch import load_file, save_file
from torch import nn

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.weights import load_weights
from mmlt.models.open_clip_towers import OpenCLIPTowers
from mmlt.models.undrawn import check_filled, drawn, undrawn

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


@pytest.mark.parametrize('part', ['backbone', 'head.text'])
def test_a_tower_that_is_not_filled_does_not_run(clip_file, part):
    """Whoever forgot to fill it, such as MMEngine's loading of a checkpoint that lacks a weight, which it only logs."""
    model = classifier(clip_file)
    state = classifier(None).state_dict()
    name = {'backbone': 'visual.conv1.weight', 'head.text': 'clip.positional_embedding'}[part]
    del state[f'{part}.{name}']
    model.load_state_dict(state, strict=False)
    with pytest.raises(
        InputError, match=rf"tower '{MODEL}' has no numbers \(NaN\) in {name.split('.', 1)[1]}: neither"
    ):
        _ = model.backbone(torch.randn(2, 3, 32, 32)) if part == 'backbone' else model.head((torch.randn(2, 64),))
    model.init_weights()
    assert model.head(model.backbone(torch.randn(2, 3, 32, 32))).isfinite().all()


def test_a_pretrained_file_whose_weight_is_not_there_is_refused(clip_file, tmp_path, monkeypatch):
    """Whether it is NaN in the file, or the loading was not strict."""
    state = load_file(clip_file)
    damaged = {**state, 'visual.proj': torch.full_like(state['visual.proj'], torch.nan)}
    save_file(damaged, tmp_path / 'nan.safetensors')
    with pytest.raises(InputError, match=r"nan.safetensors', .* has no numbers \(NaN\) in visual.proj: the file lacks"):
        OpenCLIPTowers(MODEL, str(tmp_path / 'nan.safetensors'), None, None).load()
    missing = {k: v for k, v in state.items() if 'conv1' not in k and 'class_embedding' not in k}
    save_file(missing, tmp_path / 'part.safetensors')
    with pytest.raises(InputError, match='visual.class_embedding'):
        OpenCLIPTowers(MODEL, str(tmp_path / 'part.safetensors'), None, None).load()
    monkeypatch.setattr(
        'mmlt.models.open_clip_towers.open_clip_load_checkpoint',
        lambda clip, path: clip.load_state_dict(load_file(path), strict=False),
    )
    with pytest.raises(InputError, match=r'NaN\) in visual.class_embedding, visual.conv1.weight: the file lacks'):
        OpenCLIPTowers(MODEL, str(tmp_path / 'part.safetensors'), None, None).load()


def test_the_names_of_many_empty_weights_are_counted():
    with undrawn():
        module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    with pytest.raises(InputError, match=r'^It has no numbers \(NaN\) in 0.weight, 0.bias, 1.weight and 3 more: do$'):
        check_filled(module, 'It', 'do')
    check_filled(nn.Linear(2, 2), 'It', 'do')
    with torch.no_grad():
        module[2].weight[0] = torch.nan
    check_filled(module[2], 'It', 'do', share=0.5)
    with pytest.raises(InputError, match=r'^It has no numbers \(NaN\) in weight: do$'):
        check_filled(module[2], 'It', 'do', share=0.4)
    check_filled(nn.Identity(), 'It', 'do')
    check_filled(nn.Linear(2, 2, device='meta'), 'It', 'do')


@pytest.mark.parametrize('runner', ['mmlt.Runner', 'Runner'])
def test_a_start_that_leaves_a_tower_empty_ends_before_the_first_step(two_stages, monkeypatch, runner):
    """Under MMEngine's runner, too, that of the stock tools."""
    monkeypatch.setattr(OpenCLIPTowers, 'load', lambda self: None)
    cfg = Config.fromfile('a.py')
    cfg.update(work_dir='work', runner_type=runner)
    runner = RUNNERS.build(cfg)
    with pytest.raises(InputError, match=r"^The image tower '.*' has no numbers \(NaN\) in class_embedding, .* and 13"):
        runner.train()
    assert runner.iter == 0 and not list((two_stages / 'work').glob('*.pth'))


def test_copies_are_told_apart(clip_file):
    """A copy that is made before the weights are read, as of averaged weights, has to be filled itself."""
    model = classifier(clip_file)
    twin = copy.deepcopy(model)
    model.init_weights()
    images = torch.randn(2, 3, 32, 32)
    model(images, mode='tensor')
    with pytest.raises(InputError, match='NaN'):
        twin(images, mode='tensor')
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(images, mode='tensor')[-1], model(images, mode='tensor')[-1])


def test_averaged_weights_of_a_training_begin_with_those_that_were_read(two_stages, train_tool):
    (two_stages / 'ema.py').write_text(
        "_base_ = './a.py'\ncustom_hooks = [dict(type='EMAHook', momentum=0.5)]\ntrain_cfg = dict(max_epochs=1)\n"
    )
    train_tool.main(['ema.py', '--work-dir', 'work'])
    saved = read_checkpoint('work/epoch_1.pth')
    assert all(v.isfinite().all() for v in saved['ema_state_dict'].values() if v.is_floating_point())


@pytest.mark.parametrize('parts', [dict(adapter=dict(type='mmlt.AdaptFormer', bottleneck=4)), dict()])
def test_parts_beside_a_pretrained_tower_are_drawn(clip_file, parts):
    """Adapters, and the low-rank parts of MORE."""
    backbone = dict(type='mmlt.OpenCLIPVision', model=MODEL, pretrained=clip_file, **parts)
    model = MODELS.build(
        dict(
            type='mmlt.MORE',
            classifier=dict(
                type='ImageClassifier',
                backbone=backbone,
                head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
            ),
        )
    )
    towers = {f'classifier.backbone.visual.{k}' for k in load_file(clip_file)}
    own = {k: p for k, p in model.named_parameters() if '.visual.' not in k or k.endswith(('.A', '.B'))}
    assert own and not own.keys() & towers
    assert not any(p.isnan().any() for p in own.values())
    model.init_weights()
    assert all(p.isfinite().all() for p in model.parameters())


SCRATCH = [
    'clip/clip_tiny_printed-characters.py',
    'baselines/ce-scratch_tiny_mnist-lt.py',
    'clip/clip_tiny_named-icons.py',
]


@pytest.mark.parametrize('name', SCRATCH)
def test_trainings_from_scratch_begin_with_the_same_numbers(repo, name):
    cfg = Config.fromfile(repo / 'configs' / name)
    models, after = [], []
    for context in (nullcontext, drawn):
        torch.manual_seed(5)
        with context():
            model = MODELS.build(cfg.model)
        model.init_weights()
        models.append(contents(model))
        after.append(torch.rand(2))
    assert_equal(*models)
    assert torch.equal(*after) and not any(v.isnan().any() for v in models[0].values() if v.is_floating_point())


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
