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


def test_no_spread_gives_a_point_and_one_repeat_no_interval() -> None:
    assert difference([0.5, 0.5], [0.25, 0.25]).low == difference([0.5, 0.5], [0.25, 0.25]).high == 0.25
    with pytest.raises(DataError, match="two repeats"):
        difference([0.5], [0.4, 0.3])
