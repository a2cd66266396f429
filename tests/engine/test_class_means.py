"""Class vectors from class means: the formula, once before a training, the same in all processes, not again later."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmpretrain.registry import MODELS
from torch.utils.data import ConcatDataset, DataLoader

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.engine import ClassMeansHook
from mmlt.models import CosineClsHead
from mmlt.models.heads.cosine_cls_head import class_mean_vectors
from mmlt.utils import leave_together
from tests.pictures import training_pictures

PLAIN = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(28, 28)), dict(type='PackInputs')]
RANDOM = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=28, crop_ratio_range=(0.3, 1.0)),
    dict(type='PackInputs'),
]
MODEL = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmlt.TimmViT',
        model='vit_small_patch14_reg4_dinov2',
        image_size=28,
        options=dict(depth=2, embed_dim=48, num_heads=3),
        adapter=dict(type='mmlt.AdaptFormer', bottleneck=3),
    ),
    head=dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=48, init='class_means'),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
)


def naive_vectors(features, labels, number, normalised):
    """Sums over the images of a class, one number after the other, float64."""
    rows = []
    for c in range(number):
        own = [f.double() for f, y in zip(features, labels) if y == c]
        if normalised:
            own = [f / sum(v * v for v in f).sqrt() for f in own]
        mean = sum(own) / len(own)
        rows.append(mean / sum(v * v for v in mean).sqrt())
    return torch.stack(rows)


@pytest.mark.parametrize('normalised', [True, False])
def test_class_mean_vectors(normalised):
    features, labels = torch.randn(9, 5) * torch.rand(9, 1).add(0.1), torch.tensor([0, 2, 1, 0, 2, 2, 0, 1, 2])
    expected = naive_vectors(features, labels.tolist(), 3, normalised)
    assert (class_mean_vectors(features, labels, 3, normalised) - expected).abs().max() <= 1e-6
    assert (class_mean_vectors(features, labels, 3, not normalised) - expected).abs().max() > 1e-3
    with pytest.raises(InputError, match='Class 3 has no training images'):
        class_mean_vectors(features, labels, 4)


def test_head_waits_for_features():
    head, features = CosineClsHead(2, 4, init='class_means'), torch.randn(3, 4)
    assert head((features,)).shape == (3, 2)  # for example filled by a checkpoint
    head.init_weights()
    with pytest.raises(InputError, match='starts from class means and has none yet: add .*ClassMeansHook'):
        head((features,))
    with pytest.raises(InputError, match='features are 5 wide and the head expects 4: set model.head.in_channels=5'):
        head.start_from_features(torch.randn(3, 5), torch.tensor([0, 1, 1]))
    head.start_from_features(features, torch.tensor([0, 1, 1]))
    assert torch.allclose(head((features,))[0, 0], torch.tensor(25.0), atol=1e-4)  # its own class's only image
    head.init_weights()
    head.load_state_dict(head.state_dict())
    assert not head.waits_for_features  # the checkpoint's vectors are wanted


# The hook


def classifier(**head):
    torch.manual_seed(3)
    model = MODELS.build({**MODEL, 'head': {**MODEL['head'], **head}})
    model.init_weights()
    with torch.no_grad():  # a new tower's class token hardly depends on the picture, and all features are of one length
        for parameter in model.backbone.visual.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model.train()


def fake_runner(model, folder, wrapped=False, pipeline=PLAIN):
    dataset = training_pictures(folder, RANDOM)
    dataset = ConcatDataset([dataset]) if wrapped else dataset
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    loader = DataLoader(dataset, batch_size=4)
    return SimpleNamespace(model=model, train_dataloader=loader, cfg=cfg, logger=logging.getLogger('test'))


@torch.no_grad()
def expected_vectors(model, folder, normalised=True):
    dataset, rows, labels = training_pictures(folder, PLAIN), [], []
    model.eval()
    for i in range(len(dataset)):
        batch = model.data_preprocessor(default_collate([dataset[i]]), False)
        rows.append(model.extract_feat(batch['inputs'])[-1][0])
        labels.append(int(batch['data_samples'][0].gt_label))
    return naive_vectors(rows, labels, 3, normalised)


@pytest.mark.parametrize('normalised', [True, False])
def test_means_are_those_of_a_loop(picture_folder, normalised):
    model = classifier()
    runner = fake_runner(model, picture_folder)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state, pipeline = torch.get_rng_state(), runner.train_dataloader.dataset.pipeline
    ClassMeansHook(normalised=normalised).before_train(runner)
    assert model.training and runner.train_dataloader.dataset.pipeline is pipeline
    assert torch.equal(torch.get_rng_state(), state)
    assert {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])} == {'head.weight'}
    vectors = model.head.weight.detach().clone()
    assert (vectors - expected_vectors(model, picture_folder, normalised)).abs().max() <= 1e-5
    assert (vectors - expected_vectors(model, picture_folder, not normalised)).abs().max() > 1e-4
    with torch.no_grad():
        model.head.weight.mul_(2)
    ClassMeansHook().before_train(runner)  # not again
    assert torch.equal(model.head.weight, 2 * vectors)


def test_inside_more(picture_folder):
    plain = classifier()
    torch.manual_seed(3)
    model = MODELS.build(dict(type='mmlt.MORE', classifier=MODEL))
    model.init_weights()
    model.classifier.load_state_dict({k: v for k, v in plain.state_dict().items() if k != 'head.weight'}, strict=False)
    ClassMeansHook().before_train(fake_runner(model, picture_folder))
    assert not model.classifier.head.waits_for_features


def test_what_cannot_be(picture_folder):
    with pytest.raises(InputError, match='CosineClsHead does not start from class means; remove the hook, or use'):
        ClassMeansHook().check_run(fake_runner(classifier(init='random'), picture_folder))
    with pytest.raises(InputError, match='no pipeline for the images of ConcatDataset: train on a plain dataset'):
        ClassMeansHook().check_run(fake_runner(classifier(), picture_folder, wrapped=True))
    with pytest.raises(InputError, match=r'no pipeline .* give the hook a pipeline=\[...\]'):
        ClassMeansHook().check_run(fake_runner(classifier(), picture_folder, pipeline=None))
    ClassMeansHook(pipeline=PLAIN).check_run(fake_runner(classifier(), picture_folder, pipeline=None))
    with pytest.raises(InputError, match='batch_size is 0'):
        ClassMeansHook(batch_size=0)


def _worker(rank, world_size, folder, out):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{out}/rendezvous', rank=rank, world_size=world_size)
    model = classifier()
    wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=False)
    ClassMeansHook().before_train(fake_runner(wrapped, folder))
    # one step: every trained weight has a gradient, the same everywhere
    data = default_collate([training_pictures(folder, PLAIN)[i] for i in (rank, 9 - rank)])
    data = model.data_preprocessor(data, True)
    wrapped(**data, mode='loss')['loss'].backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    torch.save((model.head.weight.detach(), gradients), f'{out}/rank{rank}.pth')
    leave_together()


def test_two_processes_give_the_means_of_one(picture_folder, tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    mp.spawn(_worker, (2, str(picture_folder), str(tmp_path)), nprocs=2)
    (first, gradients), (second, others) = (
        torch.load(tmp_path / f'rank{rank}.pth', weights_only=True) for rank in range(2)
    )
    model = classifier()
    ClassMeansHook().before_train(fake_runner(model, picture_folder))
    assert torch.equal(first, second) and (first - model.head.weight).abs().max() <= 1e-6
    assert all(g is not None and torch.equal(g, others[n]) for n, g in gradients.items())


# Trainings


@pytest.fixture
def lift(two_stages):
    """lift.py: LIFT on a small DINOv2 with the picture folder."""
    (two_stages / 'lift.py').write_text(
        f"""
_base_ = ['./a.py']
model = dict(_delete_=True, **{MODEL!r})
pipeline = {PLAIN!r}
train_dataloader = dict(dataset=dict(pipeline={RANDOM!r}))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(class_means=dict(type='mmlt.ClassMeansHook'))
del pipeline
"""
    )
    return two_stages


@pytest.fixture
def calls(monkeypatch):
    """How often a head started from features, and with which vectors."""
    found, original = [], CosineClsHead.start_from_features

    def start(self, *args):
        original(self, *args)
        found.append(self.weight.detach().clone())

    monkeypatch.setattr(CosineClsHead, 'start_from_features', start)
    return found


def test_training_starts_from_means_and_resumes_without(lift, train_tool, test_tool, calls):
    train_tool.main(['lift.py'])
    assert len(calls) == 1
    weights = read_checkpoint('work_dirs/lift/epoch_2.pth')['state_dict']
    assert 0 < (weights['head.weight'] - calls[0]).abs().max() < 0.5
    train_tool.main(['lift.py', '--resume', '--cfg-options', 'train_cfg.max_epochs=3'])
    assert len(calls) == 1
    assert (read_checkpoint('work_dirs/lift/epoch_3.pth')['state_dict']['head.weight'] - calls[0]).abs().max() < 0.5
    test_tool.main(['lift.py', 'work_dirs/lift/epoch_3.pth'])
    assert len(calls) == 1


def test_training_without_the_hook_says_so(lift, train_tool):
    (lift / 'none.py').write_text((lift / 'lift.py').read_text().replace('default_hooks', 'unused'))
    with pytest.raises((SystemExit, InputError), match='starts from class means and has none yet'):
        train_tool.main(['none.py'])


def test_the_cache_of_features_does_not_need_the_adapters(lift, train_tool, calls):
    """The cosine head alone, on cached features of the frozen tower."""
    options = ['model.backbone.frozen=True', 'model.backbone.adapter=None']
    options += ['default_hooks.feature_cache.type=mmlt.FeatureCacheHook']
    train_tool.main(['lift.py', '--cfg-options', *options])
    assert len(calls) == 1
    assert list(Path('work_dirs/lift/features').glob('*.safetensors'))


def test_tiny_config_trains(repo, tmp_path, monkeypatch, train_tool, calls):
    """From the class means of random features on MNIST-LT; two epochs of it."""
    monkeypatch.chdir(tmp_path)
    config = str(repo / 'configs/lift/lift_tiny-dinov2_mnist-lt.py')
    options = ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'train_dataloader.num_workers=0']
    options += ['train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0']
    options += ['val_dataloader.persistent_workers=False']
    train_tool.main([config, '--no-test', '--cfg-options', *options])
    assert len(calls) == 1
    state = read_checkpoint('work_dirs/lift_tiny-dinov2_mnist-lt/epoch_2.pth')['state_dict']
    assert all(v.isfinite().all() for v in state.values())
    assert any(v.any() for k, v in state.items() if k.endswith('up.weight'))  # they began at zero
    assert not torch.equal(state['head.weight'], calls[0])
