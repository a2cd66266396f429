"""Configs of MORE: clipped gradients, the low-rate optimizer, one scale for losses of several labels, warm-ups."""

import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt.models import MORE
from mmlt.utils.class_info import ClassInfo

REPO = Path(__file__).parents[2]
CONFIGS = sorted(REPO.glob('configs/*/*.py'))
MORE_CONFIGS = sorted(REPO.glob('configs/more/*.py'))
LOW_RATE = [p for p in MORE_CONFIGS if p.stem.endswith('_low-rate')]
SEVERAL_LABELS = {'voc-lt': 20, 'coco-lt': 80, 'miml': 5, 'nus-wide-scene': 33, 'multi-label-digits': 10}
MULTI_LABEL = [p for p in CONFIGS if p.stem.split('_')[-1 - p.stem.endswith('_low-rate')] in SEVERAL_LABELS]
# Training images, see docs/datasets.md; of MIML all, train and test.
IMAGES = {
    'imagenet-lt': 115_846,
    'places-lt': 62_500,
    'inat18': 437_513,
    'cifar100-lt': 10_847,
    'cifar10-lt': 12_406,
    'mnist-lt': 988,
    'twemoji-lt': 2_438,
    'voc-lt': 1_142,
    'coco-lt': 1_909,
    'miml': 2_000,
    'multi-label-digits': 1_000,
    'printed-characters': 24_000,
    'named-icons': 24_000,
}


def config_id(path):
    return path.stem


def dataset_of(path):
    return next(part for part in path.stem.split('_')[1:] if part in {*IMAGES, *SEVERAL_LABELS})


# Clipping and the low rate


@pytest.mark.parametrize('path', MORE_CONFIGS, ids=config_id)
def test_gradients_are_clipped(path):
    assert Config.fromfile(path).optim_wrapper.clip_grad == dict(max_norm=5)


@pytest.mark.parametrize('path', LOW_RATE, ids=config_id)
def test_low_rate_is_its_config_but_for_the_optimizer(path):
    low, other = (Config.fromfile(p) for p in (path, path.with_name(path.name.replace('_low-rate', ''))))
    sgd = dict(type='SGD', lr=3e-4, momentum=0.9, weight_decay=2e-4)
    assert low.optim_wrapper == dict(optimizer=sgd, clip_grad=dict(max_norm=5))
    for cfg in (low, other):
        cfg.pop('optim_wrapper'), cfg.pop('low_rate', None)
    assert low._cfg_dict == other._cfg_dict


def test_low_rate_has_its_controls():
    names = {p.name for p in LOW_RATE}
    assert len(names) == 18
    plain = {n for n in names if 'control' not in n}
    assert names - plain == {n.replace('more', 'more-control', 1) for n in plain}
    for name in plain:
        more, control = (
            Config.fromfile(REPO / 'configs/more' / n) for n in (name, name.replace('more', 'more-control', 1))
        )
        assert control.model == {**more.model, 'peak': 0.0}
        more.pop('model'), control.pop('model')
        assert more._cfg_dict == control._cfg_dict


@pytest.mark.parametrize('readme', ['README.md', 'configs/more/README.md'])
def test_recipe_of_the_readmes_clips(readme):
    blocks = [b for b in re.findall(r'```python\n(.*?)```', (REPO / readme).read_text(), re.S) if 'mmlt.MORE' in b]
    assert blocks and all('optim_wrapper = dict(clip_grad=dict(max_norm=5))' in b for b in blocks)


# Several labels: base loss and penalty are means over classes


def by_hand(loss, targets, counts):
    """Loss of one image with logits of zero, in plain float64 Python: a mean over classes."""
    total = 0.0
    repeats = sum(1 / n for y, n in zip(targets, counts) if y)
    for y, n in zip(targets, counts):
        if loss['type'] == 'CrossEntropyLoss':
            total += math.log(2)
        elif loss['type'] == 'AsymmetricLoss':
            assert (loss['gamma_pos'], loss['gamma_neg'], loss['clip']) == (0, 4, 0.05)
            total += math.log(2) if y else -math.log(0.55) * 0.45**4
        else:
            ratio = 1 / n / repeats
            weight = 0.1 + 1 / (1 + math.exp(-10 * (ratio - loss['mu'])))
            z = loss['kappa'] * math.log(n / (100 - n))  # of 100 images
            sign, scale = (-1, 1) if y else (1, loss['neg_scale'])
            focal = (1 / (1 + math.exp(-sign * scale * z))) ** loss['gamma']
            # The published code weighs its mean by 2, for the focal factor, which is 1/4 at logits of zero.
            total += 2 * weight * focal * math.log1p(math.exp(sign * scale * z)) / scale
    return total / len(targets)


@pytest.mark.parametrize('path', MULTI_LABEL, ids=config_id)
def test_loss_of_several_labels_is_a_mean_over_classes(path):
    cfg = Config.fromfile(path)
    head = (cfg.model.get('classifier') or cfg.model).head
    classes = SEVERAL_LABELS[dataset_of(path)]
    assert head.num_classes == classes
    counts = [60 - c % 50 for c in range(classes)]
    labels = [[0], [1, 3], [0, 2, classes - 1]]
    built = MODELS.build(head).double()
    if hasattr(built.loss_module, 'set_class_info'):
        built.loss_module.set_class_info(ClassInfo((), counts, num_images=100))
    torch.nn.init.zeros_(built.fc.weight), torch.nn.init.zeros_(built.fc.bias)
    samples = [DataSample().set_gt_label(y) for y in labels]
    loss = built.loss((torch.randn(3, head.in_channels, dtype=torch.float64),), samples)['loss']
    expected = [by_hand(head.loss, [c in y for c in range(classes)], counts) for y in labels]
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-6)  # the counts are float32


@pytest.mark.parametrize('path', [p for p in MULTI_LABEL if p in MORE_CONFIGS], ids=config_id)
def test_penalty_of_several_labels_is_as_large_a_mean_over_classes(path):
    """Logits that differ by 1 in every class cost 2 in mid-training, as much as log 2 of the base loss; 0 in controls.

    Per class and image this is what A / C = 2 is to a sum over classes, and to
    a single label on equally frequent classes.
    """
    cfg = Config.fromfile(path).model
    classes = SEVERAL_LABELS[dataset_of(path)]
    cfg.classifier.backbone = dict(type='mmlt.CIFARResNet', depth=8, base_channels=4)
    cfg.classifier.head.in_channels = 16
    model = MODELS.build(cfg)
    assert isinstance(model, MORE) and model.is_multi_label
    counts = [100 - c for c in range(classes)]
    model.set_class_info(ClassInfo(range(classes), counts))
    if hasattr(model.head.loss_module, 'set_class_info'):
        model.head.loss_module.set_class_info(ClassInfo((), counts, num_images=101))
    model.set_progress(1, 2)
    model._general_logits = lambda inputs: model.classifier(inputs, mode='tensor') + 1.0
    losses = model.eval().loss(torch.randn(2, 3, 8, 8), [DataSample().set_gt_label([0]) for _ in range(2)])
    if 'control' in path.stem:
        assert set(losses) == {'loss'} and model.alpha == 0
    else:
        assert losses['loss_more'].item() == pytest.approx(2.0, rel=1e-5)


# Warm-ups


def steps(loader, images):
    """Iterations of an epoch."""
    images = loader.sampler.get('num_samples') or images
    return images // loader.batch_size if loader.get('drop_last') else math.ceil(images / loader.batch_size)


# Wu et al.'s published schedule: 500 of 968 iterations; BCE and ASL beside have it to be compared.
PUBLISHED = 'rn50_voc-lt'


def test_no_warm_up_is_longer_than_a_quarter_of_the_training():
    seen, long, unknown = set(), [], []
    for path in CONFIGS:
        cfg = Config.fromfile(path)
        warm = [s for s in cfg.get('param_scheduler') or () if s.type in ('LinearLR', 'ConstantLR')]
        if not warm or PUBLISHED in path.stem:
            continue
        dataset = next((part for part in path.stem.split('_') if part in IMAGES), None)
        if dataset is None:
            unknown.append(path.stem)
            continue
        seen.add(dataset)
        epoch = steps(cfg.train_dataloader, IMAGES[dataset])
        total = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs * epoch
        ends = [s.end * (epoch if s.get('by_epoch', True) else 1) for s in warm]
        if max(ends) > total / 4:
            long.append((path.stem, ends, total))
    assert not long
    assert seen >= {'miml', 'coco-lt', 'cifar100-lt'}
    assert [name for name in unknown if 'nus-wide-scene' not in name] == []
