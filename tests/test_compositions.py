"""Every pair of parts: what it computes after one training step, or the one sentence that refuses it.

``docs/compositions.md`` holds the table for readers; ``test_compositions_page.py`` compares it with the one here.
"""

import copy
import math
import re
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.base_loop import BaseLoop
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset

from mmlt import InputError
from mmlt.checkpoints.merging import average, check_mergeable, interpolate
from mmlt.checkpoints.split_state import merge_state_dict
from mmlt.engine.classes import tell_classes
from mmlt.models.anchors import Anchors

VIT, DINO = 'mmlt-tiny-vit', 'vit_small_patch14_dinov2'
CLASSES = ('apple', 'pear', 'plum', 'fox', 'owl')
COUNTS = (60, 25, 9, 4, 2)
LABELS = (0, 2, 3, 4, 1, 0, 3)
NEIGHBOURS = {'apple': ['pear', 'plum'], 'pear': ['apple'], 'fox': ['owl']}
WEIGHT = 0.5  # of either of CUE's terms

LOSSES = {
    'logit adjustment': dict(type='mmlt.LogitAdjustedLoss'),
    'balanced softmax': dict(type='mmlt.BalancedSoftmaxLoss'),
    'LDAM': dict(type='mmlt.LDAMLoss'),
    'class-balanced': dict(type='mmlt.ClassBalancedLoss', beta=0.99),
    'focal': dict(type='mmlt.SoftmaxFocalLoss'),
}
PARTS = ('LIFT', 'LGR', 'CUE', *LOSSES, 'MORE', 'merging', 'DINOv2')
REFUSED = {
    ('LIFT', 'LGR'): r'model.head is a list \(CosineClsHead, LGRHead\), .* choose one of them',
    ('LGR', 'CUE'): "binary terms, which read a logit's own value.*use model.head.loss=.*LogitAdjustedLoss",
    ('LGR', 'LDAM'): 'one margin for cosines.*set model.head.loss=',
    ('LGR', 'DINOv2'): "'vit_small_patch14_dinov2' was never trained with texts: set model.backbone.type=",
    **dict.fromkeys(combinations(LOSSES, 2), r'^model.head.loss is a list \(\w+, \w+\), .* twice: choose one'),
}
ALLOWED = [pair for pair in combinations(PARTS, 2) if pair not in REFUSED]
MORE_THAN_TWO = [('adapters', 'LGR'), ('adapters', 'LGR', 'balanced softmax', 'MORE')] + [
    parts
    for number in range(3, len(PARTS))
    for parts in combinations([part for part in PARTS if part != 'merging'], number)
    if not REFUSED.keys() & set(combinations(parts, 2))
]


@pytest.fixture(scope='module')
def anchors(tmp_path_factory):
    torch.manual_seed(5)
    path = str(tmp_path_factory.mktemp('anchors') / 'anchors.safetensors')
    Anchors.stand_in(len(CLASSES), 3, 64).save(path)
    return path


def backbone(parts, clip_file):
    adapted = {'LIFT', 'adapters'} & set(parts)
    adapter = dict(adapter=dict(type='mmlt.AdaptFormer', bottleneck=4)) if adapted else {}
    if 'DINOv2' in parts:
        options = dict(depth=2, embed_dim=64, num_heads=2, init_values=0.1)
        return dict(type='mmlt.TimmViT', model=DINO, image_size=28, options=options, **adapter)
    projection = 'LIFT' not in parts
    return dict(type='mmlt.OpenCLIPVision', model=VIT, pretrained=clip_file, projection=projection, **adapter)


def heads(parts, clip_file, anchors):
    size = dict(num_classes=len(CLASSES), in_channels=64)
    text = dict(type='mmlt.OpenCLIPText', model=VIT, pretrained=clip_file)
    if 'LIFT' in parts:
        start = dict(init='class_means') if 'DINOv2' in parts else dict(text=text)
        yield dict(type='mmlt.CosineClsHead', **size, **start)
    if 'LGR' in parts:
        yield dict(type='mmlt.LGRHead', anchors=anchors, logit_scale=10.0, **size)
    if not {'LIFT', 'LGR'} & set(parts):
        yield dict(type='LinearClsHead', **size)


def loss_of(parts):
    losses = [copy.deepcopy(LOSSES[part]) for part in parts if part in LOSSES]
    if 'LIFT' in parts and 'LDAM' in parts:
        losses[0].update(logit_scale=1.0, max_margin=12.5)  # the head scales its cosines itself, by 25
    base = losses if len(losses) > 1 else losses[0] if losses else dict(type='CrossEntropyLoss')
    if 'CUE' in parts:
        return dict(type='mmlt.CUELoss', base=base, neighbours=NEIGHBOURS, top_k=2)
    return base


@pytest.fixture
def config(clip_file, anchors):
    """The config of a model with some parts; without any it is a linear classifier on a tower of open_clip."""

    def make(*parts):
        found = [dict(head, loss=loss_of(parts)) for head in heads(parts, clip_file, anchors)]
        head = found if len(found) > 1 else found[0]
        model = dict(type='ImageClassifier', backbone=backbone(parts, clip_file), head=head)
        model['data_preprocessor'] = dict(type='mmlt.CLIPDataPreprocessor')
        if 'CUE' in parts:
            model.update(type='mmlt.CUEClassifier', teacher=dict(model=VIT, pretrained=clip_file))
        return dict(type='mmlt.MORE', classifier=model) if 'MORE' in parts else model

    return make


class Labels(Dataset):
    """All that is asked of a dataset here."""

    metainfo = dict(classes=CLASSES)

    def __len__(self):
        return sum(COUNTS)

    def get_gt_labels(self):
        return [c for c, n in enumerate(COUNTS) for _ in range(n)]


class Loop(BaseLoop):
    def run(self):
        """Never called."""


def tell(model, load_from=None):
    tell_classes(SimpleNamespace(model=model, _train_loop=Loop(None, DataLoader(Labels())), _load_from=load_from))


def start(cfg, load_from=None):
    """The model of a config as a training has it before its first step."""
    model = MODELS.build(copy.deepcopy(cfg))
    tell(model, load_from)
    model.init_weights()
    head = model.head
    if getattr(head, 'waits_for_features', False):
        head.start_from_features(torch.randn(len(CLASSES), head.in_channels), torch.arange(len(CLASSES)))
    if cfg['type'] == 'mmlt.MORE':
        model.set_progress(3, 10)
    with torch.no_grad():  # adapters and low-rank parts begin at zero, where half of their gradients vanish
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model.train()


def batch(model, seed=1):
    size = 28 if type(model.backbone).__name__ == 'TimmViT' else 32
    images = torch.randint(0, 256, (len(LABELS), 3, size, size), generator=torch.Generator().manual_seed(seed))
    samples = [DataSample().set_gt_label(label) for label in LABELS]
    return model.data_preprocessor(dict(inputs=images.to(torch.uint8), data_samples=samples), True)


def step(model, seed=1):
    """One step; the total loss before it."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    total, _ = model.parse_losses(model(**batch(model, seed), mode='loss'))
    total.backward()
    optimizer.step()
    return total.item()


def logits(model):
    with torch.no_grad():
        return model.eval()(batch(model)['inputs'])


def content(cfg):
    """What a checkpoint of a config says of itself."""
    return dict(meta=dict(cfg=Config(dict(model=cfg)).pretty_text, dataset_meta=dict(classes=CLASSES)), state_dict={})


# What should come out, in double precision and loops


def rows_of(loss, z, y):
    """Loss of an image with logits z and label y, by the part's formula."""
    total, count = sum(COUNTS), len(COUNTS)
    weight = 1.0
    if loss in ('logit adjustment', 'balanced softmax'):
        z = [v + math.log(n / total) for v, n in zip(z, COUNTS)]
    if loss.startswith('LDAM'):
        margin, scale = (12.5, 1.0) if loss.endswith('scaled') else (0.5, 30.0)
        z = [scale * (v - (c == y) * margin * (min(COUNTS) / n) ** 0.25) for c, (v, n) in enumerate(zip(z, COUNTS))]
    if loss == 'class-balanced':
        weights = [(1 - 0.99) / (1 - 0.99**n) for n in COUNTS]
        weight = count * weights[y] / sum(weights)
    top = max(z)
    log_p = z[y] - top - math.log(sum(math.exp(v - top) for v in z))
    return -weight * log_p * ((1 - math.exp(log_p)) ** 2 if loss == 'focal' else 1)


def cue_row(z, y, scores):
    """Both binary terms of an image."""
    ranked = sorted((c for c in range(len(z)) if c != y), key=lambda c: -scores[c])[:2]
    near = [CLASSES.index(name) for name in NEIGHBOURS.get(CLASSES[y], ())]
    total = 0.0
    for extra in (ranked, near):
        for c, (v, n) in enumerate(zip(z, COUNTS)):
            p = 1 / (1 + math.exp(-(v + math.log(n / sum(COUNTS)))))
            total -= WEIGHT * math.log(p if c == y or c in extra else 1 - p) / len(z)
    return total


@torch.no_grad()
def plain_logits(cfg, state, images):
    """Of the classifier without MORE: (those of a loss, those of a prediction)."""
    model = MODELS.build(copy.deepcopy(cfg)).double()
    model.load_state_dict({k: v.double() if v.is_floating_point() else v for k, v in state.items()})
    feats = model.train().extract_feat(images.double())
    out = model.head(feats)
    return list(model.head.logits(feats)) if type(model.head).__name__ == 'LGRHead' else [out], out


def naive_total(model, cfg, parts):
    """The loss of a batch that the parts promise."""
    images, state = batch(model)['inputs'], model.state_dict()
    plain = cfg['classifier'] if 'MORE' in parts else cfg
    branches, full = plain_logits(plain, merge_state_dict(state), images)
    loss = next((part for part in parts if part in LOSSES), '')
    if loss == 'LDAM' and 'LIFT' in parts:
        loss += ' scaled'
    per_image = [sum(rows_of(loss, z[i].tolist(), y) for z in branches) for i, y in enumerate(LABELS)]
    if 'CUE' in parts:
        scores = model.teacher(images).tolist()
        per_image = [v + cue_row(full[i].tolist(), LABELS[i], scores[i]) for i, v in enumerate(per_image)]
    if 'MORE' in parts:
        general = {re.sub(r'parametrizations\.(\w+)\.original', r'\1', k): v for k, v in state.items()}
        general = {k: v for k, v in general.items() if '.parametrizations.' not in k}
        squared = (full - plain_logits(plain, general, images)[1]).square().sum(1).tolist()
        assert min(squared) > 0
        alpha = 2.0 * len(CLASSES) * math.sin(math.pi * 3 / 10)
        per_image = [v + alpha * COUNTS[y] / sum(COUNTS) * d for v, y, d in zip(per_image, LABELS, squared)]
    return sum(per_image) / len(per_image)


def should_train(name, parts):
    """Whether a parameter, by its name without MORE, is one that is to be trained."""
    if {'LIFT', 'adapters'} & set(parts) and name.startswith('backbone.'):
        return name.startswith('backbone.adapters.')
    return name not in ('backbone.visual.mask_token', 'head.log_scale')


# The matrix


@pytest.mark.parametrize('parts', [p for p in ALLOWED if 'merging' not in p] + MORE_THAN_TWO, ids=' + '.join)
def test_allowed_pair_trains_a_step(config, parts):
    cfg = config(*parts)
    model = start(cfg)
    expected = naive_total(model, cfg, parts)
    total = step(model)
    assert math.isfinite(total) and total == pytest.approx(expected, rel=2e-5)
    for name, parameter in model.named_parameters():
        plain = re.sub(r'parametrizations\.(\w+)\.(original|0\.[AB])', r'\1', name)
        moved = parameter.grad is not None and bool(parameter.grad.any()) and bool(parameter.grad.isfinite().all())
        assert moved == parameter.requires_grad == should_train(plain, parts), name
    after = logits(model)
    with torch.no_grad():
        predictions = model(batch(model)['inputs'], mode='predict')
    scores = torch.stack([sample.pred_score for sample in predictions])
    assert torch.allclose(scores, after.softmax(1)) and after.shape == (len(LABELS), len(CLASSES))
    fresh = MODELS.build(copy.deepcopy(cfg))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(logits(fresh), after)


@pytest.mark.parametrize('parts', [p for p in ALLOWED if 'merging' in p], ids=' + '.join)
def test_two_steps_of_a_part_merge(config, parts):
    cfg = config(*parts)
    one = start(cfg)
    other = copy.deepcopy(one)
    step(one, 1), step(other, 2)
    states = {'one': one.state_dict(), 'other': other.state_dict()}
    plain = {name: merge_state_dict(state) for name, state in states.items()}
    mean = average(states).state
    for name, value in mean.items():
        both = [state[name].double() for state in plain.values()]
        assert torch.allclose(value.double(), (both[0] + both[1]) / 2, rtol=1e-6, atol=1e-8), name
    assert any(not torch.equal(plain['one'][name], value) for name, value in mean.items())
    assert check_mergeable({name: content(cfg) for name in states}) == []
    fresh = MODELS.build(copy.deepcopy(cfg))
    for alpha, model, name in ((0, one, 'one'), (1, other, 'other')):
        end = interpolate(states['one'], states['other'], alpha).state
        assert all(torch.equal(value, plain[name][key]) for key, value in end.items())
        fresh.load_state_dict(end)
        assert torch.allclose(logits(fresh), logits(model), atol=1e-5)
    fresh.load_state_dict(mean)
    if 'LIFT' in parts:  # the frozen tower
        assert all(torch.equal(value, plain['one'][key]) for key, value in mean.items() if key.startswith('backbone.v'))
    if 'MORE' in parts:
        for name in fresh.split.names:
            where, _, weight = name.rpartition('.')
            low_rank = fresh.get_submodule(where).parametrizations[weight]
            assert torch.equal(low_rank.original, mean[name]) and not low_rank[0].B.any()
    assert logits(fresh).isfinite().all() and not torch.equal(logits(fresh), logits(one))


@pytest.mark.parametrize('parts', REFUSED, ids=' + '.join)
def test_refused_pair_is_told_why(config, parts):
    with pytest.raises(InputError, match=REFUSED[parts]) as refusal:
        start(config(*parts))
    sentence = str(refusal.value)
    assert '\n' not in sentence and sentence.endswith('.') and ': ' in sentence


# Settings of allowed parts that do not fit


def changed(cfg, **settings):
    """A config with other settings, by dotted names with __ in place of the dot."""
    cfg = Config(dict(model=cfg))
    cfg.merge_from_dict({f'model.{name.replace("__", ".")}': value for name, value in settings.items()})
    return cfg.model.to_dict()


@pytest.mark.parametrize(
    'parts, settings, sentence',
    [
        (('LIFT',), dict(head__loss=LOSSES['LDAM']), 'by 25, and LDAMLoss by 30 once more: .*to 0.5 times 25'),
        (('LIFT', 'CUE'), dict(head__loss__base=LOSSES['LDAM']), 'by 25, and LDAMLoss by 30 once more'),
        (('LIFT',), dict(backbone__projection=True), r"projected=False\), but model.backbone projects"),
        (('LIFT',), dict(head__projected=True), 'CosineClsHead compares .*projection=False gives features from'),
        (('LGR',), dict(backbone__projection=False), 'LGRHead compares .*: set model.backbone.projection=True'),
        (('LGR', 'CUE'), dict(teacher=None, head__loss__zero_shot_weight=0), 'CUELoss has binary terms, which read a'),
        (('LIFT', 'DINOv2'), dict(head__init='text', head__text=dict(type='T')), "was never .*init='class_means'"),
        (('CUE',), dict(head__loss__base=[*LOSSES.values()][:2]), r'^model.head.loss.base is a list \(LogitAdj'),
        (('focal',), dict(head__type='MultiLabelLinearClsHead'), 'SoftmaxFocalLoss is of one label an image'),
        (('CUE',), dict(head__type='MultiLabelLinearClsHead'), 'CUELoss is of one label an image'),
    ],
)  # fmt: skip
def test_settings_of_which_the_shapes_fit_alone(config, parts, settings, sentence):
    cfg = changed(config(*parts), **settings)
    for model in (cfg, dict(type='mmlt.MORE', classifier=cfg)):
        with pytest.raises(InputError, match=sentence):
            start(model)


@pytest.mark.parametrize('scale, said', [(20.0, '20'), ('pretrained', 'the scale of its weights')])
def test_a_text_head_is_looked_at_too(clip_file, scale, said):
    text = dict(type='mmlt.OpenCLIPText', model=VIT, pretrained=clip_file)
    head = dict(type='mmlt.TextClsHead', text=text, logit_scale=scale, loss=LOSSES['LDAM'])
    tower = dict(type='mmlt.OpenCLIPVision', model=VIT, pretrained=clip_file)
    cfg = dict(type='ImageClassifier', backbone=tower, head=head)
    with pytest.raises(InputError, match=f'TextClsHead multiplies its cosines by {said}, and LDAMLoss by 30'):
        start(cfg)
    tell(MODELS.build(changed(cfg, head__loss=dict(logit_scale=1.0))))
    with pytest.raises(InputError, match='TextClsHead compares .*: set model.backbone.projection=True'):
        start(changed(cfg, backbone__projection=False))


def test_a_tower_that_learned_the_sentences_may_be_timms(config):
    """CVLP's checkpoint is compared with the anchors when it is loaded."""
    parts = ('LGR', 'DINOv2')
    cfg = config(*parts)
    model = start(cfg, load_from='cvlp/epoch_20.pth')
    expected = naive_total(model, cfg, parts)
    assert step(model) == pytest.approx(expected, rel=2e-5)


def test_cosines_for_ldam_are_scaled_once(config):
    """The head's scale and the loss's are the same factor, in one place or the other."""
    cfg = config('LIFT', 'LDAM')
    by_head = start(cfg)
    by_loss = MODELS.build(changed(cfg, head__logit_scale=1.0, head__loss=dict(logit_scale=25.0, max_margin=0.5)))
    tell(by_loss)
    by_loss.load_state_dict(by_head.state_dict())
    assert step(by_loss.train()) == pytest.approx(step(by_head), rel=1e-5)


def test_cue_merges_with_what_was_trained_without_it(config):
    other = config('LIFT', 'CUE')
    other['teacher']['templates'] = 'the fruit {}'
    named = dict(
        cue=config('LIFT', 'CUE'), other=other, plain=config('LIFT', 'LDAM'), more=config('LIFT', 'CUE', 'MORE')
    )
    assert check_mergeable({name: content(cfg) for name, cfg in named.items()}) == []


def test_models_of_other_sentences_do_not_merge(config):
    cfg = config('LGR')
    one, other = start(cfg), start(cfg)
    other.head.take(Anchors.stand_in(len(CLASSES), 3, 64))
    with pytest.raises(InputError, match="'head.anchor_features' of 'other' is not that of 'one'"):
        average({'one': one.state_dict(), 'other': other.state_dict()})


@pytest.mark.parametrize('loss', ['DistributionBalancedLoss', 'ClassBalancedBCELoss'])
@pytest.mark.parametrize('part', ['LGR', 'MORE'])
def test_losses_of_several_labels_need_such_a_head(config, loss, part):
    where = 'classifier__head__loss' if part == 'MORE' else 'head__loss'
    model = start(changed(config(part), **{where: dict(type=f'mmlt.{loss}')}))
    with pytest.raises(InputError, match=rf'{loss} is of several labels an image.*\(7,\) .*: use a multi-label head'):
        step(model)
