"""Several runs of one model, a seed each, as one row of a table: counted from their predictions.

Notable:
* Right and clips are counts of one seed; mean and spread are over seeds. Seeds test the same clips, so more seeds do
  not make the interval narrower: Wilson's interval is that of the mean share with the clips of one seed, of which one
  that several folds test counts once (`kinegru.evaluation.pooled`).
* The spread is the standard deviation (n - 1). Over folds it is taken within a seed and averaged over seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kinegru.errors import DataError
from kinegru.evaluation.intervals import Interval, wilson_interval
from kinegru.evaluation.metrics import compute_metrics
from kinegru.evaluation.pooled import effective_clips
from kinegru.evaluation.predictions import Predictions


@dataclass(frozen=True)
class SeedScore:
    """One seed's test clips, all folds pooled."""

    seed: int
    right: int
    clips: int
    top1: float
    top5: float


@dataclass(frozen=True)
class RowScore:
    """One row of a table. Shares are in [0, 1]."""

    seeds: tuple[SeedScore, ...]
    top1: float  # mean over seeds
    top1_spread: float | None  # standard deviation over seeds; None for one seed
    fold_spread: float | None  # standard deviation over folds, mean over seeds; None without folds
    fold_mean: float | None  # mean of the folds' own top-1 and over seeds; None without folds
    folds: int  # of one seed
    top5: float | None  # mean over seeds; None where there are five classes or fewer
    wilson: Interval  # of the mean share, with the clips of one seed

    @property
    def clips(self) -> int:
        """Test clips of one seed (of the largest, where they differ)."""
        return max(seed.clips for seed in self.seeds)

    def right_in_words(self) -> str:
        """The counts, e.g. "84, 83 and 85 of 90"."""
        rights = [str(seed.right) for seed in self.seeds]
        if len({seed.clips for seed in self.seeds}) > 1:
            rights = [f"{seed.right} of {seed.clips}" for seed in self.seeds]
        words = " and ".join([", ".join(rights[:-1]), rights[-1]] if len(rights) > 1 else rights)
        return words if " of " in rights[0] else f"{words} of {self.clips}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def score_row(tables: Mapping[int, Predictions]) -> RowScore:
    """Pool one row's predictions, a table a seed.

    Raises:
        DataError: if there is no seed, or a table has no labelled clip.

    >>> table = Predictions(["run", "walk"], ["a", "b"], ["run", "run"], [None] * 2, [[0.9, 0.1], [0.2, 0.8]])
    >>> row = score_row({0: table, 1: table})
    >>> row.right_in_words(), row.top1, row.top1_spread, row.top5
    ('1 and 1 of 2', 0.5, 0.0, None)
    """
    if not tables:
        raise DataError("a row needs the predictions of at least one seed")
    measured = {seed: compute_metrics(table, bootstrap=1, worst=0) for seed, table in tables.items()}
    seeds = tuple(SeedScore(seed, m.right, m.clips, m.top1, m.top5) for seed, m in measured.items())
    folds = [[part.right / part.clips for part in m.folds] for m in measured.values() if len(m.folds) > 1]
    share = statistics.mean(s.right for s in seeds) / statistics.mean(s.clips for s in seeds)
    clips = statistics.mean(effective_clips(table.labelled().clips) for table in tables.values())
    first = next(iter(measured.values()))
    return RowScore(
        seeds=seeds,
        top1=statistics.mean(seed.top1 for seed in seeds),
        top1_spread=statistics.stdev(seed.top1 for seed in seeds) if len(seeds) > 1 else None,
        fold_spread=statistics.mean(map(statistics.stdev, folds)) if folds else None,
        fold_mean=statistics.mean(map(statistics.mean, folds)) if folds else None,
        folds=len(folds[0]) if folds else 1,
        top5=statistics.mean(seed.top5 for seed in seeds) if first.top5_of < len(first.classes) else None,
        wilson=wilson_interval(share * clips, clips),  # type: ignore[arg-type]  # means of counts
    )
