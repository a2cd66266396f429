"""MORE: loss, statistics, random numbers, and life as an ordinary classifier."""

import copy
import math

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
from mmpretrain.models.utils import Mixup
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.func import functional_call

from mmlt.checkpoints.split_state import merge_state_dict
from mmlt.engine.optim import BFloat16OptimWrapper
from mmlt.errors import InputError
from mmlt.models import MORE
from mmlt.models.more import class_discrepancy, group_sums, prior_weighted, sinusoidal_alpha
from mmlt.utils.class_info import ClassInfo

COUNTS = [60, 30, 9, 1]
CLASSES = ['apple', 'pear', 'plum', 'fig']
SINGLE = dict(type='LinearClsHead', num_classes=4, in_channels=32)
MULTI = dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=32)


def classifier(head=SINGLE, backbone=None, **kwargs):
    backbone = backbone or dict(type='mmlt.CIFARResNet', depth=8, base_channels=8)
    return dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head, **kwargs)


def build(cfg=None, progress=(3, 10), tails=0.1, seed=0, **kwargs):
    """A MORE model with low-rank parts that are not zero, in training, and its alpha set."""
    torch.manual_seed(seed)
    model = MODELS.build(dict(type='mmlt.MORE', classifier=copy.deepcopy(cfg or classifier()), **kwargs))
    model.init_weights()
    for name, parameter in model.named_parameters():
        if name.endswith('.0.B'):
            nn.init.normal_(parameter, std=tails) if tails else None
    if kwargs.get('peak') != 0:
        model.set_class_info(ClassInfo(CLASSES, COUNTS))
        model.set_progress(*progress)
    return model.train()


def batch(labels=(0, 1, 0, 3, 2, 0), size=8, seed=1):
    x = torch.randn(len(labels), 3, size, size, generator=torch.Generator().manual_seed(seed))
    return x, [DataSample().set_gt_label(y) for y in labels]


MANY = ((0,), (0, 1), (), (2, 3), (0, 3), (1,))


def multi_batch(scores=False):
    x, _ = batch()
    if scores:
        hot = [torch.tensor([float(c in y) for c in range(4)]) for y in MANY]
        return x, [DataSample().set_gt_score(h) for h in hot]
    return x, [DataSample().set_gt_label(list(y)) for y in MANY]


# The formulas


def test_alpha():
    assert [round(sinusoidal_alpha(t, 8, 20.0), 9) for t in range(9)] == [
        round(20 * math.sin(math.pi * t / 8), 9) for t in range(9)
    ]
    assert sinusoidal_alpha(0, 5, 3.0) == 0 and sinusoidal_alpha(4, 8, 20.0) == 20


def naive_terms(full, general, kind, multi):
    rows = []
    for z, g in zip(full.tolist(), general.tolist()):
        if kind == 'l2':
            rows.append([(a - b) ** 2 for a, b in zip(z, g)])
        elif multi:
            p, q = ([1 / (1 + math.exp(-v)) for v in row] for row in (z, g))
            rows.append([a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b)) for a, b in zip(p, q)])
        else:
            p, q = ([math.exp(v) / sum(math.exp(u) for u in row) for v in row] for row in (z, g))
            rows.append([a * math.log(a / b) for a, b in zip(p, q)])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize('multi', [False, True])
@pytest.mark.parametrize('kind', ['l2', 'kl'])
def test_discrepancy_against_loops(kind, multi):
    full, general = torch.randn(2, 5, 4, dtype=torch.float64) * 3
    found = class_discrepancy(full, general, kind, multi)
    assert (found - naive_terms(full, general, kind, multi)).abs().max() <= 1e-12
    assert not class_discrepancy(full, full, kind, multi).any()
    assert (found.sum(-1) > 0).all()


def test_kl_of_extreme_logits_is_finite():
    full = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    for multi in (False, True):
        found = class_discrepancy(full, -full.detach(), 'kl', multi).sum()
        found.backward()
        assert torch.isfinite(found) and torch.isfinite(full.grad).all()


def naive_penalty(differences, targets, prior, per_class):
    total = 0.0
    for d, t in zip(differences.tolist(), targets.tolist()):
        if per_class:
            total += sum(p * v for p, v in zip(prior.tolist(), d))
        elif sum(t):
            total += sum(y * p for y, p in zip(t, prior.tolist())) / max(sum(t), 1) * sum(d)
    return total / len(differences)


@pytest.mark.parametrize('per_class', [False, True])
@pytest.mark.parametrize(
    'targets',
    [
        [[1, 0, 0], [0, 1, 0], [1, 0, 0]],
        [[0.7, 0.3, 0], [0, 0.5, 0.5], [0, 0, 1]],
        [[1, 1, 0], [0, 0, 0], [1, 1, 1]],
    ],
    ids=['one-hot', 'mixup', 'several'],
)
def test_penalty_against_loops(targets, per_class):
    differences, prior = torch.rand(3, 3, dtype=torch.float64), torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    targets = torch.tensor(targets, dtype=torch.float64)
    found = prior_weighted(differences, targets, prior, per_class)
    assert abs(found - naive_penalty(differences, targets, prior, per_class)) <= 1e-14


def test_group_sums():
    differences = torch.tensor([[1.0, 2.0], [0.5, 0.0], [4.0, 4.0]])
    targets = torch.tensor([[1.0, 0.0], [0.25, 0.75], [1.0, 1.0]])
    groups = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    sums, counts = group_sums(differences, targets, groups)
    assert sums.tolist() == [3 + 0.25 * 0.5 + 8, 0, 0.75 * 0.5 + 8]
    assert counts.tolist() == [2.25, 0, 1.75]


# The loss, by two plain networks in double precision


def naive_loss(model, x, labels, kind='l2', per_class=False, detach=False):
    """Loss and gradients from two calls of the plain network, the sums of weights by hand."""
    multi = model.is_multi_label
    cfg = classifier(MULTI if multi else SINGLE)
    plain = MODELS.build(cfg).double().train()
    leaves = {n: p.detach().double().requires_grad_() for n, p in model.named_parameters()}
    full, general = {}, {}
    for name, leaf in leaves.items():
        if name.endswith('.original'):
            plain_name = name.replace('parametrizations.', '').removesuffix('.original')
            a, b = (leaves[name.removesuffix('original') + f'0.{k}'] for k in 'AB')
            full[plain_name] = leaf + (b @ a).reshape(leaf.shape)
            general[plain_name] = leaf
        elif not name.endswith(('.0.A', '.0.B')):
            full[name] = general[name] = leaf
    z, g = (functional_call(plain, weights, (x.double(),)) for weights in (full, general))
    if detach:
        g = g.detach()
    prior = [n / sum(COUNTS) for n in COUNTS]
    base, penalty = 0.0, 0.0
    for i, y in enumerate(labels):
        y = (y,) if isinstance(y, int) else y
        if multi:
            for c in range(4):
                base = base - torch.log(torch.sigmoid(z[i, c] if c in y else -z[i, c]))
        else:
            base = base - torch.log(torch.exp(z[i, y[0]]) / torch.exp(z[i]).sum())
        if kind == 'l2':
            d = (z[i] - g[i]) ** 2
        elif multi:
            p, q = torch.sigmoid(z[i]), torch.sigmoid(g[i])
            d = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        else:
            p, q = z[i].exp() / z[i].exp().sum(), g[i].exp() / g[i].exp().sum()
            d = p * (p / q).log()
        if per_class:
            penalty = penalty + sum(prior[c] * d[c] for c in range(4))
        elif y:
            penalty = penalty + sum(prior[c] for c in y) / len(y) * d.sum()
    n = len(labels)
    alpha = 2.0 * 4 * math.sin(math.pi * 3 / 10)
    base, penalty = base / n, alpha * penalty / n
    (base + penalty).backward()
    return base, penalty, {k: v.grad for k, v in leaves.items()}


@pytest.mark.parametrize('precision', ['double', 'single'])
@pytest.mark.parametrize(
    ('head', 'options', 'naive'),
    [
        (SINGLE, {}, {}),
        (SINGLE, dict(discrepancy='kl'), dict(kind='kl')),
        (SINGLE, dict(detach_general=True), dict(detach=True)),
        (MULTI, {}, dict(per_class=True)),
        (MULTI, dict(multi_label='sample'), {}),
        (MULTI, dict(discrepancy='kl'), dict(kind='kl', per_class=True)),
    ],
    ids=['single', 'single-kl', 'single-detached', 'multi', 'multi-sample', 'multi-kl'],
)
def test_loss_and_gradients_against_two_plain_networks_in_double(head, options, naive, precision):
    model = build(classifier(head), **options)
    if precision == 'double':
        model.double()
    multi = head is MULTI
    x, samples = multi_batch() if multi else batch()
    x = x.to(next(model.parameters()))
    losses = model(x, samples, mode='loss')
    sum(losses.values()).backward()
    labels = MANY if multi else (0, 1, 0, 3, 2, 0)
    base, penalty, gradients = naive_loss(model, x, labels, **naive)
    tolerance = 1e-7 if precision == 'double' else 2e-4  # the prior is kept in single precision
    assert penalty > 1e-3
    assert losses['loss'].item() == pytest.approx(base.item(), rel=tolerance)
    assert losses['loss_more'].item() == pytest.approx(penalty.item(), rel=tolerance)
    largest = max(g.norm() for g in gradients.values())
    for name, parameter in model.named_parameters():
        error = (parameter.grad.double() - gradients[name]).norm()
        assert error <= tolerance * (gradients[name].norm() + 0.01 * largest), name
    assert set(losses) == {'loss', 'loss_more'}


def test_multi_hot_scores_are_the_labels():
    model = build(classifier(MULTI))
    (x, labels), (_, scores) = multi_batch(), multi_batch(scores=True)
    first, second = (model(x, s, mode='loss')['loss_more'] for s in (labels, scores))
    assert torch.equal(first, second)


def test_mixup_takes_the_expected_prior():
    model = build(classifier(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8))), detach_general=True)
    x, samples = batch()
    mixed, scores = Mixup(0.8).mix(x, nn.functional.one_hot(torch.tensor([0, 1, 0, 3, 2, 0]), 4).float())
    soft = [DataSample().set_gt_score(s) for s in scores]
    found = model(mixed, soft, mode='loss')['loss_more']
    assert ((scores > 0).sum(-1) > 1).any()
    differences, targets = model.last
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    assert torch.equal(targets, scores)
    expected = model.alpha * ((scores * prior).sum(-1) * differences.sum(-1)).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


# Zero tails, statistics, random numbers


def test_start_is_a_plain_training():
    """With B = 0 and the seed of a plain run: its weights, its loss, no penalty."""
    torch.manual_seed(4)
    plain = MODELS.build(classifier()).train()
    plain.init_weights()
    model = build(tails=0, seed=4)
    x, samples = batch()
    expected = plain(x, samples, mode='loss')['loss']
    losses = model(x, samples, mode='loss')
    assert abs(losses['loss'] - expected) <= 1e-6
    assert losses['loss_more'] == 0
    state = merge_state_dict(model.state_dict())
    assert all(torch.equal(v, state[k]) for k, v in plain.state_dict().items())


def test_batchnorm_statistics_are_those_of_the_full_pass():
    model = build()
    plain = copy.deepcopy(model).merge().train()
    x, samples = batch()
    for _ in range(3):
        model(x, samples, mode='loss')
        plain(x, samples, mode='loss')
    found, expected = dict(model.named_buffers()), dict(plain.named_buffers())
    assert len(found) > 20 and set(found) == set(expected)
    for name, buffer in expected.items():
        assert torch.equal(found[name], buffer), name
    assert model.backbone.bn1.num_batches_tracked == 3 and model.backbone.bn1.track_running_stats


def test_general_pass_normalises_by_its_own_batch():
    model = build()
    x, samples = batch()
    model.backbone.bn1.running_mean.fill_(50.0)  # running statistics would show
    model(x, samples, mode='loss')
    with model.split.general_only():
        general = model(x)
    with torch.no_grad():
        full = model(x)
    assert torch.allclose(model.last[0], (full - general).square(), atol=1e-5)


def test_norms_in_eval_mode_stay_there():
    model = build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    before = {n: b.clone() for n, b in model.named_buffers()}
    model(*batch(), mode='loss')
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())


VIT = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', arch=dict(embed_dims=32, num_layers=2, num_heads=2,
                  feedforward_channels=64), img_size=32, patch_size=8, drop_rate=0.3, drop_path_rate=0.5),
    head=dict(type='VisionTransformerClsHead', num_classes=4, in_channels=32),
)  # fmt: skip


def test_both_passes_draw_the_same_random_numbers():
    model = build(VIT, tails=0)
    nn.init.normal_(model.head.layers.head.parametrizations.weight.original)  # it starts at zero
    x, samples = batch(size=32)
    first = model(x, samples, mode='loss')
    assert first['loss_more'] == 0  # not so with other masks
    assert not torch.equal(model(x, samples, mode='loss')['loss'], first['loss'])


def test_random_numbers_of_a_plain_training():
    model = build(VIT)
    nn.init.normal_(model.head.layers.head.parametrizations.weight.original)
    plain = copy.deepcopy(model).merge().train()
    x, samples = batch(size=32)
    results = []
    for net in (model, plain):
        torch.manual_seed(9)
        results.append((net(x, samples, mode='loss')['loss'].item(), torch.rand(3).tolist()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6) and results[0][1] == results[1][1]


# The control


def test_control_has_the_split_but_one_pass():
    model, control = build(), build(peak=0)
    assert set(control.state_dict()) == set(model.state_dict())
    calls = {'more': 0, 'control': 0}
    for name, net in (('more', model), ('control', control)):
        net.backbone.register_forward_hook(lambda *_, n=name: calls.__setitem__(n, calls[n] + 1))
        losses = net(*batch(), mode='loss')
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in net.parameters())
    assert calls == {'more': 2, 'control': 1} and set(losses) == {'loss'}
    control.set_progress(5, 10)  # needs no class counts
    assert control.alpha == 0


# An ordinary classifier


def test_names_are_those_of_the_classifier():
    model = build()
    assert {n.split('.')[0] for n, _ in model.named_parameters()} == {'backbone', 'head'}
    assert model.backbone is model.classifier.backbone and model.with_head and model.with_neck
    assert model.data_preprocessor is model.classifier.data_preprocessor
    x, samples = batch()
    model.eval()
    assert not model.classifier.training and not model.backbone.training
    plain = copy.deepcopy(model).merge()
    assert model.extract_feat(x)[-1].shape == (6, 32)
    assert torch.equal(model.extract_feat(x, stage='backbone')[-1], model.backbone(x)[-1])
    assert torch.allclose(model(x), plain(x), atol=1e-6)
    first, second = (net(x, copy.deepcopy(samples), mode='predict') for net in (model, plain))
    for a, b in zip(first, second):
        assert torch.allclose(a.pred_score, b.pred_score, atol=1e-6)
    head = nn.Identity()
    model.head = head
    assert model.classifier.head is head


def test_merged_model_runs_no_other_operation_than_the_plain_one():
    def operations(net):
        with torch.profiler.profile() as profile:
            net(batch()[0])
        return [e.name for e in profile.events() if e.name.startswith('aten::')]

    plain = MODELS.build(classifier()).eval()
    model = build().eval()
    assert operations(model) != operations(plain)
    assert operations(model.merge().eval()) == operations(plain)


def test_copy_is_independent_and_whole():
    model = build()
    twin = copy.deepcopy(model)
    assert twin.backbone is twin.classifier.backbone and twin.backbone is not model.backbone
    assert twin.backbone.conv1.parametrizations.weight[0].split is twin.split
    with model.split.general_only():
        assert not torch.equal(model.backbone.conv1.weight, twin.backbone.conv1.weight)


def test_data_preprocessor_of_a_stock_config():
    cfg = dict(type='mmlt.MORE', classifier=classifier(), data_preprocessor=dict(mean=[1.0] * 3, std=[2.0] * 3))
    assert MODELS.build(cfg).classifier.data_preprocessor.mean.flatten().tolist() == [1.0] * 3
    cfg['classifier'] = classifier(data_preprocessor=dict(mean=[3.0] * 3, std=[2.0] * 3))
    assert MODELS.build(cfg).data_preprocessor.mean.flatten().tolist() == [3.0] * 3


def test_initialisers_reach_the_general_weights():
    cfg = classifier()
    cfg['init_cfg'] = dict(type='Constant', layer=['Conv2d', 'Linear'], val=0.25)
    cfg['backbone'] = dict(cfg['backbone'], init_cfg=None)
    cfg['head'] = dict(cfg['head'], init_cfg=None)
    model = build(cfg, tails=0)
    assert (model.backbone.conv1.weight == 0.25).all() and (model.head.fc.weight == 0.25).all()
    assert (model.head.fc.parametrizations.weight.original == 0.25).all()


def test_pretrained_checkpoint_in_a_config(tmp_path):
    plain = MODELS.build(classifier())
    torch.save(dict(state_dict=plain.state_dict()), tmp_path / 'plain.pth')
    cfg = classifier(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth')))
    model = build(cfg, tails=0, seed=8)
    state = merge_state_dict(model.state_dict())
    assert all(torch.equal(v, state[k]) for k, v in plain.state_dict().items())


def test_parameter_groups():
    model = build(VIT)
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5, custom_keys={'.cls_token': dict(decay_mult=0.0)}),
        ),
    )
    names = {id(p): n for n, p in model.named_parameters()}

    def rates_of(wrapper):  # MMEngine adds a stand-in for the base learning rate
        return {names[id(p)]: g['lr'] for g in wrapper.param_groups for p in g['params'] if id(p) in names}

    rates = rates_of(wrapper)
    assert set(rates) == set(names.values())
    head, first = (
        rates[f'{n}.parametrizations.weight.0.B'] for n in ('head.layers.head', 'backbone.layers.0.attn.qkv')
    )
    assert head == 1.0 and first == 0.5**2
    assert rates['backbone.layers.0.attn.qkv.parametrizations.weight.original'] == first

    wrapper = build_optim_wrapper(
        model, dict(optimizer=dict(type='SGD', lr=1.0), paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=7))))
    )
    rates = rates_of(wrapper)
    assert {r for n, r in rates.items() if n.startswith('head')} == {7.0}
    assert {r for n, r in rates.items() if n.startswith('backbone')} == {1.0}


def data(seed=1):
    x, samples = batch(seed=seed)
    return dict(inputs=(x * 40 + 120).clamp(0, 255).byte(), data_samples=samples)


def test_gradient_accumulation_is_the_mean_of_the_gradients():
    def stepped(accumulate):
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=accumulate)
        wrapper.initialize_count_status(model, 0, accumulate)
        return model, wrapper

    model, wrapper = stepped(2)
    start = copy.deepcopy(model)
    gradients = []
    for seed in (1, 2):
        single = copy.deepcopy(start)
        losses = single(**single.data_preprocessor(data(seed), True), mode='loss')
        sum(losses.values()).backward()
        gradients.append({n: p.grad for n, p in single.named_parameters()})
        model.train_step(data(seed), wrapper)
    for name, parameter in model.named_parameters():
        expected = dict(start.named_parameters())[name] - 0.1 * (gradients[0][name] + gradients[1][name]) / 2
        assert torch.allclose(parameter, expected, atol=1e-6), name


def test_bfloat16():
    model = build(classifier())
    single = copy.deepcopy(model)
    wrapper = BFloat16OptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.0))
    half = model.train_step(data(), wrapper)
    full = single.train_step(data(), OptimWrapper(torch.optim.SGD(single.parameters(), lr=0.0)))
    for key in ('loss', 'loss_more'):
        assert half[key].item() == pytest.approx(full[key].item(), rel=0.1)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.last[0].dtype == torch.float32
    # at the start there is nothing between the passes, in half precision as well
    zero = build(tails=0)
    wrapper = BFloat16OptimWrapper(optimizer=torch.optim.SGD(zero.parameters(), lr=0.0))
    assert zero.train_step(data(), wrapper)['loss_more'] == 0


def test_text_head_and_text_tower():
    """Both towers are split, prompts are encoded in both passes, and groups of texts share one sum."""
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'),
        head=dict(
            type='mmlt.TextClsHead',
            text=dict(type='mmlt.OpenCLIPText', model='mmlt-tiny-vit'),
            templates=['a photo of a {}', 'a drawing of a {}', 'one {}'],
            prompt_mode='random',
            logit_scale=20.0,
            classes=CLASSES,
        ),
    )
    model = build(cfg, tails=0)
    x, samples = batch(size=32)
    for step in range(4):  # the same template in both passes, or there would be a penalty
        assert model(x, samples, mode='loss')['loss_more'] == 0
        assert model.head.steps == step + 1
    for name, parameter in model.named_parameters():
        if name.endswith('.0.B'):
            nn.init.normal_(parameter, std=0.05)
    losses = model(x, samples, mode='loss')
    assert losses['loss_more'] > 1e-4
    losses['loss_more'].backward()
    text = model.head.text.clip.transformer.resblocks[0].attn.parametrizations.in_proj_weight
    assert text[0].A.grad.abs().sum() > 0 and text.original.grad.abs().sum() > 0


def test_frozen_backbone_is_not_split():
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit', frozen=True),
        neck=dict(type='mmlt.BalancedLinearAdapter', in_channels=64),
        head=dict(type='LinearClsHead', num_classes=4, in_channels=64),
    )
    assert build(cfg).split.names == ['neck.linear.weight', 'head.fc.weight']


def test_timm_classifier():
    pytest.importorskip('timm')
    cfg = dict(type='TimmClassifier', model_name='resnet10t', num_classes=4)
    model = build(cfg)
    losses = model(*batch(size=32), mode='loss')
    assert losses['loss_more'] > 0


@pytest.mark.slow
def test_compiled_step_gives_the_same_losses():
    model = build()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    expected = model.train_step(data(), wrapper)
    compiled = torch.compile(model.train_step)
    for _ in range(2):
        found = compiled(data(), wrapper)
        for key in expected:
            assert found[key].item() == pytest.approx(expected[key].item(), rel=1e-4)
    model.set_progress(5, 10)
    assert compiled(data(), wrapper)['loss_more'] > found['loss_more']


# Bad input


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(discrepancy='cosine'), "discrepancy is 'cosine'"),
        (dict(multi_label='all'), "multi_label is 'all'"),
        (dict(peak=-1.0), 'peak is -1.0'),
        (dict(peak=float('nan')), 'peak is nan'),
        (dict(layers='backbone.layer9.*'), "'backbone.layer9.*' matches no weight"),
        (dict(rank=9), "larger than the matrix of 'backbone.conv1.weight'"),
        (dict(rank=1.5), 'ratio is 1.5'),
    ],
)
def test_bad_option_is_named(options, message):
    with pytest.raises(InputError) as error:
        MORE(classifier(), **options)
    assert message in str(error.value)


def test_classifier_without_head_is_named():
    with pytest.raises(InputError, match='has no head'):
        MORE(classifier(head=None))


def test_checkpointing_is_refused_unless_there_is_one_pass():
    cfg = classifier(backbone=dict(type='ResNet', depth=18, with_cp=True))
    cfg['head'] = dict(SINGLE, in_channels=512)
    with pytest.raises(InputError, match="'backbone.*recomputes its activations.*peak=0"):
        MORE(copy.deepcopy(cfg))
    control = build(cfg, peak=0)
    sum(control(*batch(size=32), mode='loss').values()).backward()


def test_counts_are_looked_at():
    model = MORE(classifier())
    with pytest.raises(InputError, match=r"MORE: class 2 \('plum'\) has no training images"):
        model.set_class_info(ClassInfo(CLASSES, [5, 4, 0, 1]))
    with pytest.raises(InputError, match='has 3 class counts, but there are 4'):
        model.set_class_info(ClassInfo(CLASSES, [5, 4, 1]))
    model.set_class_info(ClassInfo(CLASSES))  # a dataset that does not tell
    with pytest.raises(InputError, match='how many training images'):
        model.set_progress(0, 10)


def test_training_without_the_hook_is_named():
    model = MORE(classifier())
    model.set_class_info(ClassInfo(CLASSES, COUNTS))
    with pytest.raises(InputError, match='alpha was never set.*MOREHook'):
        model(*batch(), mode='loss')


def test_head_of_another_size_is_named():
    model = build(classifier(dict(SINGLE, num_classes=7)))
    with pytest.raises(InputError, match='gives 7 logits, but the training counts are of 4'):
        model(*batch(), mode='loss')


class _Odd(ClsHead):
    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.fc, self.kind = nn.Linear(32, 4), kind

    def forward(self, feats, target=None):
        z = self.fc(feats[-1])
        return (z, z) if self.kind == 'pair' else z[0] if self.kind == 'vector' else z

    def loss(self, feats, data_samples):
        target = torch.cat([s.gt_label for s in data_samples])
        if self.kind == 'labels':
            return dict(loss=self.loss_module(self(feats, target), target))
        if self.kind == 'twice':
            return dict(loss=self.loss_module(self(feats) + self(feats), target))
        if self.kind == 'aside':
            return dict(loss=self.loss_module(self.fc(feats[-1]), target))
        self(feats)
        return dict(loss=self.fc.weight.sum())


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('pair', 'logits of shape .N, C. from _Odd, but got tuple'),
        ('vector', 'but got of shape'),
        ('labels', 'makes its loss in another way'),
        ('twice', 'makes its loss in another way'),
        ('aside', 'makes its loss in another way'),
    ],
)
def test_head_that_gives_no_logits_is_named(kind, message):
    model = build()
    model.head = _Odd(kind)
    with pytest.raises(InputError, match=message):
        model(*batch(), mode='loss')
    assert not model.head._forward_hooks


def test_margin_head_is_named():
    model = build(classifier(dict(type='ArcFaceClsHead', num_classes=4, in_channels=32)))
    with pytest.raises(InputError, match='ArcFaceClsHead makes its loss in another way'):
        model(*batch(), mode='loss')


def test_multi_label_is_told_by_the_head():
    assert not build().is_multi_label
    model = build(classifier(MULTI))
    assert model.is_multi_label and isinstance(model.head, MultiLabelClsHead)
