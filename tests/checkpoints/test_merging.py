"""Merging of weights against sums that are written down in float64, and what is refused."""

import itertools
import re

import pytest
import torch

from mmlt import InputError
from mmlt.checkpoints.merging import (
    average,
    averaged_statistics,
    check_mergeable,
    greedy,
    interpolate,
    lt_soups,
    recursion_weights,
)
from mmlt.checkpoints.split_state import merge_state_dict


def make_state(seed, steps=3, dtype=torch.float32) -> dict:
    g = torch.Generator().manual_seed(seed)
    return {
        'backbone.conv.weight': torch.randn(4, 3, 3, 3, generator=g).to(dtype),
        'backbone.bn.running_mean': torch.randn(4, generator=g),
        'backbone.bn.running_var': torch.rand(4, generator=g),
        'backbone.bn.num_batches_tracked': torch.tensor(steps),
        'head.fc.weight': torch.randn(5, 4, generator=g),
        'head.class_tokens': torch.arange(6).view(2, 3),
    }


@pytest.fixture
def states() -> dict:
    return {name: make_state(i) for i, name in enumerate('abc')}


def naive(states, weights) -> dict:
    """Sum of w_i x_i, number by number, in Python's float64."""
    total = sum(weights)
    out = {}
    for name, first in states[0].items():
        columns = [state[name].double().flatten().tolist() for state in states]
        sums = [sum(w / total * x for w, x in zip(weights, column)) for column in zip(*columns)]
        out[name] = torch.tensor(sums, dtype=torch.float64).view(first.shape)
    return out


def check_equal(merged, expected, atol=6e-8):
    assert merged.keys() == expected.keys()
    for name, value in merged.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-7, atol=atol)


@pytest.mark.parametrize('weights', [None, [1, 1, 1], [0.2, 0.5, 0.3], [3, 0, 1]])
def test_average_is_the_naive_one(states, weights):
    merged = average(states, weights)
    check_equal(merged.state, naive(list(states.values()), weights or [1, 1, 1]))
    for name, value in merged.state.items():
        assert value.dtype == states['a'][name].dtype and value.shape == states['a'][name].shape


def test_sums_are_in_double_precision():
    """In half precision the small terms would vanish beside the large ones."""
    states = {str(i): {'w': torch.tensor([x], dtype=torch.float16)} for i, x in enumerate([2048, *[1] * 7])}
    assert average(states).state['w'].tolist() == [257.0]  # 2055 / 8, rounded once
    assert average(states).state['w'].dtype == torch.float16


def test_highest_precision_stays():
    """Weights in half precision, given first, round no others: 70000 would be infinite."""
    half, single = {'w': torch.tensor([1.0, 0.5]).half()}, {'w': torch.tensor([1 + 2**-20, 70000.0])}
    for states in ({'a': half, 'b': single}, {'b': single, 'a': half}):
        assert average(states).state['w'].tolist() == [1 + 2**-21, 35000.25]
    tuned = interpolate(half, single, 1).state['w']
    assert tuned.dtype == torch.float32 and torch.equal(tuned, single['w'])
    assert interpolate(half, single, 0).state['w'].dtype == torch.float16


def test_order_does_not_matter(states):
    weights = dict(a=0.2, b=0.5, c=0.3)
    first, weighted = average(states).state, average(states, list(weights.values())).state
    for names in itertools.permutations('abc'):
        shuffled = {name: states[name] for name in names}
        for one, other in (
            (first, average(shuffled).state),
            (weighted, average(shuffled, [weights[name] for name in names]).state),
        ):
            assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize('alpha, whose', [(0, 'a'), (1, 'b'), (0.0, 'a'), (1.0, 'b')])
def test_ends_of_the_interpolation_are_bit_equal(states, alpha, whose):
    states['a']['head.fc.weight'][0, 0] = -0.0  # 0 * x + -0.0 would be 0.0
    states['b']['head.fc.weight'][0, 0] = -0.0
    merged = interpolate(states['a'], states['b'], alpha).state
    for name, value in merged.items():
        assert value.numpy().tobytes() == states[whose][name].numpy().tobytes(), name


@pytest.mark.parametrize('alpha', [0.1, 0.5, 0.9])
def test_interpolation(states, alpha):
    merged = interpolate(states['a'], states['b'], alpha).state
    check_equal(merged, naive([states['a'], states['b']], [1 - alpha, alpha]))


def test_what_all_have_stays_bit_equal(states):
    for state in states.values():
        state['backbone.conv.weight'] = states['a']['backbone.conv.weight'].clone()
    merged = average(states, [0.3, 0.3, 0.4]).state
    assert torch.equal(merged['backbone.conv.weight'], states['a']['backbone.conv.weight'])


def test_inputs_stay_and_are_not_shared(states):
    before = {n: {k: v.clone() for k, v in s.items()} for n, s in states.items()}
    for merged in (average(states).state, interpolate(states['a'], states['b'], 0).state):
        for value in merged.values():
            value.zero_()
    assert all(torch.equal(before[n][k], v) for n, s in states.items() for k, v in s.items())


def test_counters_are_the_first_ones_and_statistics_are_told():
    states = {'a.pth': make_state(0, steps=3), 'b.pth': make_state(1, steps=5)}
    merged = average(states)
    assert merged.state['backbone.bn.num_batches_tracked'] == 3
    notes = '\n'.join(merged.notes)
    assert "1 counter differs and is that of 'a.pth': backbone.bn.num_batches_tracked" in notes
    assert merged.averaged_statistics == ['backbone.bn']
    assert re.match(
        '1 layer has BatchNorm statistics that are averaged .*--bn-images of mmlt', *merged.statistics_note()
    )
    alike = average({'a': make_state(0), 'b': make_state(0)})
    assert not alike.notes and not alike.averaged_statistics and not alike.statistics_note()
    one = average(states, [0, 1])  # what is one of the inputs has its own
    assert not one.notes and not one.averaged_statistics


def test_layers_whose_statistics_differ():
    states = {name: make_state(i) for i, name in enumerate('ab')}
    for state in states.values():
        state['neck.bn.running_mean'] = torch.ones(2)
        state['neck.bn.running_var'] = torch.ones(2)
    assert averaged_statistics(states) == ['backbone.bn']
    states['b']['neck.bn.running_var'][1] = 2
    assert averaged_statistics(states) == ['backbone.bn', 'neck.bn']
    assert averaged_statistics({'a': states['a']}) == []
    states['b'] = {'other': torch.ones(1)}  # which no merging takes
    assert averaged_statistics(states) == []


def test_names_of_several_processes_are_those_of_one(states):
    """DataParallel and DistributedDataParallel put `module.` before every name."""
    wrapped = {'a': {f'module.{key}': value for key, value in states['a'].items()}, 'b': states['b']}
    merged, expected = average(wrapped).state, average({name: states[name] for name in 'ab'}).state
    assert merged.keys() == expected.keys() and all(torch.equal(v, expected[k]) for k, v in merged.items())


def test_weights_of_more_are_merged_first():
    g = torch.Generator().manual_seed(7)
    split = {
        'fc.parametrizations.weight.original': torch.randn(4, 6, generator=g),
        'fc.parametrizations.weight.0.A': torch.randn(2, 6, generator=g),
        'fc.parametrizations.weight.0.B': torch.randn(4, 2, generator=g),
    }
    plain = {'fc.weight': torch.randn(4, 6, generator=g)}
    merged = average({'split': split, 'plain': plain}).state
    whole = merge_state_dict(split)['fc.weight'].double()
    assert list(merged) == ['fc.weight']
    torch.testing.assert_close(merged['fc.weight'].double(), (whole + plain['fc.weight'].double()) / 2)


@pytest.mark.parametrize('ratio', [0.3, 0.5, 0.7, 1.0])
def test_recursion_is_the_naive_one(states, ratio):
    """W_i = (1 - ratio) W_{i-1} + ratio w_i, w_i the mean of the branches of subset i."""
    anchor = make_state(9)
    groups = [{'0': states['a'], '1': states['b']}, {'2': states['c']}, {'3': make_state(5)}]
    merged = lt_soups(anchor, groups, ratio).state
    running = {k: v.double() for k, v in anchor.items()}
    for group in groups:
        mean = naive(list(group.values()), [1] * len(group))
        running = {k: (1 - ratio) * v + ratio * mean[k] for k, v in running.items()}
    check_equal(merged, running)
    weights = recursion_weights([2, 1, 1], ratio)
    assert sum(weights) == pytest.approx(1) and len(weights) == 5
    assert weights == pytest.approx([(1 - ratio) ** 3, *[ratio * (1 - ratio) ** 2 / 2] * 2, ratio * (1 - ratio), ratio])


def test_recursion_with_ratio_1_is_the_last_subset(states):
    merged = lt_soups(make_state(9), [{'0': states['a']}, {'1': states['b']}], 1.0).state
    assert all(torch.equal(v, states['b'][k]) for k, v in merged.items() if v.is_floating_point())


# Greedy


def test_greedy_follows_recipe_1(states):
    """By hand: the best is c; b hurts; a does not, so it comes in though it was the worst of them."""
    known = {('c',): 80.0, ('b',): 75.0, ('a',): 70.0, ('c', 'b'): 79.0, ('c', 'a'): 80.0}
    asked = []

    def score(state):
        found = next(
            names
            for names in known
            if all(torch.equal(state[k], v) for k, v in average({n: states[n] for n in names}).state.items())
        )
        asked.append(found)
        return known[found]

    soup = greedy(states, score)
    assert soup.chosen == ['c', 'a'] and soup.score == 80.0
    assert soup.singles == dict(a=70.0, b=75.0, c=80.0)
    assert asked == [('a',), ('b',), ('c',), ('c', 'b'), ('c', 'a')]
    check_equal(soup.merged.state, naive([states['c'], states['a']], [1, 1]))
    assert soup.steps == [('c', 80.0, True), ('b', 79.0, False), ('a', 80.0, True)]


@pytest.mark.parametrize('seed', range(20))
def test_greedy_is_never_below_the_best_single(seed):
    states = {str(i): make_state(i) for i in range(4)}
    target = make_state(100 + seed)

    def score(state):
        return -sum(float((state[k] - v).square().sum()) for k, v in target.items() if v.is_floating_point())

    soup = greedy(states, score)
    assert soup.score >= max(score(state) for state in states.values())
    assert soup.score == score(soup.merged.state)


# Refusals


def without(state, name):
    return {k: v for k, v in state.items() if k != name}


@pytest.mark.parametrize(
    'edit, sentence',
    [
        (
            lambda s: without(s, 'head.fc.weight'),
            "'b.pth' lacks 1 weights of 'a.pth', the first is 'head.fc.weight': merge models of one",
        ),
        (
            lambda s: {**s, 'neck.w': torch.ones(1)},
            "'b.pth' has 1 weights more than 'a.pth', the first is 'neck.w': merge models of one arch",
        ),
        (
            lambda s: {**s, 'head.fc.weight': torch.ones(7, 4)},
            r"'b.pth' has head.fc.weight of shape \(7, 4\), but 'a.pth' has \(5, 4\): merge models of one",
        ),
        (
            lambda s: {**s, 'head.class_tokens': s['head.class_tokens'] + 1},
            "'head.class_tokens' of 'b.pth' is not that of 'a.pth'",
        ),
        (
            lambda s: {**s, 'head.fc.weight': s['head.fc.weight'] * float('nan')},
            "'b.pth' has NaN or infinite numbers in 'head.fc.weight'",
        ),
        (lambda s: {**s, 'head.fc.weight': 'text'}, "'head.fc.weight' of 'b.pth' is no tensor"),
        (
            lambda s: {**s, 'head.class_tokens': s['head.class_tokens'].float()},
            "'head.class_tokens' is torch.float32 in 'b.pth' and torch.int64 in 'a.pth'",
        ),
        (lambda s: {}, "'b.pth' holds no weights"),
    ],
)
def test_states_that_do_not_belong_together(edit, sentence):
    with pytest.raises(InputError, match=sentence):
        average({'a.pth': make_state(0), 'b.pth': edit(make_state(1))})


def test_tables_of_anchors_are_never_averaged():
    states = {n: {**make_state(i), 'head.anchor_features': torch.full((2, 3), float(i))} for i, n in enumerate('ab')}
    with pytest.raises(InputError, match="'head.anchor_features' of 'b' is not that of 'a'"):
        average(states)
    states['b']['head.anchor_features'] = states['a']['head.anchor_features'].clone()
    assert torch.equal(average(states).state['head.anchor_features'], torch.zeros(2, 3))


@pytest.mark.parametrize(
    'weights, sentence',
    [
        ([1, 2], '2 weights were given for 3 checkpoints'),
        ([1, 2, -1], r'The weight -1 of .c. is not'),
        ([1, 2, float('nan')], 'The weight nan of .c. is not'),
        ([0, 0, 0], 'All weights are 0'),
    ],
)
def test_weights_that_cannot_be(states, weights, sentence):
    with pytest.raises(InputError, match=sentence):
        average(states, weights)


@pytest.mark.parametrize('alpha', [-0.1, 1.1, float('nan')])
def test_alpha_outside(states, alpha):
    with pytest.raises(InputError, match='alpha is .*; give a number from 0 to 1'):
        interpolate(states['a'], states['b'], alpha)


@pytest.mark.parametrize('ratio', [-0.1, 0, 1.1])
def test_ratio_outside(states, ratio):
    with pytest.raises(InputError, match='ratio is .*; give a number above 0, at most 1'):
        lt_soups(states['a'], [{'1': states['b']}], ratio)


def test_nothing_to_merge(states):
    with pytest.raises(InputError, match='There is nothing to merge'):
        average({})
    with pytest.raises(InputError, match='There is nothing to merge'):
        lt_soups(states['a'], [], 0.5)


def content(classes='xyz', model="dict(type='M', head=dict(type='H', scale=25))") -> dict:
    return dict(meta=dict(dataset_meta=dict(classes=tuple(classes)), cfg=f'model = {model}'), state_dict=make_state(0))


@pytest.mark.parametrize(
    'other, sentence',
    [
        (content('xzy'), "'b.pth' and 'a.pth' have other classes|class"),
        (
            content(model="dict(type='M', head=dict(type='H', scale=30))"),
            "'b.pth' is of another model than 'a.pth': model.head.scale was 25 and is now 30|head.scale",
        ),
        (content(model="dict(type='N', head=dict(type='H', scale=25))"), 'model.type'),
    ],
)
def test_checkpoints_of_other_classes_or_models(other, sentence):
    with pytest.raises(InputError, match=sentence):
        check_mergeable({'a.pth': content(), 'b.pth': other})


def test_what_is_of_the_training_only_may_differ():
    first = content(model="dict(type='M', b=dict(type='B', pretrained='openai'), head=dict(type='H', scale=25))")
    other = content(
        model="dict(type='mmlt.MORE', classifier=dict(type='M', b=dict(type='B', pretrained=None, frozen=True),"
        " neck=None, head=dict(type='H', scale=25, loss=dict(type='L'))))"
    )
    assert check_mergeable({'a.pth': first, 'b.pth': other}) == []
    other['meta'].pop('cfg')
    assert "'b.pth' carries no config" in check_mergeable({'a.pth': first, 'b.pth': other})[0]


def test_what_cannot_be_compared_is_told():
    other = content()
    other['meta'].pop('dataset_meta')
    (note,) = check_mergeable({'a.pth': content(), 'b.pth': other})
    assert note.startswith("'b.pth' carries no class names: whether its classes are in the same order")
