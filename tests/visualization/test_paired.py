"""Paired differences over seeds, against the formula written out and scipy's quantiles."""

import math

import numpy as np
import pytest

from mmlt import InputError
from mmlt.visualization.paired import (
    difference_markdown,
    difference_table,
    paired_differences,
    paired_interval,
    t_quantile,
)


def report(many, few):
    per_class = [
        {'class': 'a', 'train_images': 200, 'shot': 'many', 'accuracy': many},
        {'class': 'b', 'train_images': 5, 'shot': 'few', 'accuracy': few},
    ]
    return dict(protocol='standard', metrics=dict(many=many, few=few, all=(many + few) / 2), per_class=per_class)


def test_quantiles():
    stats = pytest.importorskip('scipy.stats')
    for degrees in (*range(1, 21), 25, 30, 40, 60, 120):
        assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=6e-4)
    for degrees in (22, 33, 99, 5000):  # never narrower than it is
        assert stats.t.ppf(0.975, degrees) <= t_quantile(degrees) < stats.t.ppf(0.975, degrees) * 1.02


def test_interval_by_hand():
    a, b = [80.0, 82.0, 81.0], [83.0, 84.0, 85.0]
    d = [3.0, 2.0, 4.0]
    mean = sum(d) / 3
    deviation = math.sqrt(sum((x - mean) ** 2 for x in d) / 2)
    assert paired_interval(a, b) == pytest.approx((3.0, 4.303 * deviation / math.sqrt(3)))
    assert paired_interval([1.0], [3.5]) == (2.5, None)
    with pytest.raises(InputError, match='There are 3 and 1 runs'):
        paired_interval(a, [1.0])


def test_interval_covers_what_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        a = rng.normal(size=4)
        mean, half = paired_interval(a, a + 1 + rng.normal(size=4))
        inside += abs(mean - 1) <= half
    assert 0.935 < inside / 2000 < 0.965


def test_tables():
    groups = {'CE': [report(90, 10), report(92, 12)], 'LIFT': [report(91, 30), report(93, 34)]}
    rows = paired_differences(groups)
    assert list(rows) == ['LIFT - CE'] and rows['LIFT - CE']['many'] == (1.0, 0.0)
    assert rows['LIFT - CE']['few'] == pytest.approx((21.0, 12.706 * math.sqrt(2) / math.sqrt(2)))
    lines = difference_markdown(rows).splitlines()
    assert lines[0].startswith('| difference | many | few |') and '| +1.0 ± 0.0 | +21.0 ± 12.7 |' in lines[2]
    assert difference_table(rows).row_count == 1
    assert paired_differences({'CE': groups['CE']}) == {}
