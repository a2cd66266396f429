import subprocess
import sys
from pathlib import Path

import mmpretrain
import pytest

STOCK = Path(mmpretrain.__file__).parent / '.mim'


@pytest.fixture
def foreign(picture_folder, repo, monkeypatch):
    """MMPretrain's own ResNet config on a folder of pictures; only sampler and metric are of mmlt."""
    monkeypatch.chdir(picture_folder)
    monkeypatch.setenv('PYTHONPATH', str(repo))
    (picture_folder / 'foreign.py').write_text(
        f"""
_base_ = ['{STOCK}/configs/_base_/models/resnet18.py', '{STOCK}/configs/_base_/default_runtime.py']
custom_imports = dict(imports=['mmlt'])
model = dict(head=dict(num_classes=3, topk=(1,)))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
loader = dict(batch_size=5, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(type='CustomDataset', data_root='{picture_folder}', ann_file='train.txt',
    data_prefix='images', pipeline=pipeline), sampler=dict(type='mmlt.ClassBalancedSampler'), **loader)
val_dataloader = dict(dataset=dict(type='CustomDataset', data_root='{picture_folder}', ann_file='test.txt',
    data_prefix='images', pipeline=pipeline), sampler=dict(type='DefaultSampler', shuffle=False), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmlt.ShotAccuracy')
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
"""
    )
    return picture_folder


def test_foreign_config_gets_sampler_and_shot_metric(foreign):
    train = [sys.executable, STOCK / 'tools/train.py', 'foreign.py', '--work-dir', 'out']
    done = subprocess.run(train, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    log = done.stdout + done.stderr
    assert 'shot/all' in log and 'shot/few' in log and 'shot/balanced' in log
    # mmlt's checkpoint loading also serves MMEngine's own Runner
    test = [sys.executable, STOCK / 'tools/test.py', 'foreign.py', 'out/epoch_1.pth', '--work-dir', 'out']
    done = subprocess.run(test, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'shot/few' in done.stdout + done.stderr


@pytest.mark.slow
def test_foreign_config_is_wrapped_by_more(foreign):
    """The whole of what it takes; the merged result is tested by the plain config."""
    (foreign / 'more.py').write_text(
        """
_base_ = 'foreign.py'
model = dict(_delete_=True, type='mmlt.MORE', classifier={{_base_.model}})
optim_wrapper = dict(clip_grad=dict(max_norm=5))
custom_hooks = [dict(type='mmlt.MOREHook', interval=1)]
"""
    )
    train = [sys.executable, STOCK / 'tools/train.py', 'more.py', '--work-dir', 'out', '--cfg-options']
    done = subprocess.run(
        [*train, 'train_cfg.max_epochs=2', 'default_hooks.logger.interval=1'],
        capture_output=True,
        text=True,
        timeout=300,
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-2000:]
    assert 'loss_more' in log and 'more_alpha' in log and 'more_discrepancy_few' in log
    assert 'Equivalence check' in log and (foreign / 'out/more_discrepancy.png').stat().st_size > 1000
    accuracy = [line.split('shot/all: ')[1].split()[0] for line in log.splitlines() if 'shot/all: ' in line][-1]
    test = [sys.executable, STOCK / 'tools/test.py', 'foreign.py', 'out/merged.pth', '--work-dir', 'out']
    done = subprocess.run(test, capture_output=True, text=True, timeout=300)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-2000:]
    assert 'do not match exactly' not in log  # MMEngine's words for missing or unexpected keys
    assert f'shot/all: {accuracy}' in log
