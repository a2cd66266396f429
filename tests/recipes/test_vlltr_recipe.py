"""VL-LTR's configs train as the published code did: its recorded trajectories, and what they do not show."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

REPO = Path(__file__).parents[2]
DATA = REPO / 'tests' / 'data' / 'recipes'
TRAJECTORIES = sorted(p.stem for p in DATA.glob('*.safetensors'))
# (trajectory, setting that is switched off)
STAGE_1 = ('one epoch of lag', 'no decay of vectors', 'warm-up', 'label smoothing', 'whole rows of distillation')
STAGE_2 = ('one epoch of lag', 'no decay of vectors', 'two rates', 'label smoothing', "mixup's targets")
SWITCHES = [
    *(('vlltr_stage1_vit', name) for name in STAGE_1),
    *(('vlltr_stage1_rn', name) for name in (*STAGE_1, 'mode of BatchNorm')),
    *(('vlltr_stage2_vit_frozen', name) for name in (*STAGE_2, 'frozen image tower')),
    *(('vlltr_stage2_vit_inat', name) for name in (*STAGE_2, 'norm of G detached')),
]


def test_there_are_four():
    assert TRAJECTORIES == ['vlltr_stage1_rn', 'vlltr_stage1_vit', 'vlltr_stage2_vit_frozen', 'vlltr_stage2_vit_inat']


@pytest.mark.parametrize('name', TRAJECTORIES)
def test_trajectory(tool, name):
    """Loss of every step, rates of every epoch, decay and end of every weight."""
    facts, tensors = tool.read(DATA / f'{name}.safetensors')
    errors = tool.replay(DATA / f'{name}.safetensors')
    assert tool.otherwise(facts, Config.fromfile(tool.config_of(facts))) == {}  # all of it is the config's own recipe
    assert len(errors.loss) == facts['epochs'] * facts['steps_per_epoch'] == len(tensors['images'])
    assert max(errors.loss) <= 1e-4 and max(errors.rate) <= 1e-9 and errors.decay == []
    assert {n: e for n, e in errors.weights.items() if e > 0.01} == {}
    compared = set(errors.weights) | set(tool.NO_GRADIENT) | {'text_embeddings'}
    assert {n.removeprefix('init.') for n in tensors if n.startswith('init.')} <= compared
    assert errors.right


@pytest.mark.parametrize(('name', 'switch'), SWITCHES)
def test_a_setting_that_is_switched_off_is_noticed(tool, name, switch):
    facts, _ = tool.read(DATA / f'{name}.safetensors')
    assert not tool.replay(DATA / f'{name}.safetensors', **tool.switches(facts)[switch]).right


def test_all_switches_are_tried(tool):
    for name in TRAJECTORIES:
        facts, _ = tool.read(DATA / f'{name}.safetensors')
        assert {s for n, s in SWITCHES if n == name} == set(tool.switches(facts))


@pytest.mark.slow
def test_program(tmp_path):
    """Prints errors by step and tensor, and exits with 1 where one is too large."""
    for suffix in ('.json', '.safetensors'):
        shutil.copy(DATA / f'vlltr_stage2_vit_frozen{suffix}', tmp_path / f'other{suffix}')
    program = [sys.executable, str(REPO / 'tests/recipes/replay.py'), str(tmp_path / 'other.safetensors')]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'configs/vlltr/vlltr_vit-b16_imagenet-lt.py' in done.stdout and 'text_block.attn.wq.weight' in done.stdout
    facts = json.loads((tmp_path / 'other.json').read_text())
    facts['loss_by_step'][7] *= 1.001
    (tmp_path / 'other.json').write_text(json.dumps(facts))
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and 'TOO LARGE' in done.stdout


def test_what_a_trajectory_did_otherwise_is_followed_and_told(tool, tmp_path):
    """A trajectory of other settings is replayed with those, and the difference stands in the listing."""
    shutil.copy(DATA / 'vlltr_stage1_vit.safetensors', tmp_path / 'other.safetensors')
    facts = json.loads((DATA / 'vlltr_stage1_vit.json').read_text())
    facts['label_smoothing'] = 0.2
    (tmp_path / 'other.json').write_text(json.dumps(facts))
    errors = tool.replay(tmp_path / 'other.safetensors')
    assert not errors.right
    assert 'model.loss.label_smoothing = 0.2' in tool.describe(tmp_path / 'other.safetensors', errors)


# (config, batch a GPU, rate, second rate, epochs, warm-up, floor): 8 GPUs
RECIPES = [
    ('rn50_imagenet-lt_cvlp', 256, 5e-5, None, 50, 5, 0),
    ('rn50_places-lt_cvlp', 256, 5e-5, None, 50, 5, 0),
    ('rn50_inat18_cvlp', 256, 5e-4, None, 100, 5, 1e-5),
    ('vit-b16_imagenet-lt_cvlp', 128, 3.5e-5, None, 50, 5, 0),
    ('vit-b16_places-lt_cvlp', 128, 1e-5, None, 50, 5, 0),
    ('vit-b16_inat18_cvlp', 128, 3.5e-4, None, 100, 5, 1e-5),
    ('vit-b16-384_inat18_cvlp', 128, 3.5e-4, None, 100, 5, 1e-5),
    ('rn50_imagenet-lt', 128, 1e-3, 1e-6, 50, 0, 0),
    ('rn50_places-lt', 128, 1e-4, 1e-6, 50, 0, 0),
    ('rn50_inat18', 128, 2e-5, 1e-6, 360, 0, 0),
    ('vit-b16_imagenet-lt', 128, 1e-3, 1e-6, 50, 0, 0),
    ('vit-b16_places-lt', 128, 5e-5, 1e-6, 50, 0, 0),
    ('vit-b16_inat18', 128, 2e-5, 1e-6, 360, 0, 0),
    ('vit-b16-384_inat18', 128, 2e-5, 1e-6, 360, 0, 0),
]


@pytest.mark.parametrize(('name', 'batch', 'lr', 'text_lr', 'epochs', 'warmup', 'floor'), RECIPES)
def test_settings_of_every_config(name, batch, lr, text_lr, epochs, warmup, floor):
    """What differs from backbone to backbone and from data set to data set."""
    cfg = Config.fromfile(REPO / f'configs/vlltr/vlltr_{name}.py')
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (batch, 8 * batch)
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)
    assert [r.lr for r in cfg.optim_wrapper.get('paramwise_cfg', {}).get('rates', [])] == [text_lr] * bool(text_lr)
    assert cfg.train_cfg.max_epochs == epochs
    (schedule,) = cfg.param_scheduler
    assert (schedule.lag, schedule.get('warmup_epochs', 0), schedule.eta_min) == (1, warmup, floor)
    inat, model = 'inat18' in name, cfg.model
    if text_lr is None:
        assert model.backbone.norm_eval == (not inat)
        assert (model.init_temperature, model.teacher_temperature) == (None, 'own')
        assert not model.data_preprocessor.get('batch_augments')
    else:
        assert (model.backbone.frozen, model.backbone.norm_eval) == (not inat, True)
        assert (model.head.fusion, model.head.get('detach_norm', False)) == ((0.7, True) if inat else (0.2, False))
        assert model.head.query_bias is False
        mixing = model.data_preprocessor.batch_augments
        assert [(a.type, a.alpha) for a in mixing.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
        assert mixing.probs == [0.5, 0.5] and model.data_preprocessor.num_classes == model.head.num_classes


@pytest.mark.parametrize('backbone', ['rn50', 'vit-b16'])
def test_the_papers_text_is_a_config_of_its_own(backbone):
    first, second = (
        Config.fromfile(REPO / f'configs/vlltr/vlltr_{backbone}_imagenet-lt_paper{s}.py') for s in ('_cvlp', '')
    )
    assert not second.model.backbone.get('frozen') and not second.model.data_preprocessor.get('batch_augments')
    assert second.optim_wrapper.optimizer.lr == 1e-3 and second.model.head.get('fusion', 0.5) == 0.5
    assert first.model.init_temperature == 0.07 and first.model.loss.form == 'sum'
    assert first.model.distill_loss.form == 'pair' and not first.model.backbone.norm_eval
