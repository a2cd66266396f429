"""CUE: the loss against loops in float64, and the file of neighbour classes."""

import json
import math

import pytest
import torch
from mmpretrain.registry import MODELS

from mmlt import InputError
from mmlt.models import CUELoss, LogitAdjustedLoss
from mmlt.models.losses import (
    binary_logit_adjusted_loss,
    neighbour_table,
    neighbour_targets,
    read_neighbours,
    zero_shot_targets,
)
from mmlt.utils.class_info import ClassInfo

CLASSES = ('apple', 'pear', 'plum', 'sweet pepper', 'fox')
COUNTS = (60, 25, 9, 4, 2)
NEIGHBOURS = {
    'apple': ['pear', 'plum'],
    'pear': ['apple'],
    'sweet pepper': ['apple', 'pear', 'plum'],
}  # plum, fox: none
LABELS = (0, 2, 3, 4, 1, 0, 3)


# Naive forms


def naive_zero_shot(scores, labels, k):
    """Rows of zeros and ones: the label, then the best others one by one."""
    rows = []
    for row, label in zip(scores.tolist(), labels):
        positives = {label}
        for _ in range(k):
            best = None
            for c, score in enumerate(row):
                if c not in positives and (best is None or score > row[best]):
                    best = c
            positives.add(best)
        rows.append([1.0 if c in positives else 0.0 for c in range(len(row))])
    return rows


def naive_neighbours(labels, neighbours=NEIGHBOURS, classes=CLASSES):
    return [
        [1.0 if c == label or name in neighbours.get(classes[label], ()) else 0.0 for c, name in enumerate(classes)]
        for label in labels
    ]


def naive_soft_neighbours(rows, neighbours=NEIGHBOURS, classes=CLASSES):
    """Of every class its own probability, and that of each class that names it; 1 at most."""
    return [
        [
            min(1.0, own + sum(p for p, name in zip(row, classes) if wanted in neighbours.get(name, ())))
            for own, wanted in zip(row, classes)
        ]
        for row in rows
    ]


def naive_bla(logits, targets, counts, tau):
    """Of every image the mean over classes of -y log p - (1 - y) log(1 - p)."""
    losses = []
    for row, wanted in zip(logits.tolist(), targets):
        total = 0.0
        for z, y, n in zip(row, wanted, counts):
            p = 1 / (1 + math.exp(-(z + tau * math.log(n / sum(counts)))))
            total += -y * math.log(p) - (1 - y) * math.log(1 - p)
        losses.append(total / len(row))
    return losses


def naive_base(logits, labels, counts):
    """Logit-adjusted cross-entropy."""
    losses = []
    for row, label in zip(logits.tolist(), labels):
        raised = [z + math.log(n / sum(counts)) for z, n in zip(row, counts)]
        losses.append(math.log(sum(math.exp(z) for z in raised)) - raised[label])
    return losses


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    logits, scores = (torch.randn(len(LABELS), 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return (3 * logits).to(dtype), scores.to(dtype), torch.tensor(LABELS)


def loss_of(**kwargs):
    base = dict(type='mmlt.LogitAdjustedLoss', class_counts=COUNTS)
    loss = MODELS.build(
        dict(type='mmlt.CUELoss', **{**dict(base=base, neighbours=NEIGHBOURS, top_k=2, class_counts=COUNTS), **kwargs})
    )
    loss.set_class_info(ClassInfo(CLASSES))
    return loss


# Targets and the binary loss


@pytest.mark.parametrize('k', [1, 2, 4])
def test_zero_shot_targets(k):
    _, scores, labels = problem()
    targets = zero_shot_targets(scores, labels, k)
    assert targets.tolist() == naive_zero_shot(scores, LABELS, k)
    assert (targets.sum(1) == k + 1).all()
    # The label is no part of the k, however well it scores.
    scores[torch.arange(len(labels)), labels] = 99.0
    assert torch.equal(zero_shot_targets(scores, labels, k), targets)


def test_of_equal_scores_the_lower_class_comes_first():
    scores = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 1.0, 1.0, 1.0]])
    assert zero_shot_targets(scores, torch.tensor([1, 4]), 2).tolist() == [[1, 1, 1, 0, 0], [0, 1, 1, 0, 1]]
    wide = torch.zeros(3, 500)
    assert zero_shot_targets(wide, torch.tensor([0, 2, 499]), 5).nonzero()[:, 1].tolist() == [
        *range(6),
        *range(6),
        *range(5),
        499,
    ]


@pytest.mark.parametrize('k', [0, 5, 9])
def test_more_classes_than_there_are(k):
    with pytest.raises(InputError, match=rf'top_k={k} classes beside the label, but there are 5 .* from 1 to 4'):
        zero_shot_targets(torch.zeros(2, 5), torch.tensor([0, 1]), k)


def test_mixed_labels():
    mixed = torch.tensor([[0.7, 0.0, 0.0, 0.3, 0.0]])
    scores = torch.tensor([[9.0, 1.0, 3.0, 8.0, 2.0]])
    assert torch.allclose(zero_shot_targets(scores, mixed, 1), torch.tensor([[0.7, 0.0, 1.0, 0.3, 0.0]]))
    # apple lends to pear and plum, sweet pepper to these and to apple
    table = neighbour_table(NEIGHBOURS, CLASSES)
    assert torch.allclose(neighbour_targets(mixed, table), torch.tensor([[1.0, 1.0, 1.0, 0.3, 0.0]]))
    for label in range(5):  # one class with all of the probability is that class
        hard, soft = torch.tensor([label]), torch.eye(5)[label : label + 1]
        assert torch.equal(neighbour_targets(hard, table), neighbour_targets(soft, table))
        assert torch.equal(zero_shot_targets(scores, hard, 3), zero_shot_targets(scores, soft, 3))


def test_mixed_labels_of_classes_with_few_neighbours():
    """What fills up a row of the table lends nothing: a class with fewer neighbours than another keeps what it has."""
    rows = [[0.0, 0.6, 0.4, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0, 0.7], [0.1, 0.2, 0.2, 0.25, 0.25]]
    actual = neighbour_targets(
        torch.tensor(rows, dtype=torch.float64), neighbour_table(NEIGHBOURS, CLASSES), torch.float64
    )
    assert actual.tolist() == [pytest.approx(row, abs=1e-15) for row in naive_soft_neighbours(rows)]
    assert actual[0, 1] == 0.6 and actual[1, 4] == 0.7 and (actual < 1).any(1).all()


def test_neighbour_targets():
    table = neighbour_table(NEIGHBOURS, CLASSES)
    assert table.shape == (5, 3) and table.dtype == torch.long
    assert neighbour_targets(torch.tensor(LABELS), table).tolist() == naive_neighbours(LABELS)
    # A class without neighbours, and nothing but such classes.
    assert neighbour_targets(torch.tensor([4]), table).tolist() == [[0, 0, 0, 0, 1]]
    none = neighbour_table({}, CLASSES)
    assert none.shape == (5, 0)
    assert torch.equal(neighbour_targets(torch.tensor(LABELS), none), torch.eye(5)[list(LABELS)])
    assert torch.equal(neighbour_targets(torch.eye(5), none), torch.eye(5))


@pytest.mark.parametrize('tau', [0.0, 1.0, 1.5])
def test_binary_loss(tau):
    logits, scores, labels = problem()
    targets = zero_shot_targets(scores, labels, 2)
    actual = binary_logit_adjusted_loss(logits, targets, torch.tensor(COUNTS, dtype=logits.dtype), tau)
    assert actual.tolist() == pytest.approx(naive_bla(logits, targets.tolist(), COUNTS, tau), rel=1e-12)


# The loss


@pytest.mark.parametrize(
    ('w_a', 'w_b', 'tau', 'k'), [(0.5, 0.5, 1.0, 2), (1.0, 0.0, 1.0, 3), (0.0, 2.0, 0.5, 1), (0.3, 0.7, 0.0, 4)]
)
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_loss(w_a, w_b, tau, k, reduction):
    logits, scores, labels = problem()
    loss = loss_of(zero_shot_weight=w_a, neighbour_weight=w_b, tau=tau, top_k=k, reduction=reduction, loss_weight=0.5)
    a = naive_bla(logits, naive_zero_shot(scores, LABELS, k), COUNTS, tau)
    b = naive_bla(logits, naive_neighbours(LABELS), COUNTS, tau)
    each = [0.5 * (x + w_a * y + w_b * z) for x, y, z in zip(naive_base(logits, LABELS, COUNTS), a, b)]
    expected = {'none': each, 'sum': sum(each), 'mean': sum(each) / len(each)}[reduction]
    assert loss(logits, labels, zero_shot=scores).tolist() == pytest.approx(expected, rel=1e-12)
    other = loss(logits, labels, zero_shot=scores, reduction_override='none')
    assert other.tolist() == pytest.approx(each, rel=1e-12)


def test_gradients():
    logits, scores, labels = problem()
    loss = loss_of()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels, zero_shot=scores), logits)
    soft = torch.softmax(scores, 1) * (scores > -1)
    assert torch.autograd.gradcheck(lambda z: loss(z, soft / soft.sum(1, keepdim=True), zero_shot=scores), logits)
    scores.requires_grad_()
    loss(logits, labels, zero_shot=scores).backward()
    assert scores.grad is None and logits.grad.abs().max() > 0


def test_defaults_are_those_of_the_published_code():
    loss = CUELoss(neighbours={})
    assert (loss.zero_shot_weight, loss.neighbour_weight, loss.top_k, loss.tau) == (0.5, 0.5, 5, 1.0)
    assert isinstance(loss.base, LogitAdjustedLoss) and loss.base.tau == 1.0
    loss.set_class_info(ClassInfo(CLASSES, COUNTS))  # the hook tells every module
    assert loss.base.class_counts.numel() == 0 and loss.class_counts.tolist() == list(COUNTS)


@pytest.mark.parametrize('base', ['mmlt.LogitAdjustedLoss', 'CrossEntropyLoss', 'LabelSmoothLoss'])
def test_weights_of_zero_are_the_base(base):
    options = {'mmlt.LogitAdjustedLoss': dict(class_counts=COUNTS), 'LabelSmoothLoss': dict(label_smooth_val=0.1)}
    base = dict(type=base, **options.get(base, {}))
    logits, _, labels = problem(torch.float32)
    loss = loss_of(base=base, zero_shot_weight=0, neighbour_weight=0, neighbours=None)
    weight = torch.rand(len(labels))
    for options in ({}, dict(avg_factor=3), dict(weight=weight)):
        assert torch.equal(loss(logits, labels, **options), MODELS.build(base)(logits, labels, **options))
    # With weights it is the base and something more.
    assert loss_of(base=base, zero_shot_weight=0)(logits, labels) > loss(logits, labels)


def test_weights_and_average_factor_reach_all_terms():
    logits, scores, labels = problem()
    loss, weight = loss_of(), torch.rand(len(labels), dtype=torch.float64)
    each = loss(logits, labels, zero_shot=scores, reduction_override='none')
    actual = loss(logits, labels, weight=weight, avg_factor=3, zero_shot=scores)
    assert actual.item() == pytest.approx((each * weight).sum().item() / 3, rel=1e-12)


def test_images_that_are_not_scored_are_left_out():
    logits, scores, labels = problem()
    expected = loss_of()(logits[:5], labels[:5], zero_shot=scores[:5])
    labels[5:] = -1
    assert torch.allclose(loss_of()(logits, labels, zero_shot=scores), expected)


def test_half_precision_and_autocast():
    logits, scores, labels = problem(torch.float32)
    loss = loss_of()
    expected = loss(logits.bfloat16().float(), labels, zero_shot=scores)
    with torch.autocast('cpu', torch.bfloat16):
        actual = loss(logits.bfloat16(), labels, zero_shot=scores)
    assert actual.dtype == torch.float32 and torch.equal(actual, expected)


def test_compiled_loss():
    logits, scores, labels = problem(torch.float32)
    loss = loss_of()
    compiled = torch.compile(loss, backend='aot_eager')
    results = []
    for module in (loss, compiled):
        z = logits.clone().requires_grad_()
        value = module(z, labels, zero_shot=scores)
        value.backward()
        results.append((value.detach(), z.grad))
    assert torch.allclose(results[0][0], results[1][0]) and torch.allclose(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ('kwargs', 'sentence'),
    [
        (dict(zero_shot_weight=-1), 'zero_shot_weight is -1; it must not be negative'),
        (dict(tau=float('nan')), 'tau is nan; it must not be negative'),
        (dict(top_k=0), 'top_k is 0; give a whole number from 1 on'),
        (dict(class_counts=(5, 0, 1)), 'CUELoss: class 1 has no training images; give every class at least one'),
        (dict(neighbours=None), 'has no neighbour classes: give neighbours=<JSON file>.*or neighbour_weight=0'),
    ],
)
def test_settings_that_are_refused(kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        CUELoss(**{**dict(neighbours={}), **kwargs})


def test_what_is_missing_is_named():
    logits, scores, labels = problem()
    with pytest.raises(InputError, match="no scores of a zero-shot model: set model.type='mmlt.CUEClassifier'"):
        loss_of()(logits, labels)
    loss = CUELoss(dict(type='CrossEntropyLoss'), neighbours={}, class_counts=COUNTS, zero_shot_weight=0)
    with pytest.raises(InputError, match='does not know the class names'):
        loss(logits, labels)
    with pytest.raises(InputError, match='CUELoss does not know the class counts'):
        CUELoss(dict(type='CrossEntropyLoss'), 0, 1, {})(logits, labels)


# The file


def test_file_is_read_when_a_training_begins(tmp_path):
    file = tmp_path / 'neighbours.json'
    loss = loss_of(neighbours=str(file))
    loss.eval()  # a test does not need it
    with pytest.raises(InputError, match=r"neighbours\.json' does not exist: write it, or let mmlt neighbours"):
        loss.train()
    file.write_text(json.dumps(NEIGHBOURS))
    loss.train()
    logits, scores, labels = problem()
    assert torch.equal(loss(logits, labels, zero_shot=scores), loss_of()(logits, labels, zero_shot=scores))
    assert not loss.state_dict()
    file.write_bytes(json.dumps(NEIGHBOURS).encode('utf-16'))
    assert read_neighbours(str(file)) == NEIGHBOURS


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('{"apple": [', 'is not valid JSON'),
        ('["apple"]', 'holds no classes: it maps class names to lists of class names'),
        ('{"apple": "pear"}', "what 'apple' is given is no list of class names"),
        ('{"apple": [1]}', "what 'apple' is given is no list of class names"),
        ('{"apple": [], "apple": []}', "has the key 'apple' twice in one object: remove or rename one"),
    ],
)
def test_files_that_are_refused(tmp_path, text, sentence):
    file = tmp_path / 'neighbours.json'
    file.write_text(text)
    with pytest.raises(InputError, match=rf"'.*neighbours\.json'.*{sentence}") as error:
        read_neighbours(str(file))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('neighbours', 'sentence'),
    [
        ({'aple': []}, "have an entry for 'aple', which is no class of the dataset; the nearest name is 'apple'"),
        ({'fox': ['plums']}, "give 'fox' the neighbour 'plums', which is no class .*; the nearest name is 'plum'"),
        ({'fox': ['pear', 'fox']}, "give 'fox' itself as a neighbour: take it out"),
        ({'fox': ['pear', 'plum', 'pear']}, "give 'fox' the neighbour 'pear' twice: take one out"),
        ({'sweet pepper': [], 'sweet_pepper': []}, "have two entries for 'sweet_pepper'"),
        ({'qqqq': []}, "have an entry for 'qqqq', which is no class of the dataset"),  # nothing is near
        (
            {'fox': ['pear', 'lion', 'pear'], 'puma': ['plum'], 'plum': ['plum']},
            r"give 'fox' the neighbour 'lion', which is no class of the dataset \(the first of 4 mistakes\)",
        ),
    ],
)
def test_names_that_are_refused(neighbours, sentence):
    with pytest.raises(InputError, match=rf'^The neighbour classes {sentence}.*\.$') as error:
        neighbour_table(neighbours, CLASSES)
    assert ('mistakes' in str(error.value)) == ('mistakes' in sentence)


def test_underscores_and_two_classes_of_one_name():
    assert neighbour_table({'sweet_pepper': ['fox']}, CLASSES).tolist() == [[0], [1], [2], [4], [4]]
    # ImageNet's list has a name twice: it means both.
    table = neighbour_table({'crane': ['bird'], 'bird': ['crane']}, ('crane', 'bird', 'crane', 'car'))
    assert table.tolist() == [[2, 1], [0, 2], [0, 1], [3, 3]]
