import open_clip
import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import load_file

from mmlt import InputError
from mmlt.checkpoints.open_clip_files import export_open_clip, to_open_clip
from mmlt.engine.hooks.export_open_clip import open_clip_config, tower_weights
from mmlt.models.more.low_rank import split_weights


def build(clip_file):
    return MODELS.build(
        dict(
            type='mmlt.ContrastivePretrainer',
            backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit', pretrained=clip_file),
            text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit', pretrained=clip_file),
        )
    )


def test_export_is_what_open_clip_reads(clip_file, tmp_path):
    model = build(clip_file)
    model.init_weights()
    export_open_clip(tower_weights(model), tmp_path / 'a.safetensors', 'a')
    state, original = load_file(tmp_path / 'a.safetensors'), load_file(clip_file)
    assert state.keys() == original.keys()
    assert all(torch.equal(state[k], original[k]) for k in state)
    open_clip.create_model('mmlt-tiny-vit', load_weights=False).load_state_dict(state)


def test_both_towers_are_needed(clip_file):
    with pytest.raises(InputError, match='both towers are needed'):
        tower_weights(build(clip_file).backbone)


def test_low_rank_parts_are_merged_and_what_diverged_is_refused(clip_file):
    model = build(clip_file)
    model.init_weights()
    plain = to_open_clip(tower_weights(model), 'a').state
    split_weights(model, ['*mlp.c_fc.weight'], [], 2)
    merged = to_open_clip(tower_weights(model), 'a').state
    assert merged.keys() == plain.keys()
    assert all(torch.allclose(merged[k], plain[k]) for k in plain)
    state = tower_weights(model)
    state['head.text.clip.logit_scale'] = torch.tensor(torch.nan)
    with pytest.raises(InputError, match="'head.text.clip.logit_scale' of 'a' are NaN or infinite, the training div"):
        to_open_clip(state, 'a')


def test_pretraining_config_exports_and_classifies(tmp_path, monkeypatch, repo, train_tool):
    """The pretraining of the tiny CLIP, cut to one short epoch, and its file as `pretrained`."""
    monkeypatch.chdir(tmp_path)
    metrics = train_tool.main(
        [
            str(repo / 'configs/clip/clip_tiny_printed-characters.py'),
            '--work-dir',
            'w',
            '--cfg-options',
            'train_dataloader.dataset.num_samples=64',
            'train_dataloader.batch_size=32',
            'train_dataloader.num_workers=0',
            'val_dataloader.num_workers=0',
            'test_dataloader.num_workers=0',
            'train_cfg.max_epochs=1',
            'param_scheduler=None',
        ]
    )
    assert 0 <= metrics['shot/all'] <= 100
    clip = open_clip.create_model('mmlt-tiny-rn', pretrained='w/open_clip.safetensors')
    assert clip.logit_scale.exp().item() != pytest.approx(1 / 0.07, abs=1e-6)  # it was trained
    # The folder is a model by itself, with the mean and the deviation of its pretraining.
    folder, _, transform = open_clip.create_model_and_transforms('local-dir:w')
    weights = folder.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in clip.state_dict().items())
    assert transform.transforms[-1].mean == pytest.approx([33.3 / 255] * 3)
    assert transform.transforms[-1].std == pytest.approx([78.6 / 255] * 3)


def test_config_of_the_export():
    model = MODELS.build(
        dict(
            type='mmlt.ContrastivePretrainer',
            backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit', image_size=48, quick_gelu=True),
            text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit', quick_gelu=True),
        )
    )
    config = open_clip_config(model)
    assert config['model_cfg']['vision_cfg']['image_size'] == 48
    assert config['model_cfg']['quick_gelu'] is True
    assert 'quick_gelu' not in open_clip.get_model_config('mmlt-tiny-vit')  # open_clip's own is left alone
    assert config['preprocess_cfg']['mean'] == pytest.approx(open_clip.OPENAI_DATASET_MEAN, abs=1e-6)
    assert config['preprocess_cfg']['std'] == pytest.approx(open_clip.OPENAI_DATASET_STD, abs=1e-6)
