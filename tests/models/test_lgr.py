"""The LGR head against VL-LTR's Eq. 4-7 written out in float64, its checkpoints, explanations and refusals."""

import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.engine.anchors import check_corpus
from mmlt.models import AnchorKNNHead, LGRHead
from mmlt.models.anchors import Anchors
from mmlt.models.heads.lgr_functional import AnchorTable, fold_query, sentence_attention, text_similarity
from mmlt.utils import tensors_fingerprint, texts_fingerprint
from mmlt.utils.class_info import ClassInfo

RAGGED = [3, 1, 5, 2, 5, 4, 1]
FULL = [4] * 6
WIDTH = 8


def layer_norm(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean) ** 2).mean(-1, keepdim=True).add(eps).sqrt() * weight + bias


def naive(image, values, counts, p, detach_norm=False):
    """Eq. 4-7: keys and G are made, class by class; ``p`` holds the weights by name.

    The keys' LayerNorm has a shift and W_k a bias here, which the head leaves out: they cancel.
    """
    width = image.shape[1]
    query = layer_norm(image, p['norm_query.weight'], p['norm_query.bias']) @ p['query.weight'].t()
    if 'query.bias' in p:
        query = query + p['query.bias']
    unit = image / image.pow(2).sum(-1, keepdim=True).sqrt()
    cosine = []
    for anchors, count in zip(values, counts):
        anchors = anchors[:count]
        keys = layer_norm(anchors, p['norm_key.weight'], p['shift']) @ p['key.weight'].t() + p['key_bias']
        scores = query @ keys.t() / width**0.5
        attention = scores.exp() / scores.exp().sum(-1, keepdim=True)
        gathered = attention @ anchors  # G of this class, (B, D)
        norm = gathered.pow(2).sum(-1).sqrt()
        cosine.append((unit * gathered).sum(-1) / (norm.detach() if detach_norm else norm))
    hidden = (image @ p['mlp.0.weight'].t() + p['mlp.0.bias']).clamp(min=0)
    visual = hidden @ p['mlp.2.weight'].t() + p['mlp.2.bias']
    return visual, p['log_scale'].exp() * torch.stack(cosine, -1)


def write_anchors(path, counts, width=WIDTH, number=None, seed=0, near=False, facts=None, logit_scale=12.5):
    """An anchor file with random embeddings; ``near`` makes the sentences of a class almost equal."""
    generator = torch.Generator().manual_seed(seed)
    number = number or max(counts)
    features = torch.randn(len(counts), number, width, generator=generator)
    if near:
        features = torch.randn(len(counts), 1, width, generator=generator) + 1e-3 * features
    scores = torch.rand(len(counts), number, generator=generator)
    for c, n in enumerate(counts):
        features[c, n:], scores[c, n:] = 0, torch.nan
    texts = [[f'sentence {m} of class {c}' for m in range(n)] for c, n in enumerate(counts)]
    Anchors(features, torch.tensor(counts), scores, texts, logit_scale, facts or {}).save(str(path))
    return str(path)


@pytest.fixture
def build(tmp_path):
    """Build an LGRHead with random anchors and weights that are not those of its start."""

    def make(counts, width=WIDTH, seed=0, near=False, number=None, dtype=torch.float64, **kwargs):
        path = write_anchors(tmp_path / 'anchors.safetensors', counts, width, number, seed, near)
        head = LGRHead(len(counts), width, anchors=path, learn_logit_scale=True, hidden_channels=5, **kwargs)
        head.init_weights()
        torch.manual_seed(seed + 100)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        return head.to(dtype)

    return make


def weights_of(head, dtype=torch.float64):
    """The head's weights as leaves, with a random shift and bias of the keys beside them."""
    p = {name: value.detach().to(dtype).requires_grad_() for name, value in head.named_parameters()}
    generator = torch.Generator().manual_seed(7)
    for name in ('shift', 'key_bias'):
        p[name] = torch.randn(head.in_channels, generator=generator).to(dtype).requires_grad_()
    return p


def bank_of(head):
    return head.bank.features, head.bank.counts


def images_like(head, size=4, seed=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, head.in_channels, generator=generator).to(dtype).requires_grad_()


def all_gradients(outputs, image, parameters):
    """Gradients of a random weighting of both branches with respect to the images and to all parameters."""
    generator = torch.Generator().manual_seed(11)
    total = sum((out * torch.randn(out.shape, generator=generator).to(out)).sum() for out in outputs)
    grads = torch.autograd.grad(total, [image, *parameters.values()], allow_unused=True)
    return dict(zip(['image', *parameters], grads))


def compare(head, tolerance=1e-11, detach_norm=False, attends=True):
    """Outputs and gradients, relative to their largest entry; ``attends=False`` where no class has a choice."""
    p, image, other = weights_of(head), images_like(head), images_like(head)
    actual, expected = (
        head.logits((image,)),
        naive(other, head.bank.features, head.bank.counts, p, detach_norm),
    )
    for a, b in zip(actual, expected):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()
    grads = all_gradients(actual, image, dict(head.named_parameters()))
    reference = all_gradients(expected, other, p)
    assert reference.pop('shift').abs().max() <= 1e-11 and reference.pop('key_bias').abs().max() <= 1e-11
    assert set(grads) == set(reference) and len(grads) >= 10
    for name, b in reference.items():
        if attends or name in ('image', 'log_scale') or name.startswith('mlp'):
            assert b.abs().max() > 1e-7, name
            assert (grads[name] - b).abs().max() <= tolerance * b.abs().max(), name
        else:
            assert grads[name].abs().max() <= tolerance and b.abs().max() <= tolerance, name


# Eq. 4-7


@pytest.mark.parametrize('counts', [RAGGED, FULL, [1] * 4, [9]], ids=['ragged', 'full', 'single', 'one class'])
@pytest.mark.parametrize('detach_norm', [False, True])
def test_outputs_and_all_gradients(build, counts, detach_norm):
    compare(build(counts, detach_norm=detach_norm), detach_norm=detach_norm, attends=max(counts) > 1)


@pytest.mark.parametrize('seed', range(3))
def test_more_seeds_without_query_bias(build, seed):
    head = build(RAGGED, seed=seed, query_bias=False)
    assert 'query.bias' not in dict(head.named_parameters())
    compare(head)


def test_near_duplicate_sentences(build):
    # The gradients of the attention's weights are 1e-6 of the others; the bound is relative to each.
    compare(build(RAGGED, near=True))


def test_more_columns_than_the_longest_class(build):
    """The file may be padded further than any class needs."""
    compare(build(RAGGED, number=9))


def test_classes_beyond_one_chunk(build):
    """32 classes at a time on a CPU: two full chunks and a rest, each cut to its own longest class."""
    counts = [1 + (7 * c) % 4 for c in range(32)] + [3] * 32 + [2, 6, 1]
    head = build(counts, number=8)
    assert [part.start for part, *_ in head.table.chunks()] == [0, 32, 64]
    assert [values.shape[1] for _, values, *_ in head.table.chunks()] == [4, 3, 6]
    compare(head)


@pytest.mark.parametrize('chunk', [1, 2, 3, 6, 7, 8])
def test_chunk_borders_change_nothing(chunk):
    values = torch.randn(7, 5, WIDTH, dtype=torch.float64)
    counts = torch.tensor(RAGGED)
    query = torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True)
    image = torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 7, dtype=torch.float64)
    results = []
    for size in (chunk, 100):
        out = text_similarity(query, image, AnchorTable(values, counts, chunk=size))
        results.append((out, *torch.autograd.grad((out * weight).sum(), (query, image))))
    for a, b in zip(*results):
        assert (a - b).abs().max() <= 1e-13


def test_garbage_in_the_padding_is_never_read():
    values = torch.randn(7, 5, WIDTH, dtype=torch.float64)
    counts = torch.tensor(RAGGED)
    dirty = values.clone()
    dirty[torch.arange(5) >= counts[:, None]] = 50.0
    query, image = (torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(2))
    results = []
    for v in (values, dirty):
        out = text_similarity(query, image, AnchorTable(v, counts, chunk=4))
        attention = sentence_attention(query, torch.tensor([0, 1, 6]), AnchorTable(v, counts))
        results.append((out, attention, *torch.autograd.grad(out.square().sum(), (query, image))))
    for a, b in zip(*results):
        assert torch.equal(a, b)


@pytest.mark.parametrize('needed', [(True, True), (True, False), (False, True)])
def test_gradcheck(needed):
    table = AnchorTable(torch.randn(7, 5, 4, dtype=torch.float64), torch.tensor(RAGGED), chunk=3)
    query, image = (torch.randn(2, 4, dtype=torch.float64, requires_grad=n) for n in needed)
    assert torch.autograd.gradcheck(lambda q, e: text_similarity(q, e, table), (query, image), atol=1e-8)


def test_second_derivatives_are_refused():
    """The backward is written by hand; a gradient of its gradient would silently lack terms."""
    table = AnchorTable(torch.randn(7, 5, 4, dtype=torch.float64), torch.tensor(RAGGED))
    query, image = (torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    (grad,) = torch.autograd.grad(text_similarity(query, image, table).square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def test_class_of_one_sentence_is_the_cosine_with_it(build):
    head = build([1, 4, 1])
    image = images_like(head)
    text = head.logits((image,))[1]
    for c in (0, 2):
        expected = F.cosine_similarity(image, head.bank.features[c, :1]) * head.log_scale.exp()
        assert (text[:, c] - expected).abs().max() <= 1e-12
    # ... so that its attention has nothing to learn.
    (grad,) = torch.autograd.grad(text[:, [0, 2]].sum(), head.query.weight)
    assert grad.abs().max() <= 1e-12


def test_fold_query_is_centred():
    query, weight, norm = torch.randn(3, 6), torch.randn(6, 6), torch.randn(6)
    expected = torch.stack([(weight.t() @ q) * norm / 6**0.5 for q in query])
    expected -= expected.mean(1, keepdim=True)
    assert torch.allclose(fold_query(query, weight, norm), expected, atol=1e-6)


@pytest.mark.parametrize('near', [False, True], ids=['random', 'near-duplicates'])
def test_single_precision_is_as_good_as_the_naive_one(build, near):
    """Against float64, outputs and every gradient: at most 3 times the error of the naive float32, over 16 seeds."""
    errors = {}
    for seed in range(16):
        counts = [1 + (5 * c + seed) % 12 for c in range(10)]
        head = build(counts, width=64, seed=seed, near=near, dtype=torch.float32)
        results = []
        for dtype in (torch.float64, torch.float32):
            p, image = weights_of(head, dtype), images_like(head, 8, seed, dtype)
            outputs = naive(image, head.bank.features.to(dtype), head.bank.counts, p)
            results.append((outputs[1], all_gradients(outputs, image, p)))
        image = images_like(head, 8, seed, torch.float32)
        outputs = head.logits((image,))
        results.append((outputs[1], all_gradients(outputs, image, dict(head.named_parameters()))))
        (exact, exact_grads), *others = results
        for which, (text, grads) in zip(('naive', 'head'), others):
            found = {'text logits': (text.double() - exact).norm() / exact.norm()}
            for name in ('image', 'query.weight', 'query.bias', 'key.weight', 'norm_key.weight', 'norm_query.weight'):
                found[name] = (grads[name].double() - exact_grads[name]).norm() / exact_grads[name].norm()
            for name, error in found.items():
                errors.setdefault(name, {}).setdefault(which, []).append(error.item())
    assert len(errors) == 7
    for name, error in errors.items():
        ours, theirs = torch.tensor(error['head']), torch.tensor(error['naive'])
        assert ours.median() <= 3 * theirs.median(), (name, ours.median(), theirs.median())
        assert ours.max() <= 3 * theirs.max(), (name, ours.max(), theirs.max())


# The head


def samples(labels):
    return [DataSample().set_gt_label(y) for y in labels]


def test_loss_is_the_sum_of_both_cross_entropies(build):
    head = build(RAGGED)
    image = images_like(head)
    losses = head.loss((image,), samples([0, 6, 2, 2]))
    visual, text = naive(image, head.bank.features, head.bank.counts, weights_of(head))
    labels = torch.tensor([0, 6, 2, 2])
    assert set(losses) == {'loss_visual', 'loss_text'}
    assert (losses['loss_visual'] - F.cross_entropy(visual, labels)).abs() <= 1e-11
    assert (losses['loss_text'] - F.cross_entropy(text, labels)).abs() <= 1e-11


@pytest.mark.parametrize('fusion', [0.2, 1.0])
def test_a_training_fuses_nothing(build, fusion, monkeypatch):
    """Only where the output is watched, as by MORE, is there a prediction; losses and gradients are the same."""
    head, labels = build(RAGGED, fusion=fusion), samples([0, 6, 2, 2])
    fused, fuse = [], head._fuse
    monkeypatch.setattr(head, '_fuse', lambda *probabilities: fused.append(1) or fuse(*probabilities))
    image = images_like(head)

    def losses_and_gradients():
        losses = head.loss((image,), labels)
        wanted = [image, *head.parameters()]
        return [*losses.values(), *torch.autograd.grad(sum(losses.values()), wanted)]

    plain, seen = losses_and_gradients(), []
    assert not fused
    handle = head.register_forward_hook(lambda head, args, output: seen.append((args, output)))
    watched = losses_and_gradients()
    handle.remove()
    assert len(fused) == len(seen) == 1 and len(seen[0][0]) == 1
    for a, b in zip(plain, watched, strict=True):
        assert (a - b).abs().max() <= 1e-12 * b.abs().max()
    with torch.no_grad():
        assert (seen[0][1] - head((image,))).abs().max() <= 1e-12
    p, other = weights_of(head), images_like(head)
    names = [name for name, _ in head.named_parameters()]
    total = sum(F.cross_entropy(z, torch.tensor([0, 6, 2, 2])) for z in naive(other, *bank_of(head), p))
    expected = torch.autograd.grad(total, [other, *(p[name] for name in names)])
    for name, a, b in zip(['image', *names], plain[2:], expected, strict=True):
        assert (a - b).abs().max() <= 1e-11 * b.abs().max().clamp(min=1), name


def test_accuracies_of_both_branches(build):
    head = build(FULL, cal_acc=True)
    losses = head.loss((images_like(head),), samples([0, 1, 2, 3]))
    assert {'accuracy_top-1_visual', 'accuracy_top-1_text'} < set(losses)


@pytest.mark.parametrize('fusion', [0.0, 0.2, 0.5, 1.0])
def test_softmax_of_the_output_is_the_fused_prediction(build, fusion):
    head = build(RAGGED, fusion=fusion)
    image = images_like(head).detach()
    visual, text = (x.softmax(1) for x in naive(image, head.bank.features, head.bank.counts, weights_of(head)))
    expected = fusion * visual + (1 - fusion) * text
    out = head((image,))
    assert (out.softmax(1) - expected).abs().max() <= 1e-11
    assert (out.exp() - expected).abs().max() <= 1e-11
    predicted = head.predict((image,))
    assert (torch.stack([s.pred_score for s in predicted]) - expected).abs().max() <= 1e-11
    assert [int(s.pred_label) for s in predicted] == expected.argmax(1).tolist()
    assert 'attention' not in predicted[0]


def test_probabilities_that_vanish_stay_finite(build):
    head = build(FULL, dtype=torch.float32, logit_scale=1e4)
    with torch.no_grad():
        head.mlp[2].weight *= 1e4
    assert torch.isfinite(head((images_like(head, dtype=torch.float32),))).all()


@pytest.mark.parametrize('explain', [1, 2, 100])
def test_prediction_tells_why(build, explain):
    head = build(RAGGED, fusion=0.3)
    image = images_like(head, 12).detach()
    p = weights_of(head)
    visual, text = (x.softmax(1) for x in naive(image, head.bank.features, head.bank.counts, p))
    query = layer_norm(image, p['norm_query.weight'], p['norm_query.bias']) @ p['query.weight'].t() + p['query.bias']
    given = samples([0] * 12)
    out = head.predict((image,), given, explain=explain)
    assert all(a is b for a, b in zip(out, given))
    for i, sample in enumerate(out):
        c = int(sample.pred_label)
        count = RAGGED[c]
        anchors = head.bank.features[c, :count]
        keys = layer_norm(anchors, p['norm_key.weight'], p['shift']) @ p['key.weight'].t() + p['key_bias']
        attention = (query[i] @ keys.t() / WIDTH**0.5).softmax(0).detach()
        assert (sample.attention[:count] - attention).abs().max() <= 1e-11
        assert sample.attention.shape == (5,) and (sample.attention[count:] == 0).all()
        assert sample.attention.sum().item() == pytest.approx(1)
        assert (sample.visual_score - visual[i]).abs().max() <= 1e-11
        assert (sample.text_score - text[i]).abs().max() <= 1e-11
        expected = sorted(zip(attention.tolist(), range(count)), reverse=True)[:explain]
        assert [s for _, s in sample.anchor_sentences] == [f'sentence {m} of class {c}' for _, m in expected]
        assert [w for w, _ in sample.anchor_sentences] == pytest.approx([w for w, _ in expected])
    assert len({int(s.pred_label) for s in out}) > 2


def test_explain_of_the_config_and_of_the_call(build):
    head = build(RAGGED, explain=2)
    image = images_like(head)
    assert 1 <= len(head.predict((image,))[0].anchor_sentences) <= 2
    assert 'anchor_sentences' not in head.predict((image,), explain=0)[0]
    assert not head.predict((image,))[0].attention.requires_grad


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_computes_in_single_precision(build, dtype):
    head = build(RAGGED, width=32, dtype=torch.float32)
    image = images_like(head, dtype=torch.float32).detach().to(dtype)
    expected = head.logits((image.float(),))
    with torch.autocast('cpu', torch.bfloat16):
        image.requires_grad_()
        actual = head.logits((image,))
        losses = head.loss((image,), samples([0, 1, 2, 3]))
        sum(losses.values()).backward()
    for a, b in zip(actual, expected):
        assert a.dtype == torch.float32 and torch.equal(a, b)
    assert image.grad.dtype == dtype and image.grad.abs().max() > 0
    assert head.query.weight.grad.dtype == torch.float32 and torch.isfinite(head.query.weight.grad).all()


def test_autocast_explains_the_same_attention(build):
    head = build([20] * 4, width=32, dtype=torch.float32)
    image = images_like(head, dtype=torch.float32)
    expected = head.predict((image,), explain=3)
    with torch.autocast('cpu', torch.bfloat16):
        actual = head.predict((image,), explain=3)
    for a, b in zip(actual, expected):
        assert a.attention.dtype == torch.float32
        assert (a.attention - b.attention).abs().max() <= 1e-6


def test_start_as_published(tmp_path):
    path = write_anchors(tmp_path / 'a.safetensors', FULL, logit_scale=40.0)
    head = LGRHead(6, WIDTH, anchors=path)
    head.init_weights()
    assert torch.equal(head.query.weight, torch.eye(WIDTH)) and torch.equal(head.key.weight, torch.eye(WIDTH))
    assert (head.query.bias == 0).all()
    assert head.mlp[0].weight.shape == (4 * WIDTH, WIDTH)
    assert head.log_scale.exp().item() == pytest.approx(40.0) and not head.log_scale.requires_grad
    assert not any(b.requires_grad for b in head.buffers())
    other = LGRHead(6, WIDTH, anchors=path, logit_scale=7.0, identity_init=False, learn_logit_scale=True)
    other.init_weights()
    assert other.log_scale.exp().item() == pytest.approx(7.0) and other.log_scale.requires_grad
    assert not torch.equal(other.query.weight, torch.eye(WIDTH))


# Checkpoints


def test_checkpoint_carries_anchors_and_texts(build, tmp_path):
    head = build(RAGGED, dtype=torch.float32)
    image = images_like(head, dtype=torch.float32)
    torch.save(head.state_dict(), tmp_path / 'head.pth')
    (tmp_path / 'anchors.safetensors').unlink()
    fresh = LGRHead(7, WIDTH, hidden_channels=5)
    with pytest.raises(InputError, match='LGRHead has no anchor sentences yet: train it with model.head.anchors'):
        fresh((image,))
    keys = fresh.load_state_dict(read_checkpoint(tmp_path / 'head.pth'))
    assert not keys.missing_keys and not keys.unexpected_keys
    assert torch.equal(fresh((image,)), head((image,)))
    assert fresh.bank.sentences == [[f'sentence {m} of class {c}' for m in range(n)] for c, n in enumerate(RAGGED)]
    assert (
        fresh.predict((image,), explain=1)[0].anchor_sentences == head.predict((image,), explain=1)[0].anchor_sentences
    )


@pytest.mark.parametrize('load', ['torch', 'mmengine'])
def test_weights_keep_the_names_that_written_checkpoints_have(build, load):
    """The bank is a module of its own, but its tensors are ``head.anchor_*`` in checkpoints."""
    source, model = (torch.nn.ModuleDict({'head': h}) for h in (build(RAGGED), LGRHead(7, WIDTH, hidden_channels=5)))
    state = source.state_dict()
    anchors = {'anchor_features', 'anchor_counts', 'anchor_scale', 'anchor_texts'}
    assert set(state) == {f'head.{name}' for name in anchors | dict(source['head'].named_parameters()).keys()}
    assert set(get_state_dict(source)) == set(state)
    before = dict(state)
    if load == 'torch':
        model.load_state_dict(state)
    else:
        load_state_dict(model, state, strict=True)
    assert set(state) == set(before)
    image = images_like(source['head'], dtype=torch.float32)
    assert torch.equal(model['head']((image,)), source['head'].float()((image,)))
    knn = AnchorKNNHead(7, WIDTH)
    knn.load_state_dict({name: state[f'head.{name}'] for name in anchors})
    assert knn.bank.sentences == source['head'].bank.sentences
    del state['head.anchor_counts']
    assert model.load_state_dict(state, strict=False).missing_keys == ['head.bank.counts']


@pytest.mark.parametrize('kind', [LGRHead, AnchorKNNHead])
def test_the_file_is_read_once(tmp_path, monkeypatch, kind):
    path = write_anchors(tmp_path / 'a.safetensors', RAGGED)
    reads, load = [], Anchors.load
    monkeypatch.setattr(Anchors, 'load', lambda path: reads.append(path) or load(path))
    head = kind(7, WIDTH, anchors=path)
    head.init_weights()
    assert reads == [path]
    write_anchors(path, [2] * 7, seed=1, logit_scale=3.0)  # another one in its place
    head.init_weights()
    assert len(reads) == 2 and head.bank.counts.tolist() == [2] * 7 and head.bank.scale == 3
    other = kind(7, WIDTH, anchors=write_anchors(tmp_path / 'b.safetensors', [1] * 7))
    head.load_state_dict(other.state_dict())
    assert head.bank.counts.tolist() == [1] * 7
    head.init_weights()  # a new training takes the file's, not those of a checkpoint before it
    assert head.bank.counts.tolist() == [2] * 7


def test_other_anchors_replace_what_was_computed_of_the_old(build):
    """Tables are made once; a checkpoint with other sentences, of another number, makes them anew."""
    head, other = build(RAGGED, dtype=torch.float32), build([2] * 7, seed=5, dtype=torch.float32)
    image = images_like(head, dtype=torch.float32)
    before = head((image,))
    head.load_state_dict(other.state_dict())
    assert torch.equal(head((image,)), other((image,)))
    assert not torch.allclose(head((image,)), before, atol=1e-2)


def test_another_precision_after_the_first_use(build):
    head = build(RAGGED, dtype=torch.float32)
    image = images_like(head)
    single = head((image.float(),))
    assert torch.allclose(head.double()((image,)), single.double(), atol=1e-4)


def test_texts_in_any_script_survive(tmp_path):
    texts = [['ein Öl — "zitiert"', '三'], ['\u00e9t\u00e9 \\ \n x', '🍐']]
    path = str(tmp_path / 'a.safetensors')
    Anchors(torch.randn(2, 2, WIDTH), torch.tensor([2, 2]), torch.rand(2, 2), texts, 10.0).save(path)
    head = LGRHead(2, WIDTH, anchors=path)
    head.init_weights()
    fresh = LGRHead(2, WIDTH)
    fresh.load_state_dict(head.state_dict())
    assert fresh.bank.sentences == texts


def test_averaged_model_follows(build):
    """EMA copies the model before the weights are initialised, and with them the anchors read and checked."""
    source = build(RAGGED, dtype=torch.float32)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = LGRHead(7, WIDTH, hidden_channels=5, anchors=source.anchors)

    model = Model()
    average = ExponentialMovingAverage(model, momentum=0.5)
    model.head.load_state_dict(source.state_dict())
    average.update_parameters(model)
    image = images_like(source, dtype=torch.float32)
    assert torch.allclose(average.module.head((image,)), source((image,)))


# Bad input

FACTS = dict(
    classes=['apple', 'pear'],
    corpus=texts_fingerprint([['an apple grows'], ['a pear hangs']]),
    texts=dict(type='mmlt.ClassTexts', templates=None),
    image_tower=tensors_fingerprint({'w': torch.ones(2, 3), 'n': torch.tensor(4)}),
)
TEXTS = [['an apple grows'], ['a pear hangs']]


@pytest.fixture
def two_classes(tmp_path):
    """An anchor file of two classes with all facts, and a head that knows the classes."""
    path = write_anchors(tmp_path / 'anchors.safetensors', [3, 2], facts=FACTS)

    def make(classes=('apple', 'pear'), texts=TEXTS, kind=LGRHead, **kwargs):
        head = kind(2, kwargs.pop('in_channels', WIDTH), anchors=path, **kwargs)
        head.set_class_info(ClassInfo(classes, None, texts))
        return head

    return make


def test_anchors_of_these_classes_texts_and_weights_are_taken(two_classes):
    head = two_classes()
    head.init_weights()
    check_corpus(head)
    state = {'backbone.w': torch.ones(2, 3), 'backbone.n': torch.tensor(4), 'head.x': torch.ones(1)}
    head.bank.check_checkpoint(state, 'c')
    assert head.bank.counts.tolist() == [3, 2]


@pytest.mark.parametrize('kind', [LGRHead, AnchorKNNHead])
@pytest.mark.parametrize(
    'changes, sentence',
    [
        (dict(classes=('apple', 'plum')), r"of another class list: class 1 is 'pear' there and 'plum' in the dataset"),
        (dict(classes=('pear', 'apple')), r"of another class list: class 0 is 'apple' there and 'pear' in the dataset"),
        (dict(texts=[['an apple grows'], ['a pear falls']]), 'selected from another corpus than the dataset'),
        (dict(texts=[['a pear hangs'], ['an apple grows']]), 'selected from another corpus than the dataset'),
        (dict(num_anchors=4), r'disagrees with the head: num_anchors \(M\) is 3 in the file and 4 in the config'),
        (dict(in_channels=9), r'disagrees with the head: in_channels \(D\) is 8 in the file and 9 in the config'),
    ],
)
def test_anchors_of_something_else_are_refused(two_classes, kind, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        head = two_classes(kind=kind, **changes)
        head.init_weights()
        check_corpus(head)


def test_other_number_of_classes(two_classes, tmp_path):
    head = LGRHead(3, WIDTH, anchors=str(tmp_path / 'anchors.safetensors'))
    with pytest.raises(InputError, match=r'num_classes \(C\) is 2 in the file and 3 in the config'):
        head.init_weights()
    with pytest.raises(InputError, match='num_classes=3, but the dataset has 2 classes: set model.head.num_classes=2'):
        head.set_class_info(ClassInfo(('apple', 'pear')))


@pytest.mark.parametrize(
    'state',
    [
        {'backbone.w': torch.ones(2, 3), 'backbone.n': torch.tensor(5)},
        {'backbone.w': torch.ones(2, 3) + 1e-7, 'backbone.n': torch.tensor(4)},
        {'backbone.w': torch.ones(2, 3)},
    ],
)
def test_other_weights(two_classes, state):
    head = two_classes()
    head.init_weights()
    with pytest.raises(InputError, match=r"made with other weights than those of 'some\.pth': take both from one"):
        head.bank.check_checkpoint(state, 'some.pth')


def test_missing_anchors(tmp_path):
    with pytest.raises(InputError, match='LGRHead has no anchor sentences: give model.head.anchors=<file>'):
        LGRHead(2, WIDTH).init_weights()
    with pytest.raises(InputError, match=r"anchor file '.*none\.safetensors' does not exist: it is written at the end"):
        LGRHead(2, WIDTH, anchors=str(tmp_path / 'none.safetensors')).init_weights()


def test_wrong_arguments(build):
    with pytest.raises(InputError, match=r'fusion is 1\.5; it is the share of the visual branch, in \[0, 1\]'):
        LGRHead(2, WIDTH, fusion=1.5)
    with pytest.raises(InputError, match='features are 6 wide and the head expects 8: set model.head.in_channels=6'):
        build(FULL)((torch.randn(2, 6),))


# Nearest neighbours


@pytest.mark.parametrize('neighbours', [1, 4, 1000])
def test_nearest_sentences_vote(tmp_path, neighbours):
    path = write_anchors(tmp_path / 'a.safetensors', RAGGED, number=6)
    head = MODELS.build(
        dict(type='mmlt.AnchorKNNHead', num_classes=7, in_channels=WIDTH, anchors=path, num_neighbours=neighbours)
    )
    head.init_weights()
    images = torch.randn(5, WIDTH)
    out = head((images,)).softmax(1)
    for image, scores in zip(images, out):
        all_votes = []
        for c, n in enumerate(RAGGED):
            for m in range(n):
                cosine = F.cosine_similarity(image.double(), head.bank.features[c, m].double(), dim=0)
                all_votes.append((float(cosine), c))
        expected = torch.zeros(7, dtype=torch.float64)
        for cosine, c in sorted(all_votes, reverse=True)[:neighbours]:
            expected[c] += torch.tensor(12.5 * cosine, dtype=torch.float64).exp()
        assert (scores - expected / expected.sum()).abs().max() <= 1e-5
    assert head.predict((images,))[0].pred_label == out[0].argmax()


def test_texts_are_stored_as_plain_bytes(build):
    """A checkpoint is read with weights_only; the texts in it are JSON."""
    head = build([1, 2])
    assert json.loads(bytes(head.state_dict()['anchor_texts'].tolist())) == head.bank.sentences
