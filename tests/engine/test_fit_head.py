"""Features of a whole dataset, and heads that are fitted on them before a test."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.dataset import default_collate
from mmpretrain.registry import MODELS
from torch.utils.data import Subset

from mmlt.apis import get_model
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import compute_features
from mmlt.models import NCMHead
from mmlt.utils import leave_together
from mmlt.utils.labels import dataset_labels
from tests.pictures import training_pictures

PLAIN = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
RANDOM = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.3, 1.0)),
    dict(type='PackInputs'),
]


def classifier(neck=None):
    torch.manual_seed(3)
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'),
            neck=neck,
            head=dict(type='mmlt.NCMHead', num_classes=3, in_channels=64),
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
        )
    )


def one_by_one(model, dataset):
    """Features of every image, alone."""
    model.eval()
    rows = []
    with torch.no_grad():
        for i in range(len(dataset)):
            batch = model.data_preprocessor(default_collate([dataset[i]]), False)
            rows.append(model.extract_feat(batch['inputs'])[-1][0])
    return torch.stack(rows)


@pytest.mark.parametrize('batch_size', [1, 4, 64])
def test_features_come_in_the_order_of_the_dataset(picture_folder, batch_size):
    model, dataset = classifier(), training_pictures(picture_folder, PLAIN)
    features = compute_features(model.train(), dataset, batch_size, 0, 'test')
    assert model.training and not features.requires_grad
    assert features.dtype == torch.float32 and features.shape == (10, 64)
    assert (features - one_by_one(model, dataset)).abs().max() <= 1e-5
    assert (features[0] - features[1]).abs().max() > 1e-3
    model.eval()
    compute_features(model, dataset, batch_size, 0, 'test')
    assert not model.training


def test_features_of_a_subset_and_of_the_backbone_alone(picture_folder):
    neck = dict(type='mmlt.BalancedLinearAdapter', in_channels=64, residual_ratio=0.5)
    model, dataset = classifier(neck), training_pictures(picture_folder, PLAIN)
    chosen = [7, 2, 2, 9]
    part = compute_features(model, Subset(dataset, chosen), 3, 0, 'test')
    whole = one_by_one(model, dataset)
    assert (part - whole[chosen]).abs().max() <= 1e-5
    assert dataset_labels(Subset(dataset, chosen)).tolist() == dataset_labels(dataset)[chosen].tolist()
    plain = compute_features(model, dataset, 3, 0, 'test', neck=False)
    model.neck = None
    assert (plain - one_by_one(model, dataset)).abs().max() <= 1e-5
    assert (plain - whole).abs().max() > 1e-2


def test_random_transforms_follow_the_seed_and_leave_no_trace(picture_folder):
    model, dataset = classifier(), training_pictures(picture_folder, RANDOM)
    state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first, again, other = (compute_features(model, dataset, 4, 0, 'test', seed=s) for s in (5, 5, 6))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    assert random.getstate() == state[0]
    assert (np.random.get_state()[1] == state[1]).all() and torch.equal(torch.get_rng_state(), state[2])


def test_the_bar_tells_what_is_done(picture_folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    compute_features(classifier(), training_pictures(picture_folder, PLAIN), 5, 0, 'Counting apples')
    assert 'Counting apples' in capsys.readouterr().err


def _worker(rank, world_size, folder, out):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{out}/rendezvous', rank=rank, world_size=world_size)
    features = compute_features(classifier(), Subset(training_pictures(folder, PLAIN), range(9)), 2, 0, 'test')
    torch.save(features, f'{out}/rank{rank}.pth')
    leave_together()


@pytest.mark.slow
def test_several_processes_give_the_features_of_one(picture_folder, tmp_path, monkeypatch):
    """9 images on 2 processes: the sampler pads one, which is dropped."""
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    mp.spawn(_worker, (2, str(picture_folder), str(tmp_path)), nprocs=2)
    expected = compute_features(classifier(), training_pictures(picture_folder, PLAIN), 4, 0, 'test')
    for rank in range(2):
        features = torch.load(tmp_path / f'rank{rank}.pth', weights_only=True)
        assert features.shape == (9, 64)
        assert (features - expected[:9]).abs().max() <= 1e-5


# FitHeadHook


@pytest.fixture
def means_in_test(monkeypatch):
    """The class means that the head predicted with, batch after batch."""
    means = []
    forward = NCMHead.forward
    monkeypatch.setattr(
        NCMHead, 'forward', lambda self, feats: means.append(self.means.clone()) or forward(self, feats)
    )
    return means


@pytest.fixture
def ncm(two_stages):
    """ncm.py: class means of the untrained features, fitted before a test."""
    (two_stages / 'ncm.py').write_text(
        f"""
_base_ = ['./a.py']
train = dict(type='mmlt.LongTailedDataset', data_root='{two_stages}', data_prefix='images', classes='classes.txt',
             ann_file='train.txt')
model = dict(head=dict(_delete_=True, type='mmlt.NCMHead', num_classes=3, in_channels=64))
train_cfg = train_dataloader = optim_wrapper = param_scheduler = None
val_cfg = val_dataloader = val_evaluator = None
default_hooks = dict(fit_head=dict(type='mmlt.FitHeadHook', dataset=train))
del train
"""
    )
    return two_stages


def class_means(clip_file, folder, pipeline=PLAIN):
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit', pretrained=clip_file),
            head=dict(type='mmlt.NCMHead', num_classes=3, in_channels=64),
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
        )
    )
    model.init_weights()
    dataset = training_pictures(folder, pipeline)
    features, labels = one_by_one(model, dataset), torch.from_numpy(dataset_labels(dataset))
    return torch.stack([features[labels == c].mean(0) for c in range(3)])


def test_head_is_fitted_with_the_test_pipeline(ncm, clip_file, test_tool, means_in_test):
    metrics = test_tool.main(['ncm.py'])
    assert 0 <= metrics['shot/all'] <= 100
    assert (means_in_test[0] - class_means(clip_file, ncm)).abs().max() <= 1e-5


def test_own_pipeline_and_batch_size(ncm, clip_file, test_tool, means_in_test, monkeypatch):
    from mmlt.engine.hooks import fit_head

    seen = []
    original = fit_head.compute_features
    monkeypatch.setattr(fit_head, 'compute_features', lambda *args: seen.append(args[2]) or original(*args))
    flipped = [PLAIN[0], PLAIN[1], dict(type='RandomFlip', prob=1.0), PLAIN[2]]
    text = Path('ncm.py').read_text().replace('dataset=train', f'dataset=train, batch_size=3, pipeline={flipped}')
    Path('ncm.py').write_text(text)
    test_tool.main(['ncm.py'])
    expected = class_means(clip_file, ncm, flipped)
    assert seen == [3]
    assert (means_in_test[0] - expected).abs().max() <= 1e-5
    assert (expected - class_means(clip_file, ncm)).abs().max() > 1e-3
    # with test-time augmentation the test's own pipeline would not do
    assert 0 <= test_tool.main(['ncm.py', '--tta'])['shot/all'] <= 100


def test_the_fitted_model_is_kept(ncm, clip_file, test_tool, means_in_test):
    metrics = test_tool.main(['ncm.py'])
    checkpoint = read_checkpoint('work_dirs/ncm/model.pth')
    assert checkpoint['meta']['dataset_meta']['classes'] == ('apple', 'pear', 'plum')
    assert torch.equal(checkpoint['state_dict']['head.means'], means_in_test[0])
    written = Path('work_dirs/ncm/model.pth').stat().st_mtime_ns
    model = get_model('ncm.py', 'work_dirs/ncm/model.pth')
    assert torch.equal(model.head.means, means_in_test[0])
    assert test_tool.main(['ncm.py', 'work_dirs/ncm/model.pth']) == metrics
    assert Path('work_dirs/ncm/model.pth').stat().st_mtime_ns == written  # a checkpoint that was given is there already


def test_fitted_head_stays_as_it_is(ncm, clip_file, test_tool, means_in_test):
    from safetensors.torch import load_file

    backbone = {f'backbone.{k}': v for k, v in load_file(clip_file).items() if k.startswith('visual.')}
    means = torch.randn(3, 64)
    torch.save({'state_dict': {**backbone, 'head.means': means}}, 'fitted.pth')
    test_tool.main(['ncm.py', 'fitted.pth'])
    assert torch.equal(means_in_test[0], means)


def test_head_that_cannot_be_fitted(ncm, test_tool):
    head = dict(_delete_=True, type='LinearClsHead', num_classes=3, in_channels=64)
    text = Path('ncm.py').read_text()
    Path('ncm.py').write_text(text + f'model = dict(head={head})\n')
    with pytest.raises(SystemExit, match='FitHeadHook: LinearClsHead has nothing to fit; remove the hook'):
        test_tool.main(['ncm.py'])


def test_augmented_or_wrapped_test_dataset_asks_for_a_pipeline(ncm, test_tool):
    with pytest.raises(SystemExit, match=r'finds no plain pipeline .* give the hook a pipeline=\[\.\.\.\]'):
        test_tool.main(['ncm.py', '--tta'])
