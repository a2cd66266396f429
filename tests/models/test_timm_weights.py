"""Weights of timm's Vision Transformers: files of every layout, read without running code, or refused by a sentence."""

import hashlib
import os
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from mmengine.config import Config
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from mmlt import InputError
from mmlt.checkpoints import downloads
from mmlt.engine.requirements import missing_files, missing_weights
from mmlt.engine.stages import Stage
from mmlt.models import TimmViT, timm_weights

DINO, REG, DINO3, DEIT3 = (
    'vit_small_patch14_dinov2',
    'vit_small_patch14_reg4_dinov2',
    'vit_small_patch16_dinov3',
    'deit3_small_patch16_224',
)
SIGLIP, CLASSIFIER = 'vit_base_patch16_siglip_224', 'vit_small_patch16_224'
IJEPA, FLEXI = 'vit_huge_patch14_gap_224', 'flexivit_small'
TINY = dict(depth=2, embed_dim=48, num_heads=3)
SIZE = {DINO: 28, REG: 28, DINO3: 32, DEIT3: 32, SIGLIP: 32, CLASSIFIER: 32, IJEPA: 28, FLEXI: 32}


def own_model(name, **kwargs):
    """timm's model with random weights, none of which is 0 or 1."""
    torch.manual_seed(7)  # not the tests' seed: a tower that failed to load must not have these weights by chance
    model = timm.create_model(name, **{'num_classes': 0, 'img_size': SIZE[name], **TINY, **kwargs}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def loaded(name, path, **kwargs):
    tower = TimmViT(name, str(path), **{'image_size': SIZE[name], 'options': TINY, **kwargs}).eval()
    tower.init_weights()
    return tower


@pytest.fixture
def x():
    return {size: torch.randn(2, 3, size, size) for size in (28, 32)}


@pytest.mark.parametrize('kind', ['safetensors', 'pth', 'state_dict', 'model'])
@pytest.mark.parametrize('name', [DINO, REG, DINO3, SIGLIP])
def test_files_of_timm(name, kind, tmp_path, x):
    own, state = own_model(name), own_model(name).state_dict()
    path = tmp_path / f'weights.{"safetensors" if kind == "safetensors" else "pth"}'
    if kind == 'safetensors':
        save_file(state, str(path))
    else:
        torch.save(state if kind == 'pth' else {kind: state, 'epoch': 3}, path)
    tower = TimmViT(name, str(path), image_size=SIZE[name], options=TINY).eval()
    with pytest.raises(InputError, match='has no numbers .* Call init_weights'):  # nobody has read them
        tower(x[SIZE[name]])
    tower = loaded(name, path)
    assert torch.equal(tower(x[SIZE[name]])[0], own(x[SIZE[name]]))


@pytest.mark.parametrize('part', ['state_dict_ema', 'model_ema'])
def test_averaged_weights_come_first(part, tmp_path, x):
    """As timm reads the file of its own training, whose models may have been wrapped."""
    own, path = own_model(DINO), tmp_path / 'weights.pth'
    raw = {k: v + 1 for k, v in own.state_dict().items()}
    torch.save({'state_dict': raw, part: {f'module.{k}': v for k, v in own.state_dict().items()}}, path)
    assert torch.equal(loaded(DINO, path)(x[SIZE[DINO]])[0], own(x[SIZE[DINO]]))
    torch.save({'state_dict': own.state_dict(), part: None}, path)
    assert torch.equal(loaded(DINO, path)(x[SIZE[DINO]])[0], own(x[SIZE[DINO]]))


def test_classifier_of_the_file_is_left_out(tmp_path, x):
    torch.save(own_model(CLASSIFIER, num_classes=7).state_dict(), tmp_path / 'weights.pth')
    own = own_model(CLASSIFIER, num_classes=7)
    expected = own.forward_head(own.forward_features(x[32]), pre_logits=True)
    assert torch.equal(loaded(CLASSIFIER, tmp_path / 'weights.pth')(x[32])[0], expected)


def test_files_of_the_authors(tmp_path, x):
    """DINOv2's and DeiT III's own names, which timm converts."""
    own = own_model(REG)
    state = {k.replace('reg_token', 'register_tokens'): v.clone() for k, v in own.state_dict().items()}
    state['pos_embed'] = torch.cat([torch.zeros(1, 1, 48), state['pos_embed']], 1)  # one for the class token
    torch.save({**state, 'mask_token': torch.zeros(1, 48)}, tmp_path / 'dinov2.pth')
    assert torch.equal(loaded(REG, tmp_path / 'dinov2.pth')(x[28])[0], own(x[28]))
    own = own_model(DEIT3)
    state = {k.replace('ls1.gamma', 'gamma_1').replace('ls2.gamma', 'gamma_2'): v for k, v in own.state_dict().items()}
    torch.save({'model': state}, tmp_path / 'deit3.pth')
    assert torch.equal(loaded(DEIT3, tmp_path / 'deit3.pth')(x[32])[0], own(x[32]))


def test_adapters_are_no_part_of_the_file(tmp_path, x):
    torch.save(own_model(REG).state_dict(), tmp_path / 'weights.pth')
    tower = loaded(REG, tmp_path / 'weights.pth', adapter=dict(type='mmlt.AdaptFormer', bottleneck=2))
    assert (tower(x[28])[0] - own_model(REG)(x[28])).abs().max() <= 1e-6
    tower.init_weights()  # a second call reads nothing
    other = TimmViT(
        REG, 'gone.pth', image_size=28, options=TINY, adapter=dict(type='mmlt.AdaptFormer', bottleneck=2)
    ).eval()
    other.load_state_dict(tower.state_dict())  # a checkpoint needs no weight file
    assert torch.equal(other(x[28])[0], tower(x[28])[0])


def test_positions_of_flexible_models_are_resized_in_their_own_way(tmp_path):
    """timm resizes those of FlexiViT bilinearly, without antialiasing: other values than of the other models."""
    own = own_model(FLEXI, img_size=64)
    torch.save(own.state_dict(), tmp_path / 'weights.pth')
    tower = loaded(FLEXI, tmp_path / 'weights.pth', image_size=32)
    wide = own.pos_embed.view(1, 4, 4, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(wide, (2, 2), mode='bilinear', align_corners=False)
    assert (tower.visual.pos_embed - expected.flatten(2).transpose(1, 2)).abs().max() <= 1e-6


def test_init_cfg_comes_after_the_weights(tmp_path):
    torch.save(own_model(REG).state_dict(), tmp_path / 'weights.pth')
    init = dict(type='Constant', layer='LayerNorm', val=0.5, bias=0.25)
    tower = loaded(REG, tmp_path / 'weights.pth', init_cfg=init)
    assert bool((tower.visual.blocks[0].norm1.weight == 0.5).all())


# What does not fit


class Payload:
    def __reduce__(self):
        return os.mkdir, ('ran',)


def test_no_file_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'weights': Payload()}, 'bad.pth')
    with pytest.raises(InputError, match="'bad.pth' cannot be read"):
        loaded(REG, 'bad.pth')
    assert not Path('ran').exists()


def broken(tmp_path, kind):
    state, path = own_model(REG).state_dict(), tmp_path / 'weights.pth'
    if kind == 'lacks':
        del state['norm.weight']
    elif kind == 'more':
        state['blocks.2.norm1.weight'] = torch.ones(48)
    elif kind == 'shape':
        state['blocks.0.mlp.fc1.bias'] = torch.ones(5)
    elif kind == 'nan':
        state['norm.bias'][3] = torch.nan
    elif kind == 'training':
        state = {'state_dict': {f'backbone.visual.{k}': v for k, v in state.items()}}
    elif kind == 'nested':  # DINOv2's training leaves such
        state = {'teacher': {f'backbone.{k}': v for k, v in state.items()}}
    elif kind == 'other':
        state = timm.create_model('test_resnet').state_dict()
    if kind == 'cut':
        path = tmp_path / 'weights.safetensors'
        save_file(state, str(path))
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == 'npz':
        path = tmp_path / 'weights.npz'
        path.touch()
    elif kind == 'folder':
        path = tmp_path
    elif kind != 'missing':
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ('kind', 'sentence'),
    [
        ('lacks', f"lacks 1 weights of timm's '{REG}', the first is 'norm.weight': give the model name"),
        ('more', f"has 1 weights more than timm's '{REG}', the first is 'blocks.2.norm1.weight': give the model name"),
        (
            'shape',
            r'blocks.0.mlp.fc1.bias of shape \(5,\), but .*: give the model name that the weights were trained with',
        ),
        ('other', f"timm's '{REG}'.* give the model name"),
        ('nan', r'has no numbers \(NaN\) in norm.bias: the file is damaged. Fetch it anew'),
        ('training', 'is a checkpoint of a training, no weight file of timm: load it as a checkpoint'),
        ('nested', f"holds no weights but 'teacher': save the part that has those of timm's '{REG}'"),
        ('cut', "safetensors' cannot be read"),
        ('npz', 'arrays of JAX: give the .safetensors'),
        ('folder', 'is a folder, no file: give the path of a .safetensors or .pth file, or one of the tags lvd142m'),
        ('missing', 'does not exist: give the path of a .safetensors or .pth file, or one of the tags lvd142m'),
    ],
)
def test_unfit_files(kind, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        loaded(REG, broken(tmp_path, kind))


# Tags


@pytest.fixture
def hub(tmp_path, monkeypatch, x):
    """A cache of the hub with the weights of DINOv2, as its client lays it out."""
    save_file(own_model(DINO).state_dict(), str(tmp_path / 'made'))
    blob = tmp_path / 'blobs' / hashlib.sha256((tmp_path / 'made').read_bytes()).hexdigest()
    blob.parent.mkdir()
    (tmp_path / 'made').rename(blob)
    asked = []

    def download(repository, name):
        asked.append((repository, name))
        if name not in hub_files:
            raise LocalEntryNotFoundError('not there')
        link = tmp_path / name
        if not link.exists():
            link.symlink_to(blob)
        return str(link)

    hub_files = ['model.safetensors']
    monkeypatch.setattr(timm_weights, 'hf_hub_download', download)
    monkeypatch.setattr(downloads, 'get_hf_file_metadata', lambda url: None)
    return blob, asked, hub_files


def test_tag_comes_from_the_hub_and_is_checked(hub, x):
    blob, asked, _ = hub
    assert torch.equal(loaded(DINO, 'lvd142m')(x[28])[0], own_model(DINO)(x[28]))
    assert asked == [('timm/vit_small_patch14_dinov2.lvd142m', 'model.safetensors')]
    blob.write_bytes(blob.read_bytes()[:-1] + b'!')
    with pytest.raises(InputError, match='is damaged: its SHA-256'):
        loaded(DINO, 'lvd142m')


def test_no_network(hub):
    hub[2].clear()
    with pytest.raises(InputError, match="'lvd142m' of timm's .* could not be fetched .* fetch model.safetensors of"):
        loaded(DINO, 'lvd142m')


def test_tag_with_an_address_of_its_own(tmp_path, monkeypatch, x):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert not timm_weights.is_timm_cached(IJEPA, 'in1k_ijepa')
    state = {f'module.{name}': value for name, value in own_model(IJEPA).state_dict().items()}
    path = tmp_path / 'hub' / 'checkpoints' / 'IN1K-vit.h.14-300e.pth.tar'
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'encoder': state, 'epoch': 3}, path)
    assert timm_weights.is_timm_cached(IJEPA, 'in1k_ijepa')
    assert torch.equal(loaded(IJEPA, 'in1k_ijepa')(x[28])[0], own_model(IJEPA)(x[28]))

    def refuse(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr(timm_weights, 'download_cached_file', refuse)
    with pytest.raises(InputError, match='could not be fetched .* fetch https://dl.fbaipublicfiles.com/ijepa/IN1K'):
        loaded(IJEPA, 'in1k_ijepa')


def test_missing_weights_are_told_before(tmp_path, monkeypatch):
    (tmp_path / 'there.pth').touch()
    found = {}
    for weights in ('lvd142m', str(tmp_path / 'gone.pth'), str(tmp_path / 'there.pth')):
        cfg = Config(dict(model=dict(backbone=dict(type='mmlt.TimmViT', model=DINO, pretrained=weights))))
        stage = Stage('a', cfg, str(tmp_path))
        found[weights] = len(missing_files(cfg)), len(missing_weights([stage]))
    assert list(found.values()) == [(0, 1), (1, 1), (0, 0)]
    monkeypatch.setattr(downloads, 'try_to_load_from_cache', lambda *_: '/some/file')
    cfg = Config(dict(model=dict(backbone=dict(type='mmlt.TimmViT', model=DINO, pretrained='lvd142m'))))
    assert not missing_weights([Stage('a', cfg, str(tmp_path))])


def test_built_by_name():
    tower = MODELS.build(dict(type='mmlt.TimmViT', model=REG, image_size=28, options=TINY))
    assert isinstance(tower, TimmViT) and tower.out_channels == 48
