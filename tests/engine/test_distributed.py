"""Two gloo processes against one, on the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmlt.checkpoints import read_checkpoint
from mmlt.evaluation import Predictions

# One step of plain SGD, so that the change of the weights is the gradient.
ONE_STEP = [
    'train_cfg.max_epochs=1',
    'optim_wrapper.optimizer.momentum=0.0',
    'optim_wrapper.optimizer.lr=1.0',
    'param_scheduler=None',
    'train_dataloader.drop_last=True',
    'default_hooks.logger.interval=1',
]


def train(repo, env, config, processes, work_dir, *options):
    if processes == 1:
        command = [sys.executable, repo / 'tools/train.py', config]
    else:
        command = ['bash', repo / 'tools/dist_train.sh', config, str(processes)]
    command += ['--work-dir', work_dir]
    if options:
        command += ['--cfg-options', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=env)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def evaluate(repo, env, config, checkpoint, processes, *options):
    """The report of a test."""
    if processes == 1:
        command = [sys.executable, repo / 'tools/test.py', config, checkpoint]
    else:
        command = ['bash', repo / 'tools/dist_test.sh', config, checkpoint, str(processes)]
    command += ['--work-dir', f'tested-{processes}', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return json.loads(Path(f'tested-{processes}/shot_report.json').read_text())


def weights(path):
    return read_checkpoint(path)['state_dict']


@pytest.mark.slow
def test_adapter_on_cached_features_takes_the_step_of_one_process(two_stages, repo, launcher_env):
    """Each process caches its part of the features; both then hold all, under the key of one process."""
    train(repo, launcher_env, 'a.py', 1, 'start')
    options = [*ONE_STEP, 'stages.phase_a.work_dir=start']
    train(repo, launcher_env, 'b.py', 1, 'one', *options, 'train_dataloader.batch_size=8')
    train(repo, launcher_env, 'b.py', 2, 'two', *options, 'train_dataloader.batch_size=4')
    start, one, two = weights('start/epoch_3.pth'), weights('one/epoch_1.pth'), weights('two/epoch_1.pth')
    assert all(torch.equal(one[k], start[k]) and torch.equal(two[k], start[k]) for k in start if 'steps' not in k)
    adapter = [k for k in one if k.startswith('neck.')]
    assert len(adapter) == 2
    for name in adapter:
        assert (one[name] - two[name]).norm() <= 1e-6 * one[name].norm(), name
    (features,) = Path('one/features').iterdir()
    assert [p.name for p in Path('two/features').iterdir()] == [features.name]


@pytest.mark.slow
def test_gradient_of_phase_a_is_that_of_one_process(two_stages, repo, launcher_env, clip_file):
    """The change of the weights in one step is minus the gradient; the start is the weight file."""
    train(repo, launcher_env, 'a.py', 1, 'one', *ONE_STEP, 'train_dataloader.batch_size=8')
    train(repo, launcher_env, 'a.py', 2, 'two', *ONE_STEP, 'train_dataloader.batch_size=4')
    start = load_file(clip_file)
    one, two = weights('one/epoch_1.pth'), weights('two/epoch_1.pth')
    names = {k: k.replace('backbone.', '').replace('head.text.clip.', '') for k in one}
    gradients = {k: (one[k] - start[n], two[k] - start[n]) for k, n in names.items() if n in start}
    assert len(gradients) > 40
    scale = max(a.norm() for a, _ in gradients.values())
    for name, (a, b) in gradients.items():
        assert (a - b).norm() <= 1e-5 * scale, name
    assert sum(a.norm() > 1e-3 * scale for a, _ in gradients.values()) > 10


@pytest.mark.slow
def test_lift_trains_as_one_process_and_is_tested_on_five_crops(two_stages, repo, launcher_env, clip_file):
    Path('lift.py').write_text(
        f"""
_base_ = ['./a.py']
clip = dict(model='mmlt-tiny-vit', pretrained='{clip_file}')
model = dict(
    backbone=dict(projection=False, adapter=dict(type='mmlt.AdaptFormer', bottleneck=4), **clip),
    head=dict(_delete_=True, type='mmlt.CosineClsHead', num_classes=3, in_channels=64,
              text=dict(type='mmlt.OpenCLIPText', **clip), loss=dict(type='mmlt.LogitAdjustedLoss')))
crops = [dict(type='mmlt.FiveCropPart', crop_size=32, position=p) for p in ('top-left', 'centre')]
tta_model = dict(type='mmlt.LogitTTA')
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(36, 36)),
                dict(type='TestTimeAug', transforms=[crops, [dict(type='PackInputs')]])]
del clip, crops
"""
    )
    # The adapters' first layers have a gradient as soon as the second ones have left zero.
    options = [*ONE_STEP, 'train_cfg.max_epochs=2', 'optim_wrapper.optimizer.lr=0.1']
    train(repo, launcher_env, 'lift.py', 1, 'one', *options, 'train_dataloader.batch_size=8')
    train(repo, launcher_env, 'lift.py', 2, 'two', *options, 'train_dataloader.batch_size=4')
    begin, one, two = weights('one/epoch_1.pth'), weights('one/epoch_2.pth'), weights('two/epoch_2.pth')
    trained = [k for k in one if k.startswith(('backbone.adapters.', 'head.'))]
    assert sum('down.weight' in k for k in trained) == 2 and 'head.weight' in trained
    for name in one:
        a, b, start = (state[name].double() for state in (one, two, begin))
        assert ((a - start).norm() > 0) == (name in trained), name
        assert (a - b).norm() <= 1e-4 * (a - start).norm(), name
    out = [evaluate(repo, launcher_env, 'lift.py', 'one/epoch_2.pth', processes, '--tta') for processes in (1, 2)]
    assert out[0]['num_samples'] == 6 and out[0]['per_class'] == out[1]['per_class']
    assert out[0]['metrics'] == pytest.approx(out[1]['metrics'], abs=1e-4)


@pytest.mark.slow
def test_soup_is_that_of_one_process(two_stages, repo, launcher_env, clip_file):
    """Averaged weights of two subsets are merged, and the head is trained on all: LT-Soups, in three stages."""
    Path('subset.py').write_text(
        f"""
_base_ = ['./a.py']
clip = dict(model='mmlt-tiny-vit', pretrained='{clip_file}')
model = dict(
    backbone=dict(projection=False, **clip),
    head=dict(_delete_=True, type='mmlt.CosineClsHead', num_classes=3, in_channels=64,
              text=dict(type='mmlt.OpenCLIPText', **clip), loss=dict(type='mmlt.LogitAdjustedLoss')))
train_dataloader = dict(batch_size=1, dataset=dict(max_imbalance=4))
optim_wrapper = dict(optimizer=dict(lr=0.1))
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]
del clip
"""
    )
    Path('soups.py').write_text(
        """
_base_ = ['./subset.py']
stages = {f'imbalance_{n}': dict(config='subset.py', options=dict(
    train_dataloader=dict(dataset=dict(max_imbalance=n, subset_seed=n)))) for n in (4, 6)}
model = dict(backbone=dict(frozen=True))
train_dataloader = dict(dataset=dict(max_imbalance=None))
default_hooks = dict(soup=dict(type='mmlt.SoupHook', groups=[['{stage:imbalance_4}'], ['{stage:imbalance_6}']]))
"""
    )
    keys = ('', 'stages.imbalance_4.options.', 'stages.imbalance_6.options.')
    train(repo, launcher_env, 'soups.py', 1, 'one', *(f'{key}train_dataloader.batch_size=2' for key in keys))
    out = train(repo, launcher_env, 'soups.py', 2, 'two')
    assert out.count('Merged weights') == 1
    start = {f'backbone.{key}': value for key, value in load_file(clip_file).items() if key.startswith('visual.')}
    (soup, other_soup), (end, other_end) = (
        [weights(f'{run}/{file}') for run in ('one', 'two')] for file in ('soup.pth', 'epoch_3.pth')
    )
    for name in start.keys() - {'backbone.visual.proj'}:
        a, b = soup[name].double(), other_soup[name].double()
        assert (a - start[name]).norm() > 0 and (a - b).norm() <= 1e-4 * (a - start[name]).norm(), name
        assert torch.equal(end[name], soup[name]) and torch.equal(other_end[name], other_soup[name])
    change, other_change = (e['head.weight'] - s['head.weight'] for e, s in ((end, soup), (other_end, other_soup)))
    assert (soup['head.weight'] - other_soup['head.weight']).norm() <= 1e-6 * soup['head.weight'].norm()
    assert (change - other_change).norm() <= 1e-4 * change.norm() > 0


def test_staged_training_and_test_in_two_processes(two_stages, repo, launcher_env):
    options = ['train_dataloader.batch_size=2', 'stages.phase_a.options.train_cfg.max_epochs=1']
    out = train(repo, launcher_env, 'b.py', 2, 'w', *options)
    assert 'Stage 2/2' in out and 'few (3)' in out
    # every process saw the run as finished, and says so the second time
    assert 'already finished' in train(repo, launcher_env, 'b.py', 2, 'w', *options)
    report = evaluate(repo, launcher_env, 'b.py', 'w/epoch_3.pth', 2)
    assert report['num_samples'] == 6  # padding is dropped: 6 images on 2 x 4
    evaluate(repo, launcher_env, 'b.py', 'w/epoch_3.pth', 1)
    one, two = (Predictions.load(f'tested-{processes}/predictions.npz') for processes in (1, 2))
    assert len(two.path) == 6 and [Path(path).is_file() for path in two.path.tolist()] == [True] * 6
    for name in ('label', 'prediction', 'path', 'index'):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert abs(one.confidence - two.confidence).max() < 1e-5


@pytest.mark.slow
def test_the_best_checkpoint_of_two_processes_goes_on(two_stages, repo, launcher_env):
    kept = ['default_hooks.checkpoint.save_best=shot/all', 'default_hooks.checkpoint.rule=less']
    options = [f'stages.phase_a.options.{option}' for option in (*kept, 'train_cfg.val_interval=1')]
    # Accuracy rises or stays, so by this rule an early epoch is the best.
    out = train(repo, launcher_env, 'b.py', 2, 'w', 'train_dataloader.batch_size=2', *options)
    assert 'few (3)' in out
    best = json.loads(Path('w/phase_a/run.json').read_text())['best']
    (path,) = Path('w/phase_a').glob('best_*.pth')
    assert best == path.name != 'best_shot_all_epoch_3.pth'
    start, trained = weights(path), weights('w/epoch_3.pth')
    assert all(torch.equal(trained[k], start[k]) for k in start if 'steps' not in k)  # the towers are frozen


def test_launchers_say_how_to_be_used(repo):
    for name, usage in (
        ('dist_train.sh', 'CONFIG PROCESSES'),
        ('dist_test.sh', 'CONFIG CHECKPOINT PROCESSES'),
        ('slurm_train.sh', 'PARTITION JOB_NAME CONFIG'),
        ('slurm_test.sh', 'PARTITION JOB_NAME CONFIG CHECKPOINT'),
    ):
        done = subprocess.run(['bash', repo / 'tools' / name], capture_output=True, text=True)
        assert done.returncode == 2 and usage in done.stderr


def test_slurm_launchers_call_srun(repo, tmp_path):
    """With a stand-in for srun: partition, job, tasks and the command that it would run."""
    (tmp_path / 'srun').write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '16', 'GPUS_PER_NODE': '4'}
    for name, arguments, tool in (
        ('slurm_train.sh', ['part', 'job', 'c.py', '--amp'], 'train.py'),
        ('slurm_test.sh', ['part', 'job', 'c.py', 'k.pth', '--tta'], 'test.py'),
    ):
        done = subprocess.run(['bash', repo / 'tools' / name, *arguments], capture_output=True, text=True, env=env)
        lines = done.stdout.split('\n')
        assert lines[:6] == ['-p', 'part', '--job-name=job', '--gres=gpu:4', '--ntasks=16', '--ntasks-per-node=4']
        at = next(i for i, line in enumerate(lines) if line.endswith(tool))
        assert lines[at + 1 : -1] == [*arguments[2:-1], '--launcher', 'slurm', arguments[-1]]
