"""docs/recipes.md says what the configs do."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from mmlt.cli import recipe_sheet as sheet
from mmlt.utils.recipe import recipe

REPO = Path(__file__).parents[2]


def test_the_page_is_what_the_configs_say(capsys, tmp_path, monkeypatch):
    page = sheet.whole_page()
    monkeypatch.setattr(sheet, 'whole_page', lambda: page)  # it takes seconds
    assert sheet.main(['--check']) == 0, capsys.readouterr().out
    (tmp_path / 'old.md').write_text((REPO / 'docs/recipes.md').read_text().replace('1e-06', '1e-05'))
    assert sheet.main(['--check', '--out', str(tmp_path / 'old.md')]) == 1
    assert '+' in capsys.readouterr().out


def test_every_benchmark_config_stands_in_it():
    entries = yaml.safe_load((REPO / 'docs/recipes.yml').read_text())['sheets']
    shown = {name for entry in entries for name in sheet.configs(entry['configs'])}
    folders = ('vlltr', 'ballad', 'lift', 'more')
    wanted = {p.stem for f in folders for p in (REPO / 'configs' / f).glob('*.py') if 'tiny' not in p.stem}
    heads = {'vlltr_rn50_imagenet-lt_fc', 'vlltr_rn50_imagenet-lt_knn'}  # of Table 4, in the recipe of stage 2
    controls = {name for name in wanted if name.startswith('more-control')}  # MORE's but for the penalty
    assert wanted - heads - controls == shown
    for entry in entries:
        for key, told in entry['settings'].items():
            assert set(told) == {'published', 'paper'}, (entry['title'], key)


def test_facts_are_those_of_the_built_parts():
    cfg = Config.fromfile(REPO / 'configs/vlltr/vlltr_rn50_imagenet-lt_cvlp.py')
    found = recipe(cfg, 115846)
    assert found['batch'] == '256 x 8 GPUs = 2048' and found['steps of an epoch'] == '56'
    assert found['rates at epochs 0, 1, 5, last'] == '1e-06, 1e-06, 4.02e-05, 1.97e-07'
    assert 'BatchNorm in eval mode' in found['modes in training']


@pytest.mark.parametrize(
    ('key', 'value', 'setting'),
    [
        ('param_scheduler.0.warmup_epochs', 0, 'rates at epochs 0, 1, 5, last'),
        ('param_scheduler.0.lag', 0, 'rates at epochs 0, 1, 5, last'),
        ('optim_wrapper.constructor', 'DefaultOptimWrapperConstructor', 'parameter groups'),
        ('model.backbone.norm_eval', False, 'modes in training'),
        ('model.backbone.frozen', True, 'modes in training'),
        ('model.distill_loss.form', 'pair', 'model'),
        ('train_dataloader.sampler.type', 'DefaultSampler', 'sampler'),
        ('train_dataloader.batch_size', 128, 'batch'),
        ('train_dataloader.dataset.pipeline.1.interpolation', 'bilinear', 'training transforms'),
        ('default_hooks.checkpoint.save_best', 'shot/all', 'kept checkpoint'),
    ],
)
def test_a_change_of_a_config_is_seen(key, value, setting):
    cfg = Config.fromfile(REPO / 'configs/vlltr/vlltr_rn50_imagenet-lt_cvlp.py')
    before = recipe(cfg, 115846)
    cfg.merge_from_dict({key: value})
    after = recipe(cfg, 115846)
    assert before[setting] != after[setting]


@pytest.mark.parametrize(
    ('name', 'ratio', 'models'),
    [('imagenet-lt', '0.7', '2, 2, 2, 2, 2, 2, 2, 2, 1'), ('inat18', '0.3', '1, 1, 1, 1, 1, 1, 1, 1, 1')],
)
def test_averages_and_merged_models_are_told(name, ratio, models):
    cfg = Config.fromfile(REPO / f'configs/lift/lt-soups_vit-b16_{name}.py')
    average = 'EMAHook(momentum=0.01, update_buffers=True)'
    assert recipe(cfg)['other hooks'] == f'SoupHook(ratio={ratio}, groups=[{models}]); {average}'
    subset = Config.fromfile(REPO / f'configs/lift/lt-soups_vit-b16_{name}_subset.py')
    assert recipe(subset)['other hooks'] == average
    subset.custom_hooks[0].momentum = 0.02
    assert recipe(subset)['other hooks'] != average


@pytest.mark.parametrize('path', sorted((REPO / 'configs').glob('[!_]*/*.py')), ids=lambda p: p.stem)
def test_a_config_is_for_the_gpus_that_it_names(path):
    """Tiny configs are for one process, so that a first run warns of nothing; others for one GPU or for eight."""
    cfg = Config.fromfile(path)
    if not cfg.get('train_cfg') or not cfg.get('auto_scale_lr'):
        return
    processes = cfg.auto_scale_lr.base_batch_size / cfg.train_dataloader.batch_size
    assert processes == 1 if 'tiny' in path.stem else processes in (1, 8)
