"""What is done to scores after the training, against loops over Python floats and small cases by hand."""

import math

import numpy as np
import pytest
import torch

from mmlt import InputError
from mmlt.evaluation import expected_calibration_error
from mmlt.evaluation.posthoc import (
    SADE_RATIOS,
    adjust_logits,
    class_order,
    correct_prior,
    log_softmax,
    negative_log_likelihood_of,
    reliability,
    resample_test,
    shot_reliability,
    target_prior,
    tau_sweep,
    temperature_scaling,
)
from mmlt.models.losses.long_tail import LogitAdjustedLoss, logit_adjusted_loss

COUNTS = np.array([400, 60, 5, 120])


def scores(n=60, classes=4, seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = scale * rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += scale
    return logits, labels


def naive_probabilities(row):
    exps = [math.exp(v - max(row)) for v in row]
    return [e / sum(exps) for e in exps]


def naive_nll(logits, labels, temperature):
    return -sum(math.log(naive_probabilities(row / temperature)[y]) for row, y in zip(logits, labels)) / len(labels)


def test_adjustment_by_loops_and_by_hand():
    logits, _ = scores()
    adjusted = adjust_logits(logits, COUNTS, 0.7)
    total = sum(COUNTS.tolist())
    for row, own in zip(logits.tolist(), adjusted.tolist()):
        assert own == pytest.approx([z - 0.7 * math.log(n / total) for z, n in zip(row, COUNTS.tolist())], abs=1e-12)
    # Priors 0.9 and 0.1: log 9 = 2.197 in favour of the first class is what the second one gets back.
    assert adjust_logits(np.array([[2.1, 0.0], [2.3, 0.0]]), np.array([90, 10])).argmax(1).tolist() == [1, 0]
    assert np.array_equal(adjust_logits(logits, COUNTS, 0), logits)


def test_tau_one_is_the_prediction_of_a_model_trained_with_the_logit_adjusted_loss():
    """The loss of z is the cross-entropy of f = z + log pi; f adjusted is z, by which that model predicts."""
    z, labels = scores(seed=1)
    prior = COUNTS / COUNTS.sum()
    f = z + np.log(prior)
    ours = logit_adjusted_loss(torch.tensor(z), torch.tensor(labels), torch.tensor(COUNTS).double())
    cross_entropy = -log_softmax(f)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(ours.numpy(), cross_entropy, atol=1e-12)
    module = LogitAdjustedLoss(class_counts=COUNTS.tolist())(torch.tensor(z), torch.tensor(labels))
    assert float(module) == pytest.approx(cross_entropy.mean(), abs=1e-6)
    np.testing.assert_allclose(adjust_logits(f, COUNTS, 1), z, atol=1e-12)
    # The same as a correction from the training prior to the uniform one.
    uniform = correct_prior(log_softmax(f), prior, target_prior('uniform', COUNTS))
    np.testing.assert_allclose(uniform, log_softmax(z), atol=1e-12)
    assert (f.argmax(1) != z.argmax(1)).any()


def test_a_shift_of_all_classes_changes_nothing():
    logits, labels = scores(seed=2)
    shifted = logits + np.linspace(-50, 50, len(logits))[:, None]
    for f in (
        lambda z: adjust_logits(z, COUNTS, 1.3).argmax(1),
        lambda z: temperature_scaling(z, labels).value,
        lambda z: correct_prior(z, COUNTS, np.ones(4)),
        lambda z: reliability(z, labels)['ece'],
    ):
        np.testing.assert_allclose(f(shifted), f(logits), rtol=1e-7, atol=1e-9)


def test_sweep_by_loops():
    logits, labels = scores(n=40, seed=3, scale=1.0)
    labels[labels == 3] = 0  # no image of the last class
    taus = [0, 0.5, 1, 2]
    expected = []
    for tau in taus:
        right, total = [0] * 4, [0] * 4
        for row, y in zip(logits, labels):
            adjusted = [z - tau * math.log(n / COUNTS.sum()) for z, n in zip(row, COUNTS)]
            total[y] += 1
            right[y] += adjusted.index(max(adjusted)) == y
        expected.append(100 * sum(r / t for r, t in zip(right, total) if t) / 3)
    assert tau_sweep(logits, labels, COUNTS, taus) == pytest.approx(expected, abs=1e-10)
    assert len(set(expected)) > 1


@pytest.mark.parametrize('true', [0.2, 1.0, 7.0])
def test_temperature_is_the_best_of_a_fine_grid_and_undoes_a_factor(true):
    rng = np.random.default_rng(4)
    z = 1.5 * rng.normal(size=(500, 5))
    labels = np.array([rng.choice(5, p=naive_probabilities(row)) for row in z])
    fitted = temperature_scaling(z * true, labels)
    assert not fitted.at_bound and fitted.value == pytest.approx(true, rel=0.15)
    grid = fitted.value * np.exp(np.linspace(-0.5, 0.5, 101))
    values = [naive_nll(z * true, labels, t) for t in grid]
    assert int(np.argmin(values)) == 50
    assert negative_log_likelihood_of(z * true / fitted.value, labels) == pytest.approx(min(values), abs=1e-10)


def test_temperature_by_hand():
    """Three of four right with a gap of g: T puts the probability at 3/4, so g / T = log 3."""
    logits = np.array([[5.0, 0.0]] * 4)
    assert temperature_scaling(logits, np.array([0, 0, 0, 1])).value == pytest.approx(5 / math.log(3), rel=1e-9)


def test_temperature_tells_its_bounds():
    logits = np.array([[3.0, 0.0], [0.0, 2.0]])
    assert temperature_scaling(logits, np.array([0, 1])) == (0.01, True)
    assert temperature_scaling(logits, np.array([1, 0])) == (100.0, True)
    assert temperature_scaling(logits, np.array([0, 1]), (0.5, 2)) == (0.5, True)
    assert temperature_scaling(np.zeros((2, 3)), np.array([0, 1])) == (1.0, False)


def test_correction_of_the_prior_by_loops():
    logits, _ = scores(seed=5)
    log_probs, source, target = log_softmax(logits), np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    ours = np.exp(correct_prior(log_probs, source, target))
    for row, own in zip(np.exp(log_probs), ours):
        weighted = [p * t / s for p, t, s in zip(row, target, source)]
        assert own.tolist() == pytest.approx([w / sum(weighted) for w in weighted], abs=1e-12)
    # Bayes by hand: p = (0.8, 0.2) under priors (0.8, 0.2) tells nothing, so the target prior is left.
    flat = correct_prior(np.log([[0.8, 0.2]]), np.array([0.8, 0.2]), np.array([0.3, 0.7]))
    assert np.exp(flat)[0].tolist() == pytest.approx([0.3, 0.7])


@pytest.mark.parametrize('ratio', SADE_RATIOS)
def test_forward_and_backward_have_the_ratio_and_order_of_sade(ratio):
    rng = np.random.default_rng(6)
    counts = rng.permutation(np.geomspace(500, 5, 100).astype(int) + np.arange(100, 0, -1))
    forward, backward = (target_prior(kind, counts, ratio) for kind in ('forward', 'backward'))
    for prior in (forward, backward):
        assert prior.sum() == pytest.approx(1) and prior.max() / prior.min() == pytest.approx(ratio)
    by_size = np.argsort(-counts)
    assert (np.diff(forward[by_size]) < 0).all() and (np.diff(backward[by_size]) > 0).all()
    np.testing.assert_allclose(forward[by_size], backward[by_size][::-1])
    for i in (0, 1, 50, 99):
        assert forward[by_size][i] / forward.max() == pytest.approx(ratio ** (-i / 99))


@pytest.mark.parametrize('kind', ['forward', 'backward'])
def test_resampled_test_set_has_the_profile(kind):
    """100 images of each of 100 classes, as CIFAR-100's test set: int(100 * ratio ** (-i / 99)) are kept."""
    labels = np.random.default_rng(7).permutation(np.repeat(np.arange(100), 100))
    counts = np.arange(1000, 0, -10)
    chosen = resample_test(labels, class_order(kind, counts), 50, seed=0)
    expected = [int(100 * 0.02 ** (i / 99)) for i in range(100)]
    assert expected[0] == 100 and expected[-1] == 2
    assert np.bincount(labels[chosen]).tolist() == (expected if kind == 'forward' else expected[::-1])
    assert len(set(chosen.tolist())) == len(chosen) and (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, resample_test(labels, class_order(kind, counts), 50, seed=0))
    assert not np.array_equal(chosen, resample_test(labels, class_order(kind, counts), 50, seed=1))


def test_resampling_takes_what_every_class_can_supply():
    labels = np.repeat([0, 1, 2], [10, 40, 8])  # ranks 1, 1/2, 1/4: the first class limits
    assert np.bincount(labels[resample_test(labels, [0, 1, 2], 4, 0)]).tolist() == [10, 5, 2]
    assert np.bincount(labels[resample_test(labels, [1, 2, 0], 4, 0)]).tolist() == [4, 16, 8]
    assert np.bincount(labels[resample_test(labels, [0, 1, 2], 1, 0)]).tolist() == [8, 8, 8]


def test_reliability_by_loops():
    logits, labels = scores(n=200, seed=8, scale=1.0)
    log_probs = log_softmax(logits)
    found = reliability(log_probs, labels, 10)
    bins = [[] for _ in range(10)]
    for row, y in zip(logits, labels):
        p = naive_probabilities(row)
        k = next(k for k in range(10) if max(p) <= (k + 1) / 10)
        bins[k].append((max(p), p.index(max(p)) == y))
    assert found['count'].tolist() == [len(own) for own in bins]
    gap = 0
    for k, own in enumerate(bins):
        if not own:
            assert np.isnan(found['confidence'][k]) and np.isnan(found['accuracy'][k])
            continue
        confidence, accuracy = (sum(column) / len(own) for column in zip(*own))
        assert (found['confidence'][k], found['accuracy'][k]) == pytest.approx((confidence, accuracy), abs=1e-12)
        gap += len(own) / 200 * abs(confidence - accuracy)
    assert found['ece'] == pytest.approx(100 * gap, abs=1e-10)
    own = expected_calibration_error(np.exp(log_probs.max(1)), log_probs.argmax(1) == labels)
    assert reliability(logits, labels)['ece'] == pytest.approx(own, abs=1e-10)


def test_reliability_by_group():
    logits, labels = scores(n=100, seed=9)
    found = shot_reliability(logits, labels, COUNTS)
    assert list(found) == ['all', 'many', 'medium', 'few']
    of_many = np.isin(labels, [0, 3])  # 400 and 120 training images
    assert found['many']['ece'] == reliability(logits[of_many], labels[of_many])['ece']
    assert sum(found[k]['count'].sum() for k in ('many', 'medium', 'few')) == found['all']['count'].sum() == 100
    assert list(shot_reliability(logits[of_many], labels[of_many], COUNTS)) == ['all', 'many']


def test_bad_input_is_told():
    logits, labels = scores(n=4)
    with pytest.raises(InputError, match='Class 2 has 0 training images, of which there is no logarithm'):
        adjust_logits(logits, np.array([3, 2, 0, 1]))
    with pytest.raises(InputError, match='Class 1 has 0 as its target prior'):
        correct_prior(logits, np.ones(4), np.array([1, 0, 1, 1]))
    with pytest.raises(InputError, match='Class 0 has nan as its source prior'):
        correct_prior(logits, np.array([np.nan, 1, 1, 1]), np.ones(4))
    with pytest.raises(InputError, match="There is no target prior 'sideways'; choose one of uniform, forward"):
        target_prior('sideways', COUNTS, 2)
    with pytest.raises(InputError, match=r'ratio of a target prior is 0\.5; .* at least 1'):
        target_prior('forward', COUNTS, 0.5)
    with pytest.raises(InputError, match='ratio 50 would have no image of class 2, .* of at most 1'):
        resample_test(np.array([0, 1, 2]), [0, 1, 2], 50, 0)
