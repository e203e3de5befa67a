"""Two models on the same test clips: is the difference more than chance? (McNemar, Psychometrika 1947, the exact form.)

Notable:
* Only clips on which exactly one of the two is right say anything; under "no difference" each of them is a fair coin.
* Several seeds test the same clips again and again. Adding up their counts would take one clip for many, and p would be
  far too small. So the seeds are joined clip by clip: d = seeds in which the first is right minus seeds in which the
  second is, and the signs of all d are flipped (exact, over all sign patterns). With one seed this is McNemar's test.
* Clips of one person or one recording fail together. `p_groups` flips the signs of whole groups: the honest p where
  groups are known, and a coarse one where they are few (9 groups: never below 0.004).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kinegru.errors import DataError
from kinegru.evaluation.predictions import Predictions


@dataclass(frozen=True)
class McNemar:
    """One run of each model on the clips that both tested."""

    clips: int  # tested by both
    first_only: int  # recognised by the first alone
    second_only: int  # recognised by the second alone
    p: float  # two-sided, exact binomial; 1 where no clip tells them apart


@dataclass(frozen=True)
class Comparison:
    """Two rows of a table over the same seeds."""

    seeds: tuple[McNemar, ...]  # one a pair of runs, in order
    clips: int  # distinct clips that both tested
    difference: float  # top-1 of the first minus top-1 of the second, on the clips that both tested
    p: float  # signs flipped clip by clip, all seeds joined
    p_groups: float | None  # signs flipped group by group; None where groups are not known
    groups: int  # how many

    @property
    def honest_p(self) -> float:
        """By groups where they are known, and never below that by clips."""
        return max(self.p, self.p_groups or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def mcnemar(first: Predictions, second: Predictions) -> McNemar:
    """The exact test on the labelled clips that stand in both tables.

    A clip tested in several folds is counted in each, but for p its folds are joined, as `compare` joins seeds.

    Raises:
        DataError: if no clip stands in both.

    >>> clips, labels = list("abcdefgh"), ["run"] * 8
    >>> right = Predictions(["run", "walk"], clips, labels, [None] * 8, [[0.9, 0.1]] * 8)
    >>> wrong = Predictions(["run", "walk"], clips, labels, [None] * 8, [[0.9, 0.1]] * 2 + [[0.1, 0.9]] * 6)
    >>> mcnemar(right, wrong)
    McNemar(clips=8, first_only=6, second_only=0, p=0.03125)
    """
    pairs = _pairs(first, second)
    by_clip: dict[str, int] = defaultdict(int)
    for (clip, _), (a, b, _) in pairs.items():
        by_clip[clip] += int(a) - int(b)
    one = sum(a and not b for a, b, _ in pairs.values())
    other = sum(b and not a for a, b, _ in pairs.values())
    return McNemar(len(pairs), one, other, sign_flip_p(by_clip.values()))


def compare(firsts: Sequence[Predictions], seconds: Sequence[Predictions]) -> Comparison:
    """Two rows, each with one table of predictions a seed, the same seeds in the same order.

    Raises:
        DataError: if the numbers of seeds differ, or no clip was tested by both.

    >>> clips, labels = list("abcdefgh"), ["run"] * 8
    >>> right = Predictions(["run", "walk"], clips, labels, list("ppqqrrss"), [[0.9, 0.1]] * 8)
    >>> wrong = Predictions(["run", "walk"], clips, labels, list("ppqqrrss"), [[0.9, 0.1]] * 2 + [[0.1, 0.9]] * 6)
    >>> both = compare([right, right], [wrong, wrong])
    >>> both.p, both.p_groups, both.difference  # two seeds that say the same say it once
    (0.03125, 0.25, 0.75)
    """
    if len(firsts) != len(seconds) or not firsts:
        raise DataError(f"{len(firsts)} and {len(seconds)} seeds cannot be compared in pairs")
    tests = tuple(mcnemar(first, second) for first, second in zip(firsts, seconds, strict=True))
    by_clip: dict[str, int] = defaultdict(int)
    by_group: dict[str | None, int] = defaultdict(int)
    tested = 0
    for first, second in zip(firsts, seconds, strict=True):
        for (clip, _), (a, b, group) in _pairs(first, second).items():
            by_clip[clip] += int(a) - int(b)
            by_group[group] += int(a) - int(b)
            tested += 1
    known = None not in by_group and len(by_group) > 1
    return Comparison(
        seeds=tests,
        clips=len(by_clip),
        difference=sum(by_clip.values()) / tested,
        p=sign_flip_p(by_clip.values()),
        p_groups=sign_flip_p(by_group.values()) if known else None,
        groups=len(by_group) if known else 0,
    )


def sign_flip_p(differences: Iterable[int]) -> float:
    """Two-sided p of a sum of whole numbers when each could as well have had the other sign; all patterns counted.

    >>> sign_flip_p([1, 1, 1, 1, 1, 1]), sign_flip_p([2, -1, 0]), sign_flip_p([0, 0])
    (0.03125, 1.0, 1.0)
    """
    values = [int(d) for d in differences if d]
    weights = np.ones(1)  # weights[i]: chance of the sum 2·i - reach of the values so far
    for value in values:
        flipped = np.zeros(len(weights) + abs(value))
        flipped[: len(weights)] += 0.5 * weights
        flipped[abs(value) :] += 0.5 * weights
        weights = flipped
    sums = 2 * np.arange(len(weights)) - sum(map(abs, values))
    return min(1.0, float(weights[np.abs(sums) >= abs(sum(values))].sum()))


def holm(values: Sequence[float]) -> list[float]:
    """p of several tests, corrected for their number: by chance alone any is below 0.05 in 5 % of tables at most.

    Holm, Scandinavian Journal of Statistics, 1979: the smallest times their number, the next times one less, ..., none
    below the one before. It holds whether the tests depend on one another or not.

    >>> [round(p, 6) for p in holm([0.04, 0.01, 0.03])], holm([])
    ([0.06, 0.03, 0.06], [])
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def _pairs(first: Predictions, second: Predictions) -> dict[tuple[str, str | None], tuple[bool, bool, str | None]]:
    """(clip, fold) -> whether the first and the second recognised it, and its group; clips of both tables only."""
    tables = [table.labelled() for table in (first, second)]
    a, b = ({(clip, fold): (bool(right), group) for clip, fold, right, group in _rows(table)} for table in tables)
    if not a.keys() & b.keys():
        raise DataError("two rows that have no test clip in common cannot be compared")
    return {key: (a[key][0], b[key][0], a[key][1]) for key in a if key in b}


def _rows(table: Predictions) -> Iterable[tuple[str, str | None, bool, str | None]]:
    return zip(table.clips, table.folds, table.correct, table.groups, strict=True)
