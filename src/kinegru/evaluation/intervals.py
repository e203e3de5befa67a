"""How far a share of clips can be trusted: 95 % intervals.

Two for top-1. Wilson's takes the clips as independent. The bootstrap resamples whole groups where groups are known,
because clips of one person or one recording fail together; it is the honest one then.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a share, and what was taken as independent for it."""

    low: float  # in [0, 1]
    high: float  # in [0, 1]
    method: str  # wilson | bootstrap
    unit: str  # clip | group: what was taken as independent
    units: int  # how many of them


def wilson_interval(right: int, total: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson, JASA 1927): sound for few clips and for all or none right.

    >>> interval = wilson_interval(88, 90)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.9226, 0.9939)
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} of {total} is no share")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    low = 0.0 if right == 0 else max(0.0, centre - half)  # exact where rounding would leave 1e-17
    high = 1.0 if right == total else min(1.0, centre + half)
    return Interval(low, high, "wilson", "clip", total)


def bootstrap_intervals(
    correct: np.ndarray,
    truth: np.ndarray,
    groups: list[str] | list[str | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[Interval, Interval]:
    """Percentile bootstrap intervals of top-1 and of mean class accuracy (Efron and Tibshirani, 1993).

    Args:
        correct: bool (n,), whether each clip was recognised.
        truth: int (n,), its true class.
        groups: n names; whole groups are drawn with replacement. `None` draws clips.

    >>> correct, truth = np.array([True] * 8 + [False] * 2), np.array([0, 1] * 5)
    >>> top1, mean_class = bootstrap_intervals(correct, truth, list("aabbccddee"))
    >>> top1.unit, top1.units, top1.low <= 0.8 <= top1.high
    ('group', 5, True)
    """
    clips = len(correct)
    names = np.arange(clips) if groups is None else np.asarray(groups)
    unit_of = np.unique(names, return_inverse=True)[1].reshape(-1)  # (n,), the number of each clip's unit
    units, classes = int(unit_of.max()) + 1, int(truth.max()) + 1
    totals = np.zeros((units, classes))  # clips of each unit and class
    rights = np.zeros((units, classes))
    np.add.at(totals, (unit_of, truth), 1)
    np.add.at(rights, (unit_of, truth), correct)
    draws = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)  # (B, units)
    drawn, hit = draws @ totals, draws @ rights  # (B, classes)
    tested = drawn > 0
    top1 = hit.sum(axis=1) / drawn.sum(axis=1)  # (B,)
    mean_class = (hit / np.maximum(drawn, 1)).sum(axis=1) / tested.sum(axis=1)  # (B,)
    tails = [0.5 - confidence / 2, 0.5 + confidence / 2]
    unit = "clip" if groups is None else "group"
    low_high = [np.quantile(values, tails) for values in (top1, mean_class)]
    first, second = (Interval(float(low), float(high), "bootstrap", unit, units) for low, high in low_high)
    return first, second
