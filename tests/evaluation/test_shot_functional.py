"""Metric functions against loops that spell the definitions out."""

import math

import numpy as np
import pytest

from mmlt import InputError
from mmlt.evaluation import SHOT_PROTOCOLS, expected_calibration_error, shot_accuracy, shot_groups
from mmlt.evaluation.functional import get_protocol, per_class_accuracy

# Classes exactly at, just below and just above every bound.
BOUNDS = [500, 101, 100, 99, 50, 21, 20, 19, 1]
PROTOCOLS = ['standard', 'vl-ltr', 'lpt']


def shot_of(n: int, protocol: str) -> str:
    """The published definitions, word for word."""
    if protocol == 'standard':  # many > 100, medium 20..100, few < 20
        return 'many' if n > 100 else 'few' if n < 20 else 'medium'
    if protocol == 'vl-ltr':  # many >= 100, medium 21..99, few <= 20
        return 'many' if n >= 100 else 'few' if n <= 20 else 'medium'
    return 'many' if n > 100 else 'few' if n <= 20 else 'medium'  # lpt: many > 100, medium 21..100, few <= 20


def naive(labels, predictions, counts, protocol) -> dict:
    """All figures by loops over Python floats."""
    right, total = [0] * len(counts), [0] * len(counts)
    for y, p in zip(labels, predictions):
        total[y] += 1
        right[y] += y == p
    accuracy = [100 * r / t if t else math.nan for r, t in zip(right, total)]
    by_samples = protocol != 'standard'

    def mean(classes):
        if by_samples:
            return 100 * sum(right[c] for c in classes) / sum(total[c] for c in classes)
        return sum(accuracy[c] for c in classes) / len(classes)

    seen = [c for c in range(len(counts)) if total[c]]
    result = {'all': mean(seen)}
    for shot in ('many', 'medium', 'few'):
        if members := [c for c in seen if shot_of(counts[c], protocol) == shot]:
            result[shot] = mean(members)
    result['balanced'] = sum(accuracy[c] for c in seen) / len(seen)
    result['sample_accuracy'] = 100 * sum(right) / len(labels)
    result['worst_class'] = min(accuracy[c] for c in seen)
    result['harmonic_mean'] = len(seen) / sum(1 / accuracy[c] for c in seen) if all(accuracy[c] for c in seen) else 0.0
    result['per_class'] = accuracy
    return result


def assert_same(result: dict, expected: dict) -> None:
    assert list(result) == list(expected)
    for key in expected:
        np.testing.assert_allclose(result[key], expected[key], rtol=1e-12, err_msg=key)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_groups_at_the_bounds(protocol):
    groups = shot_groups(np.array(BOUNDS), get_protocol(protocol))
    assert [('many', 'medium', 'few')[g] for g in groups] == [shot_of(n, protocol) for n in BOUNDS]


def test_groups_by_hand():
    counts = [101, 100, 99, 21, 20, 19]
    assert shot_groups(counts, SHOT_PROTOCOLS['standard']).tolist() == [0, 1, 1, 1, 1, 2]
    assert shot_groups(counts, SHOT_PROTOCOLS['vl-ltr']).tolist() == [0, 0, 1, 1, 2, 2]
    assert shot_groups(counts, SHOT_PROTOCOLS['lpt']).tolist() == [0, 1, 1, 1, 2, 2]


def draw(seed: int, classes=None, size=600):
    """Labels of the given classes in unequal shares, right about two times in three."""
    rng = np.random.default_rng(seed)
    classes = np.array(classes or range(len(BOUNDS)))
    shares = rng.dirichlet(np.full(len(classes), 2.0))
    labels = np.concatenate([classes, rng.choice(classes, size, p=shares)])
    predictions = np.where(rng.random(len(labels)) < 0.65, labels, rng.integers(0, len(BOUNDS), len(labels)))
    predictions[: len(classes)] = labels[: len(classes)]  # no class at zero
    return labels, predictions


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('seed', range(5))
def test_against_loops(protocol, seed):
    labels, predictions = draw(seed)
    result = shot_accuracy(labels, predictions, BOUNDS, protocol)
    assert_same(result, naive(labels, predictions, BOUNDS, protocol))
    assert result['harmonic_mean'] <= result['balanced'] and result['worst_class'] > 0


def test_protocols_differ_and_standard_is_the_default():
    labels, predictions = draw(0)
    results = [shot_accuracy(labels, predictions, BOUNDS, p) for p in PROTOCOLS]
    for shot in ('many', 'medium', 'few'):
        assert len({round(r[shot], 9) for r in results}) >= 2
    assert len({round(r['all'], 9) for r in results}) == 2  # mean over classes or over samples
    assert len({r['balanced'] for r in results}) == 1
    assert shot_accuracy(labels, predictions, BOUNDS)['all'] == results[0]['all'] == results[0]['balanced']


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_class_without_test_samples_counts_for_nothing(protocol):
    labels, predictions = draw(1, classes=[0, 2, 3, 4, 5, 7])
    result = shot_accuracy(labels, predictions, BOUNDS, protocol)
    assert np.isnan(result['per_class']).nonzero()[0].tolist() == [1, 6, 8]
    assert_same(result, naive(labels, predictions, BOUNDS, protocol))


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_group_without_test_samples_is_left_out(protocol):
    labels, predictions = draw(2, classes=[0, 1, 3, 4])
    result = shot_accuracy(labels, predictions, BOUNDS, protocol)
    assert 'few' not in result and {'many', 'medium'} <= set(result)
    assert_same(result, naive(labels, predictions, BOUNDS, protocol))


def test_by_hand():
    # Class 0 (200 images): 3 of 4; class 1 (150): 1 of 1; class 2 (50): 1 of 2; class 3 (3): 1 of 5.
    labels = [0, 0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 3]
    predictions = [0, 0, 0, 2, 1, 2, 0, 3, 0, 0, 1, 2]
    result = shot_accuracy(labels, predictions, [200, 150, 50, 3], 'standard')
    assert result['many'] == pytest.approx((75 + 100) / 2)
    assert result['medium'] == pytest.approx(50)
    assert result['few'] == pytest.approx(20)
    assert result['all'] == result['balanced'] == pytest.approx((75 + 100 + 50 + 20) / 4)
    assert result['worst_class'] == pytest.approx(20)
    assert result['harmonic_mean'] == pytest.approx(4 / (1 / 75 + 1 / 100 + 1 / 50 + 1 / 20))
    by_samples = shot_accuracy(labels, predictions, [200, 150, 50, 3], 'lpt')
    assert by_samples['many'] == pytest.approx(100 * 4 / 5)
    assert by_samples['all'] == pytest.approx(100 * 6 / 12)
    assert by_samples['balanced'] == result['balanced']


def test_a_class_at_zero():
    result = shot_accuracy([0, 0, 1, 2], [0, 0, 0, 2], [200, 50, 3])
    assert result['harmonic_mean'] == 0.0
    assert result['worst_class'] == 0.0
    assert result['balanced'] == pytest.approx(200 / 3)


def test_all_right_and_all_wrong():
    labels = np.arange(6) % 3
    right = shot_accuracy(labels, labels, [200, 50, 3])
    wrong = shot_accuracy(labels, (labels + 1) % 3, [200, 50, 3])
    for key in ('all', 'many', 'medium', 'few', 'balanced', 'worst_class', 'harmonic_mean'):
        assert right[key] == pytest.approx(100)
        assert wrong[key] == 0


def test_predictions_of_classes_outside_the_split_are_wrong():
    accuracy = per_class_accuracy(np.array([0, 0, 1]), np.array([0, 7, 7]), 2)
    assert accuracy.tolist() == [50.0, 0.0]


def test_unknown_protocol_is_named_with_the_choices():
    with pytest.raises(InputError, match=r"no shot protocol 'oltr'; choose one of standard, vl-ltr, lpt, db\."):
        shot_accuracy([0], [0], [1], 'oltr')


# Calibration


def naive_calibration(confidence, correct, bins) -> float:
    """Guo et al. 2017: sum over bins ((m - 1) / M, m / M] of |B| / n * |acc(B) - conf(B)|."""
    error = 0.0
    for m in range(1, bins + 1):
        members = [i for i, c in enumerate(confidence) if (m - 1) / bins < c <= m / bins]
        if members:
            accuracy = sum(bool(correct[i]) for i in members) / len(members)
            mean = sum(float(confidence[i]) for i in members) / len(members)
            error += len(members) / len(confidence) * abs(accuracy - mean)
    return 100 * error


@pytest.mark.parametrize('bins', [1, 4, 15, 40])
@pytest.mark.parametrize('seed', range(4))
def test_calibration_against_a_loop(bins, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1.5, 500)
    correct = rng.random(500) < confidence**2
    expected = naive_calibration(confidence, correct, bins)
    assert expected > 1
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected, rel=1e-12)


def test_calibration_uses_15_bins_by_default():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(300), rng.random(300) < 0.5
    assert expected_calibration_error(confidence, correct) == pytest.approx(naive_calibration(confidence, correct, 15))
    assert naive_calibration(confidence, correct, 15) != pytest.approx(naive_calibration(confidence, correct, 10))


def test_calibration_by_hand():
    # Two bins: (0, 0.5] holds 0.4 (right) and 0.2 (wrong), (0.5, 1] holds 0.9 (wrong), 1.0 and 0.6 (right).
    confidence = np.array([0.4, 0.2, 0.9, 1.0, 0.6])
    correct = np.array([True, False, False, True, True])
    expected = 2 / 5 * abs(0.5 - 0.3) + 3 / 5 * abs(2 / 3 - 2.5 / 3)
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(100 * expected)


def test_calibration_at_the_edges_of_bins():
    # 0.25 belongs to (0, 0.25] and 0.5 to (0.25, 0.5]; together in one bin their gaps would cancel.
    confidence = np.array([0.25, 0.5, 0.75, 1.0])
    correct = np.array([False, True, False, True])
    assert expected_calibration_error(confidence, correct, bins=4) == pytest.approx(100 * (0.25 + 0.5 + 0.75 + 0) / 4)
    assert expected_calibration_error(np.array([0.25, 0.26]), np.array([True, False]), bins=4) == pytest.approx(
        100 * (0.75 + 0.26) / 2
    )


def test_calibration_of_extremes():
    assert expected_calibration_error(np.ones(3), np.ones(3, bool)) == 0
    assert expected_calibration_error(np.ones(3), np.zeros(3, bool)) == 100
    assert expected_calibration_error(np.zeros(3), np.zeros(3, bool)) == 0
    assert expected_calibration_error(np.zeros(2), np.ones(2, bool)) == 100
