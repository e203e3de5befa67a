"""The difference of two protocols over repeats, against Welch's formula by hand."""

from __future__ import annotations

import math
import statistics

import pytest
from scipy import stats

from kinegru.errors import DataError
from kinegru.evaluation.unpaired import difference


def test_the_interval_is_welchs_by_hand() -> None:
    first, second = [0.81, 0.78, 0.85, 0.80], [0.70, 0.76, 0.71]
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (first, second), strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    mean = statistics.mean(first) - statistics.mean(second)
    found = difference(first, second)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))
    assert found.repeats == (4, 3)


def test_no_spread_tells_nothing_and_one_repeat_gives_no_interval() -> None:
    found = difference([0.5, 0.5], [0.25, 0.25])
    assert (found.mean, found.low, found.high) == (0.25, -1.0, 1.0)
    with pytest.raises(DataError, match="two repeats"):
        difference([0.5], [0.4, 0.3])
