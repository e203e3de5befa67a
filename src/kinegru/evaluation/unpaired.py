"""Two protocols repeated several times: how far apart their accuracies are, where the test clips are not the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from kinegru.errors import DataError


@dataclass(frozen=True)
class Difference:
    """First minus second, in shares; `low` and `high` bound 95 %."""

    mean: float
    low: float
    high: float
    repeats: tuple[int, int]


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Welch's interval for the difference of two means, each over repeats (shares in 0 .. 1).

    The repeats deal the same clips anew, so the interval is about this data set, not about others. Where neither
    varies at all there is nothing to tell a spread by, and the interval is every difference, -1 .. 1. Raises DataError
    for fewer than two repeats of either.

    >>> found = difference([0.9, 0.88, 0.92], [0.7, 0.75, 0.72])
    >>> round(found.mean, 3), round(found.low, 2), round(found.high, 2)
    (0.177, 0.12, 0.23)
    """
    if min(len(first), len(second)) < 2:
        raise DataError("a difference with an interval needs two repeats of each at least")
    repeats = (len(first), len(second))
    mean = sum(first) / len(first) - sum(second) / len(second)
    if len(set(first)) == len(set(second)) == 1:
        return Difference(mean, -1.0, 1.0, repeats)
    low, high = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return Difference(mean, float(low), float(high), repeats)
