import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torch import nn

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import FeatureCacheHook, Runner
from mmlt.models import OpenCLIPVision
from mmlt.models.data_preprocessor import CLIPDataPreprocessor
from mmlt.utils import object_fingerprint

CACHE = 'default_hooks.feature_cache.'


@pytest.fixture
def phase_b(two_stages, train_tool):
    """Phase A is trained; returns a function that trains phase B into a folder and gives its weights."""
    train_tool.main(['a.py', '--work-dir', 'work_dirs/b/phase_a', '--no-test'])

    def run(folder, **options):
        cfg = Config.fromfile('b.py')
        cfg.work_dir = folder
        options = {'stages.phase_a.work_dir': 'work_dirs/b/phase_a', 'optim_wrapper.optimizer.lr': 0.2, **options}
        cfg.merge_from_dict(options)
        runner = Runner.from_cfg(cfg)
        runner.train()
        return {k: v for k, v in runner.model.state_dict().items() if k.startswith('neck')}, runner

    return run


def cached_files(folder='w'):
    return sorted(p.name for p in Path(folder, 'features').glob('*.safetensors'))


def test_cached_training_gives_the_uncached_weights(phase_b):
    cached, _ = phase_b('w')
    # the transform is deterministic, so images at every step must give the same training
    plain, _ = phase_b('w0', **{CACHE + 'views': 0})
    assert not Path('w0/features').exists()
    start, _ = phase_b('w1', **{'optim_wrapper.optimizer.lr': 0.0})
    for name, weight in cached.items():
        assert torch.allclose(weight, plain[name], atol=1e-5, rtol=0), name
    assert (cached['neck.linear.weight'] - start['neck.linear.weight']).abs().max() > 1e-3
    half, _ = phase_b('w16', **{CACHE + 'dtype': 'float16'})
    assert torch.allclose(half['neck.linear.weight'], cached['neck.linear.weight'], atol=1e-2)


def test_cache_is_used_again_and_never_when_stale(phase_b, picture_folder, monkeypatch):
    phase_b('w')
    (first,) = cached_files()
    stamp = os.stat(f'w/features/{first}').st_mtime_ns
    phase_b('w')
    assert cached_files() == [first] and os.stat(f'w/features/{first}').st_mtime_ns == stamp

    pipeline = Config.fromfile('b.py').test_dataloader.dataset.pipeline
    pipeline[1].scale = (32, 30)  # another transform; the tower resizes nothing, so use it only to key the cache
    phase_b(
        'w',
        **{
            CACHE + 'pipeline': [pipeline[0], dict(type='Resize', scale=(30, 30)), *pipeline[1:]][:2]
            + [dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
        },
    )
    assert len(cached_files()) == 2

    picture = picture_folder / 'images/apple/0.png'
    Image.fromarray(np.full((40, 36, 3), 200, np.uint8)).save(picture)  # another picture under the same name
    phase_b('w')
    assert len(cached_files()) == 3

    weights = Path('work_dirs/b/phase_a/epoch_3.pth')
    checkpoint = read_checkpoint(weights)
    checkpoint['state_dict']['backbone.visual.proj'] += 0.01
    torch.save(checkpoint, weights)
    phase_b('w')
    assert len(cached_files()) == 4

    # a damaged file of the right name is not trusted either
    newest = max(Path('w/features').glob('*.safetensors'), key=lambda p: p.stat().st_mtime_ns)
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-100])
    phase_b('w')
    assert newest.read_bytes() == whole


@pytest.fixture
def key(tmp_path):
    """The key of a cache, as a function of what goes into it."""
    picture = tmp_path / 'picture.png'

    def make(
        tower='mmlt-tiny-vit',
        quick_gelu=None,
        projection=True,
        image_size=None,
        weight=None,
        preprocessor=None,
        pipeline=({'type': 'Resize', 'scale': 32},),
        labels=(0, 1),
        picture_of=0,
        path=None,
        seed=0,
        frozen=True,
        norm_eval=False,
        training=False,
        adapter=None,
        **hook,
    ):
        torch.manual_seed(0)
        backbone = OpenCLIPVision(
            tower, frozen=frozen, quick_gelu=quick_gelu, projection=projection, image_size=image_size,
            norm_eval=norm_eval, adapter=adapter,
        )  # fmt: skip
        if weight is not None:
            dict(backbone.named_parameters())[weight].data[0] += 1e-3
        Image.fromarray(np.full((8, 8, 3), picture_of, np.uint8)).save(path or picture)
        os.utime(path or picture, (1, 1))
        rows = [dict(img_path=str(path or picture)), dict(img=np.zeros((2, 2), np.uint8))]
        dataset = SimpleNamespace(
            pipeline=Compose([TRANSFORMS.build(t) for t in pipeline]), get_data_info=lambda i: rows[i]
        )
        model = SimpleNamespace(
            backbone=backbone.train(training), data_preprocessor=CLIPDataPreprocessor(**(preprocessor or {}))
        )
        return FeatureCacheHook(**hook)._fingerprint(model, dataset, np.array(labels), seed)

    return make


ADAPTER = dict(type='mmlt.AdaptFormer', num_classes=3)
CHANGES = {
    'tower': dict(tower='mmlt-tiny-vit-p4'),
    'activation': dict(quick_gelu=True),
    'projection': dict(projection=False),
    'size of the pictures': dict(image_size=64),
    'weights': dict(weight='visual.conv1.weight'),
    'weights of a norm': dict(weight='visual.ln_pre.weight'),
    'adapters': dict(adapter=ADAPTER),
    'mean': dict(preprocessor=dict(mean=[1.0, 2.0, 3.0])),
    'deviation': dict(preprocessor=dict(std=[1.0, 2.0, 3.0])),
    'order of the colours': dict(preprocessor=dict(to_rgb=False)),
    'padding': dict(preprocessor=dict(pad_size_divisor=32)),
    'value of the padding': dict(preprocessor=dict(pad_value=5)),
    'transform': dict(pipeline=({'type': 'Resize', 'scale': 33},)),
    'a setting that a transform does not print': dict(
        pipeline=({'type': 'Resize', 'scale': 32, 'interpolation': 'bicubic'},)
    ),
    'another transform': dict(pipeline=({'type': 'Resize', 'scale': 32}, {'type': 'CenterCrop', 'crop_size': 32})),
    'labels': dict(labels=(1, 0)),
    'picture': dict(picture_of=255),
    'views': dict(views=2),
    'precision': dict(dtype='float16'),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_all_that_makes_features_is_in_their_key(key, change):
    assert key(**change) == key(**change)
    assert key(**change) != key()


def test_weights_of_frozen_adapters_are_in_the_key(key):
    assert key(adapter=ADAPTER, weight='adapters.0.down.weight') != key(adapter=ADAPTER) == key(adapter=ADAPTER)


@pytest.mark.parametrize(
    'change',
    [
        dict(frozen=False),
        dict(norm_eval=True),
        dict(training=True),
        dict(batch_size=7),
        dict(directory='elsewhere'),
        dict(preprocessor=dict(num_classes=3)),
        dict(seed=1),
    ],
    ids=str,
)
def test_what_features_do_not_depend_on(key, change):
    assert key(**change) == key()


def test_seed_and_picture_files_of_views(key, tmp_path):
    assert key(views=2, seed=1) != key(views=2)
    assert key(path=tmp_path / 'other.png') != key()


def test_fingerprint_of_objects():
    class Thing:
        def __init__(self, value):
            self.own = {'list': [value], 'self': self}

    one = object_fingerprint(Thing(1))
    assert one == object_fingerprint(Thing(1)) and one != object_fingerprint(Thing(2))
    assert one == object_fingerprint(Thing(1), without=('other',)) and one != object_fingerprint(Thing('1'))
    assert object_fingerprint(Thing(1), without=('list',)) == object_fingerprint(Thing(2), without=('list',))
    assert object_fingerprint(np.zeros(2)) != object_fingerprint(np.zeros(3))
    assert object_fingerprint(torch.zeros(2)) != object_fingerprint(torch.zeros(2, dtype=torch.int64))
    assert object_fingerprint({1, 2, 3}) == object_fingerprint({3, 2, 1})
    assert object_fingerprint(os.path.join) != object_fingerprint(os.path.split)
    assert object_fingerprint(nn.Linear) != object_fingerprint(nn.Conv2d)
    assert object_fingerprint(nn.ReLU()) != object_fingerprint(nn.GELU())
    assert object_fingerprint(nn.BatchNorm1d(2)) != object_fingerprint(nn.BatchNorm1d(2, eps=1e-3))
    assert object_fingerprint(object()) == object_fingerprint(object())  # no address in it


def test_views_come_from_the_train_pipeline_and_differ(phase_b):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.3, 1.0)),
        dict(type='PackInputs'),
    ]
    options = {CACHE + 'views': 3, 'train_dataloader.dataset.pipeline': pipeline}
    first, runner = phase_b('w', **options)
    features = runner.train_dataloader.features
    assert features.shape == (3, 10, 64)
    assert not torch.allclose(features[0], features[1])
    again, _ = phase_b('w2', **options)
    assert all(torch.equal(first[k], again[k]) for k in first)  # seeded
    batches = [b['inputs'] for b in runner.train_dataloader]
    flat = features.flatten(0, 1)
    rows = [int((flat == x).all(1).nonzero()[0]) // 10 for x in torch.cat(batches)]
    assert len(set(rows)) > 1  # several views are drawn


def test_as_many_views_as_epochs(phase_b):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.3, 1.0)),
        dict(type='PackInputs'),
    ]
    _, runner = phase_b('w', **{CACHE + 'views': 'epochs', 'train_dataloader.dataset.pipeline': pipeline})
    assert runner.train_dataloader.features.shape == (runner.max_epochs, 10, 64)
    # A training of one epoch has one random view, not the test pipeline's.
    one = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'train_dataloader.dataset.pipeline': pipeline}
    random, fixed = (phase_b(f'w{v}', **{CACHE + 'views': v}, **one)[1].train_dataloader for v in ('epochs', 1))
    assert random.features.shape == fixed.features.shape == (1, 10, 64)
    assert not torch.allclose(random.features, fixed.features)
    loop = dict(_delete_=True, by_epoch=False, max_iters=5, val_interval=5)
    # By iterations an epoch is a pass: 5 iterations, two a pass, are three.
    _, runner = phase_b('w2', **{CACHE + 'views': 'epochs', 'train_cfg': loop, 'param_scheduler': None})
    assert len(runner.train_dataloader) == 2 and runner.train_dataloader.features.shape == (3, 10, 64)


def test_views_of_several_processes_are_those_of_one(monkeypatch):
    from mmlt.engine.hooks import feature_cache

    def batches(rank, processes, batch_size):
        monkeypatch.setattr(feature_cache, 'get_dist_info', lambda: (rank, processes))
        loader = SimpleNamespace(
            dataset=None, batch_size=batch_size, drop_last=True, sampler=list(range(12))[rank::processes]
        )
        features = torch.arange(36.0).view(3, 12, 1)  # view, image
        loader = feature_cache.FeatureLoader(features, np.zeros(12, int), loader, torch.device('cpu'), seed=0)
        return [set(batch['inputs'].flatten().tolist()) for batch in loader]

    one, two = batches(0, 1, 4), [batches(rank, 2, 2) for rank in (0, 1)]
    assert len(one) == 3 and one == [a | b for a, b in zip(*two)]
    assert {int(x) // 12 for batch in one for x in batch} == {0, 1, 2}


def test_making_the_cache_leaves_the_random_state_alone(phase_b, monkeypatch):
    from mmlt.engine.hooks import feature_cache

    seen = []
    original = feature_cache.FeatureCacheHook._compute

    def watch(self, *args, **kwargs):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        out = original(self, *args, **kwargs)
        seen.append(torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all())
        return out

    monkeypatch.setattr(feature_cache.FeatureCacheHook, '_compute', watch)
    phase_b('w')
    assert seen == [True]


def test_iteration_based_training_uses_the_cache(phase_b):
    loop = dict(_delete_=True, by_epoch=False, max_iters=5, val_interval=5)
    trained, runner = phase_b('w', **{'train_cfg': loop, 'param_scheduler': None})
    assert runner.iter == 5 and len(cached_files()) == 1
    assert trained['neck.linear.weight'].isfinite().all()


@pytest.mark.parametrize(
    'options, sentence',
    [
        ({'model.backbone.frozen': False}, 'need a frozen OpenCLIPVision'),
        ({CACHE + 'views': -1}, 'views is -1'),
        ({CACHE + 'views': 'epoch'}, "views is 'epoch'"),
        ({CACHE + 'dtype': 'int8'}, "dtype is 'int8'"),
        (
            {'model.data_preprocessor.batch_augments': dict(augments=[dict(type='CutMix', alpha=1.0)])},
            'cannot be mixed as images are .*batch_augments=None',
        ),
        (
            {
                'test_dataloader': None,
                'test_cfg': None,
                'test_evaluator': None,
                'val_dataloader': None,
                'val_cfg': None,
                'val_evaluator': None,
            },
            'no test_dataloader',
        ),
    ],
)
def test_bad_settings_are_named(phase_b, options, sentence):
    with pytest.raises(InputError, match=sentence):
        phase_b('w', **options)


def test_a_wrapped_dataset_is_refused(phase_b):
    cfg = Config.fromfile('b.py')
    wrapped = dict(_delete_=True, type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset.to_dict())
    with pytest.raises(InputError, match='has no pipeline of its own'):
        phase_b('w', **{'train_dataloader.dataset': wrapped})
