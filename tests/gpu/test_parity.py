"""Every component computes on a GPU what it computes on the CPU; one step of every method in half precision.

On a machine without a GPU the same tests run on the CPU, against itself.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt.evaluation import ShotAccuracy
from mmlt.models.anchors import Anchors, sentence_scores
from mmlt.models.losses import contrastive, contrastive_functional, contrastive_loss, distillation_loss
from mmlt.utils.class_info import ClassInfo

GPU = pytest.param('cuda', marks=pytest.mark.gpu)
DEVICES = pytest.mark.parametrize('device', ['cpu', GPU])
CLASSES = ('a cat', 'an apple pie', 'it')
COUNTS = [50, 9, 2]
VIT = dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit')
RESNET = dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn')
TEXT = dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit')


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def told(module):
    for part in module.modules():
        if hasattr(part, 'set_class_info') and not hasattr(part, 'corpus'):
            part.set_class_info(ClassInfo(CLASSES, COUNTS))
    return module


def loss_of(config):
    return lambda: told(MODELS.build(config))


def anchored(head):
    module = MODELS.build(dict(type=head, num_classes=3, in_channels=8))
    module.take(Anchors.stand_in(3, 4, 8))
    return module


def similarities(form):
    """Losses over pairs, in tiles."""

    class Module(torch.nn.Module):
        def forward(self, image, text):
            image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
            labels = torch.arange(len(image), device=image.device) % 4
            if form == 'contrastive':
                return contrastive_loss(image, text, labels, 10.0, 0.1)
            return distillation_loss(image, text, image.detach().flip(0), text.detach(), 10.0, 20.0, form)

    return Module


def single(loss):
    return dict(type=f'mmlt.{loss}')


LOGITS, LABELS = random(6, 3), torch.tensor([0, 1, 2, 0, -1, 1])
SCORES = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, -1], [1, 1, 1], [0, 0, 0], [0, 1, 0]])
IMAGES = random(4, 3, 32, 32, seed=1)
FEATURES = (random(5, 8, seed=2),)

# Name: a module, and what it is called with.
COMPONENTS = {
    **{
        loss: (loss_of(single(loss)), (LOGITS, LABELS))
        for loss in ('LogitAdjustedLoss', 'BalancedSoftmaxLoss', 'LDAMLoss', 'ClassBalancedLoss', 'SoftmaxFocalLoss')
    },
    'DistributionBalancedLoss': (
        loss_of(dict(single('DistributionBalancedLoss'), num_images=60)),
        (LOGITS, SCORES),
    ),
    'ClassBalancedBCELoss': (loss_of(single('ClassBalancedBCELoss')), (LOGITS, SCORES)),
    **{form: (similarities(form), (random(40, 8), random(40, 8, seed=3))) for form in ('contrastive', 'pair', 'full')},
    'image tower, ViT': (lambda: MODELS.build(VIT), (IMAGES,)),
    'image tower, ResNet': (lambda: MODELS.build(RESNET), (IMAGES,)),
    'adapters': (lambda: MODELS.build(dict(VIT, adapter=dict(type='mmlt.AdaptFormer', num_classes=3))), (IMAGES,)),
    'linear adapter': (lambda: MODELS.build(dict(type='mmlt.BalancedLinearAdapter', in_channels=8)), (FEATURES,)),
    'LGR head': (lambda: anchored('mmlt.LGRHead'), (FEATURES,)),
    'nearest sentences': (lambda: anchored('mmlt.AnchorKNNHead'), (FEATURES,)),
    'cosine head': (
        lambda: MODELS.build(dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=8, init='random')),
        (FEATURES,),
    ),
    'text head': (lambda: told(MODELS.build(dict(type='mmlt.TextClsHead', text=TEXT))), ((random(5, 64),),)),
}


def moved(value, device, dtype):
    if isinstance(value, tuple):
        return tuple(moved(v, device, dtype) for v in value)
    return value.to(device, dtype if value.is_floating_point() else None)


def computed(module, inputs, device, dtype):
    """Output and gradients of a copy, on the CPU in float64."""
    torch.manual_seed(0)
    module = copy.deepcopy(module).to(device, dtype).train()
    out = module(*moved(inputs, device, dtype))
    out = out[-1] if isinstance(out, tuple) else out
    gradients = {}
    if out.requires_grad:
        out.square().sum().backward()
        gradients = {n: p.grad.double().cpu() for n, p in module.named_parameters() if p.grad is not None}
    return out.detach().double().cpu(), gradients


@DEVICES
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=['float64', 'float32'])
@pytest.mark.parametrize('name', COMPONENTS)
def test_components(name, dtype, device, monkeypatch):
    for name_of_size in ('MAX_LOGITS', '_CPU_TILE', '_CPU_WIDTH', '_GPU_WIDTH'):  # several tiles, of which few are kept
        monkeypatch.setattr(contrastive_functional, name_of_size, 10)
    monkeypatch.setattr(contrastive, '_FEW_PAIRS', 0)
    torch.manual_seed(0)
    build, inputs = COMPONENTS[name]
    module = build()
    expected, gradients = computed(module, inputs, 'cpu', torch.float64)
    found, found_gradients = computed(module, inputs, device, dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-3
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert found_gradients.keys() == gradients.keys()
    largest = max((g.abs().max() for g in gradients.values()), default=0)
    for key, gradient in gradients.items():
        assert (found_gradients[key] - gradient).abs().max() <= tolerance * max(gradient.abs().max(), 1e-2 * largest), (
            key
        )


@DEVICES
def test_anchor_scores(device):
    text, image = (F.normalize(random(n, 8, seed=n), dim=-1) for n in (50, 70))
    labels = torch.arange(50) % 5, torch.arange(70) % 5
    expected = sentence_scores(text, labels[0], image, labels[1], 20.0)
    found = sentence_scores(*(x.to(device) for x in (text, labels[0], image, labels[1])), 20.0, tile=(16, 32))
    assert (found.cpu() - expected).abs().max() <= 1e-10


@DEVICES
def test_metrics_take_what_is_on_the_device(device):
    metric = ShotAccuracy(class_counts=COUNTS)
    metric.dataset_meta = dict(classes=CLASSES)
    scores = torch.eye(3, device=device)[[0, 1, 2, 0]]
    labels = torch.tensor([0, 1, 1, 0], device=device)
    samples = [
        DataSample().set_gt_label(y).set_pred_score(s).set_pred_label(s.argmax()).to_dict()
        for s, y in zip(scores, labels)
    ]
    metric.process(None, samples)
    found = metric.evaluate(4)
    assert found['shot/sample_accuracy'] == 75.0


# A step of every method


def classifier(head, backbone=VIT, **parts):
    own = dict(data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'), **parts)
    return dict(type='ImageClassifier', backbone=backbone, head=head, **own)


def cvlp():
    model = MODELS.build(
        dict(type='mmlt.CVLP', backbone=VIT, text=TEXT, teacher=dict(model='mmlt-tiny-vit', pretrained=None))
    )
    model.set_class_info(
        ClassInfo(CLASSES, texts=[['one sentence', 'another one'], ['a longer sentence, of b'], ['c is c']])
    )
    return model


def lgr():
    model = MODELS.build(classifier(dict(type='mmlt.LGRHead', num_classes=3, in_channels=64)))
    model.head.take(Anchors.stand_in(3, 4, 64))
    return model


def more():
    model = MODELS.build(
        dict(type='mmlt.MORE', classifier=classifier(dict(type='LinearClsHead', num_classes=3, in_channels=64)))
    )
    model.set_class_info(ClassInfo(CLASSES, COUNTS))
    model.set_progress(1, 2)
    return model


TEXT_HEAD = dict(type='mmlt.TextClsHead', text=TEXT, classes=CLASSES)
NECK = dict(type='mmlt.BalancedLinearAdapter', in_channels=64, residual_ratio=0.2)
COSINE = dict(
    type='mmlt.CosineClsHead', num_classes=3, in_channels=64, init='random', loss=dict(type='mmlt.LogitAdjustedLoss')
)
METHODS = {
    'CVLP': cvlp,
    'LGR': lgr,
    'MORE': more,
    'phase A': lambda: MODELS.build(classifier(TEXT_HEAD)),
    'phase A, ResNet': lambda: MODELS.build(classifier(dict(TEXT_HEAD, text=dict(TEXT, model='mmlt-tiny-rn')), RESNET)),
    'phase B': lambda: MODELS.build(
        classifier(dict(TEXT_HEAD, text=dict(TEXT, frozen=True)), dict(VIT, frozen=True), neck=NECK)
    ),
    'LIFT': lambda: told(
        MODELS.build(classifier(COSINE, dict(VIT, adapter=dict(type='mmlt.AdaptFormer', num_classes=3))))
    ),
    'CE': lambda: MODELS.build(classifier(dict(type='LinearClsHead', num_classes=3, in_channels=64))),
}


@pytest.mark.parametrize(
    ('device', 'precision'),
    [
        ('cpu', 'bf16'),
        pytest.param('cuda', 'bf16', marks=pytest.mark.gpu),
        pytest.param('cuda', 'fp16', marks=pytest.mark.gpu),
    ],
)
@pytest.mark.parametrize('method', METHODS)
def test_a_step_of_every_method(method, device, precision):
    torch.manual_seed(0)
    model = METHODS[method]().to(device).train()
    wrapper = (
        dict(type='mmlt.BFloat16OptimWrapper') if precision == 'bf16' else dict(type='AmpOptimWrapper', dtype='float16')
    )
    wrapper = build_optim_wrapper(
        model, dict(wrapper, optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=1))
    )
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    losses = []
    for _ in range(3):
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 255, (6, 3, 32, 32), dtype=torch.uint8, generator=generator)
        samples = [DataSample().set_gt_label(torch.tensor([i % 3])) for i in range(6)]
        losses.append(model.train_step(dict(inputs=images, data_samples=samples), wrapper)['loss'].item())
    assert torch.isfinite(torch.tensor(losses)).all() and losses[1] != losses[0]
    changed = [n for n, p in model.named_parameters() if n in before and not torch.equal(p.detach(), before[n])]
    assert len(changed) >= 0.5 * len(before)


@pytest.mark.gpu
def test_two_stages_on_the_gpu(two_stages, train_tool):
    found = train_tool.main(['b.py', '--cfg-options', 'precision=auto'])
    assert 0 <= found['shot/sample_accuracy'] <= 100
