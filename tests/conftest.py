"""Shared fixtures: a tiny CLIP and a tiny long-tailed folder of pictures, both made in milliseconds."""

# ruff: noqa: E402

import gc
import os
import re
import shlex
import socket
import sys
from pathlib import Path


def gpu_is_asked(arguments: list[str]) -> bool:
    """Whether the last `-m` among pytest's arguments selects only tests that are marked `gpu`."""
    expression = ''
    for argument, following in zip(arguments, [*arguments[1:], '']):
        if argument.startswith('-m'):
            expression = argument[2:].removeprefix('=') or following
    words = re.findall(r'\w+', expression)
    return 'gpu' in words and 'or' not in words and not re.search(r'not\W+gpu\b', expression)


# Tests are of the CPU, on a machine with a GPU too, unless those of the GPU are asked for (-m gpu). Processes that a
# test or pytest-xdist starts inherit it; it has to stand before anything asks for a GPU.
if gpu_is_asked([*shlex.split(os.environ.get('PYTEST_ADDOPTS', '')), *sys.argv[1:]]):
    os.environ['MMLT_TESTS'] = 'gpu'
if os.environ.setdefault('MMLT_TESTS', 'cpu') == 'cpu':
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

import mmengine.config.config
import numpy as np
import open_clip
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from PIL import Image
from safetensors.torch import save_file

import mmlt  # noqa: F401  registers everything
from tests import stubs

REPO = Path(__file__).parent.parent
MODEL = 'mmlt-tiny-vit'


torch.set_num_threads(1)  # the models are tiny; threads that wait for each other on busy cores cost minutes
# Two thirds of a tiny training otherwise: MMEngine lays out the config for every checkpoint, and collects garbage
# among all that was imported for every dataset.
mmengine.config.config.FormatCode = lambda text, **_: (text, False)
gc.collect()
gc.freeze()


def pytest_runtest_setup(item):
    """Tests for a GPU are left out where there is none, in one line of the summary."""
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('there is no GPU, or it was not asked for with -m gpu')


@pytest.fixture(autouse=True)
def _fresh_state():
    """The same seed for every test, and nothing left by the runner of another one.

    MMEngine names a run by the second: the next test would be told its default scope and its best figures.
    """
    torch.manual_seed(0)
    np.random.seed(0)
    before = [(manager, dict(manager._instance_dict)) for manager in (DefaultScope, MessageHub)]
    yield
    for manager, instances in before:
        manager._instance_dict.clear()
        manager._instance_dict.update(instances)


@pytest.fixture
def launcher_env() -> dict[str, str]:
    """Environment for tools/dist_*.sh: this Python, one thread a process, and a port that nobody uses."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = str(s.getsockname()[1])
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PORT': port, 'PYTHON': sys.executable, 'PYTHONPATH': str(REPO)}


@pytest.fixture(scope='session')
def repo() -> Path:
    """Root of the repository."""
    return REPO


@pytest.fixture(scope='session')
def clip_file(tmp_path_factory) -> str:
    """Weights of a tiny open_clip model (ViT, 64 wide) with random values."""
    torch.manual_seed(20)  # not the tests' seed: a model that failed to load must not have these weights by chance
    clip = open_clip.create_model(MODEL)
    path = tmp_path_factory.mktemp('clip') / 'tiny.safetensors'
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, str(path))
    return str(path)


@pytest.fixture
def picture_folder(tmp_path) -> Path:
    """A long-tailed dataset of 3 classes (6, 3, 1 train, 2 test pictures each), with `path label` lists.

    ``images/<class>/<n>.png``, ``train.txt``, ``test.txt``, ``classes.txt``.
    """
    rng = np.random.default_rng(0)
    names = ('apple', 'pear', 'plum')
    lists = {'train': [], 'test': []}
    for label, (name, count) in enumerate(zip(names, (6, 3, 1))):
        folder = tmp_path / 'images' / name
        folder.mkdir(parents=True)
        for i in range(count + 2):
            pixels = rng.integers(0, 80, (40, 36, 3), dtype=np.uint8)
            pixels[..., label] += 150
            Image.fromarray(pixels).save(folder / f'{i}.png')
            lists['train' if i < count else 'test'].append(f'{name}/{i}.png {label}')
    for split, lines in lists.items():
        (tmp_path / f'{split}.txt').write_text('\n'.join(lines) + '\n')
    (tmp_path / 'classes.txt').write_text('\n'.join(names) + '\n')
    return tmp_path


@pytest.fixture(scope='session')
def train_tool():
    """The module that tools/train.py calls."""
    return stubs.tool('train')


@pytest.fixture(scope='session')
def test_tool():
    """The module that tools/test.py calls."""
    return stubs.tool('test')


@pytest.fixture
def two_stages(tmp_path, monkeypatch, clip_file, picture_folder) -> Path:
    """A two-stage method on the picture folder: a.py (both towers) and b.py (adapter on frozen towers).

    The test runs in ``tmp_path``; results go to ``work_dirs/`` there.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.py').write_text(
        f"""
_base_ = ['{REPO}/configs/_base_/default_runtime.py']
clip = dict(model='{MODEL}', pretrained='{clip_file}')
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', **clip),
    head=dict(type='mmlt.TextClsHead', text=dict(type='mmlt.OpenCLIPText', **clip), logit_scale=20.0),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
data = dict(type='mmlt.LongTailedDataset', data_root='{picture_folder}', data_prefix='images',
            classes='classes.txt', pipeline=pipeline)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, drop_last=True,
    dataset=dict(ann_file='train.txt', **data), sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(ann_file='test.txt', train_ann_file='train.txt', **data),
    sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=4)
del clip, data, pipeline
"""
    )
    (tmp_path / 'b.py').write_text(
        """
_base_ = ['./a.py']
stages = dict(phase_a=dict(config='a.py', load_from=True))
model = dict(
    backbone=dict(pretrained=None, frozen=True),
    neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=64),
    head=dict(text=dict(pretrained=None, frozen=True)))
train_dataloader = dict(sampler=dict(_delete_=True, type='mmlt.ClassBalancedSampler'))
default_hooks = dict(feature_cache=dict(type='mmlt.FeatureCacheHook', views=1))
"""
    )
    return tmp_path
