"""BALLAD's configs train as its published code does, against a naive loop in float64."""

import math
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt.utils.class_info import ClassInfo

CONFIGS = Path(__file__).parents[2] / 'configs' / 'ballad'
BACKBONES = {'rn50': 'mmlt-tiny-rn', 'vit-b16': 'mmlt-tiny-vit'}
CLASSES = ('apple', 'pear', 'plum', 'quince')
EPOCHS, STEPS = 2, 5


def resolved(backbone, phase, options=None):
    """The real config, with tiny towers, two epochs, and rates at which ten steps go somewhere."""
    cfg = Config.fromfile(CONFIGS / f'ballad_{backbone}_imagenet-lt{"_phase-a" if phase == "a" else ""}.py')
    tiny = BACKBONES[backbone]
    width = open_clip.get_model_config(tiny)['embed_dim']
    cfg.merge_from_dict(
        {
            'model.backbone.model': tiny, 'model.backbone.pretrained': None, 'model.head.text.model': tiny,
            'model.head.text.pretrained': None, 'train_cfg.max_epochs': EPOCHS,
            'optim_wrapper.optimizer.lr': 1e-3 if phase == 'a' else 0.2,
            **({} if phase == 'a' else {'model.neck.in_channels': width}), **(options or {}),
        }
    )  # fmt: skip
    return cfg


def build(cfg):
    torch.manual_seed(3)
    model = MODELS.build(cfg.model).double()
    model.head.set_class_info(ClassInfo(CLASSES))
    for name, buffer in model.named_buffers():  # statistics that a batch does not have
        if name.endswith('running_mean'):
            buffer.normal_(std=0.3)
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 2.0)
    return model


def batches():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(EPOCHS * STEPS, 6, 3, 32, 32)))
    return list(zip(images, torch.from_numpy(rng.integers(len(CLASSES), size=(EPOCHS * STEPS, 6)))))


def trained(cfg, model):
    """Our training: the config's optimizer and schedule, the model in train mode."""
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(end=EPOCHS, **s), default_args=dict(optimizer=wrapper)) for s in cfg.param_scheduler
    ]
    model.train()
    losses = []
    for i, (images, labels) in enumerate(batches()):
        samples = [DataSample().set_gt_label(int(y)) for y in labels]
        loss, _ = model.parse_losses(model(images, samples, mode='loss'))
        wrapper.update_params(loss)
        losses.append(loss.item())
        if (i + 1) % STEPS == 0:
            for scheduler in schedulers:
                scheduler.step()
    return losses


def naive(model, tiny, lr, adapter):
    """SGD with momentum 0.9 and decay 5e-4, written out; towers in eval mode, 100 times the cosine."""
    model.eval()
    tokens = open_clip.get_tokenizer(tiny)([f'a photo of a {name}.' for name in CLASSES])
    weights = [model.neck.linear.weight] if adapter else [p for p in model.parameters() if p.requires_grad]
    momentum, losses = [torch.zeros_like(w) for w in weights], []
    for i, (images, labels) in enumerate(batches()):
        feature = model.backbone.visual(images)
        if adapter:
            feature = 0.2 * feature.detach() @ weights[0].t() + 0.8 * feature.detach()
        text = model.head.text.clip.encode_text(tokens)
        logits = 100 * F.normalize(feature, dim=-1) @ F.normalize(text, dim=-1).t()
        loss = -logits.log_softmax(1)[range(len(labels)), labels].mean()
        rate = lr * (1 + math.cos(math.pi * (i // STEPS + 1) / EPOCHS)) / 2
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient, velocity in zip(weights, gradients, momentum):
                if gradient is None:  # the logit scale is a constant in BALLAD
                    continue
                velocity.mul_(0.9).add_(gradient + 5e-4 * weight)
                weight.sub_(rate * velocity)
        losses.append(loss.item())
    return losses


def compare(backbone, phase, options=None):
    """Largest relative errors of the losses and of the weights, against how far these went, and the losses."""
    cfg = resolved(backbone, phase, options)
    ours, theirs, start = (build(cfg) for _ in range(3))
    losses = trained(cfg, ours)
    expected = naive(theirs, BACKBONES[backbone], cfg.optim_wrapper.optimizer.lr, phase == 'b')
    loss_error = max(abs(a - b) / abs(b) for a, b in zip(losses, expected))
    weight_error = 0.0
    for own, other, first in zip(*(model.state_dict().values() for model in (ours, theirs, start))):
        if not own.is_floating_point():  # counters
            continue
        moved = (other - first).norm()
        weight_error = max(weight_error, float((own - other).norm() / (moved if moved > 0 else 1.0)))
    return loss_error, weight_error, expected


@pytest.mark.parametrize('phase', ['a', 'b'])
@pytest.mark.parametrize('backbone', sorted(BACKBONES))
def test_ten_steps(backbone, phase):
    loss_error, weight_error, losses = compare(backbone, phase)
    assert loss_error <= 1e-9 and weight_error <= 1e-9
    assert len(losses) == 10 and max(losses) > 1.01 * min(losses)  # it went somewhere


@pytest.mark.parametrize(
    ('backbone', 'phase', 'options'),
    [
        ('rn50', 'a', {'model.backbone.norm_eval': False}),
        ('vit-b16', 'a', {'param_scheduler.0.lag': 0}),
        ('vit-b16', 'a', {'optim_wrapper.optimizer.weight_decay': 0.0}),
        ('vit-b16', 'b', {'param_scheduler.0.lag': 0}),
        ('vit-b16', 'b', {'model.neck.relu': True}),
    ],
)
def test_a_setting_that_is_switched_off_is_noticed(backbone, phase, options):
    loss_error, weight_error, _ = compare(backbone, phase, options)
    assert loss_error > 1e-6 and weight_error > 1e-6


BENCHMARKS = [
    (b, d) for b in ('rn50', 'rn101', 'rn50x16', 'vit-b16') for d in ('imagenet-lt', 'places-lt', 'cifar100-lt')
]


@pytest.mark.parametrize(('backbone', 'data'), BENCHMARKS)
def test_settings_of_every_config(backbone, data):
    first, second = (Config.fromfile(CONFIGS / f'ballad_{backbone}_{data}{s}.py') for s in ('_phase-a', ''))
    for cfg, lr, epochs in ((first, 1e-5, 50), (second, 0.2, 10)):
        assert cfg.optim_wrapper == dict(optimizer=dict(type='SGD', lr=lr, momentum=0.9, weight_decay=5e-4))
        assert cfg.param_scheduler == [dict(type='mmlt.EpochCosineLR', lag=-1, eta_min=0)]
        assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (epochs, 1)
        assert cfg.train_dataloader.drop_last  # N // 512 steps, see below
        assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (64, 512)
        assert cfg.model.backbone.get('norm_eval', False) == backbone.startswith('rn')
        best = cfg.default_hooks.checkpoint.get('save_best')
        assert best == (None if data == 'cifar100-lt' else 'shot/all')  # its validation split is the test split
    assert second.default_hooks.feature_cache.views == 'epochs'
    sampler = second.train_dataloader.sampler
    assert (sampler.type, sampler.samples_per_class, sampler.num_samples) == ('mmlt.ClassAwareSampler', 4, 'images')
    assert (second.model.neck.relu, second.model.neck.bias) == (False, False)


@pytest.mark.parametrize(('images', 'processes'), [(115846, 8), (62500, 8), (10847, 8), (115846, 1)])
def test_an_epoch_of_phase_b_has_as_many_steps_as_published(images, processes):
    """N // 512 steps of 512 draws, though the stream of the sampler would go on."""
    per_process = math.ceil(images / processes)  # draws of 'images', see ClassAwareSampler
    assert per_process // (512 // processes) == images // 512
