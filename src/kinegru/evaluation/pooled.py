"""Tests of several models as one table, where a clip may have been tested more than once.

309 of HMDB51's clips stand in several test sets: several models are tested on them, but each is one clip. Wilson's
interval is then that of the effective number of clips.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from kinegru.evaluation.intervals import wilson_interval
from kinegru.evaluation.metrics import Metrics, compute_metrics
from kinegru.evaluation.predictions import Predictions


def pooled_metrics(predictions: Predictions, seed: int = 0) -> Metrics:
    """All measures of the pooled table, with Wilson's interval for clips that were tested more than once.

    The outcomes of one clip under several models are taken as one observation; the group bootstrap does that anyway,
    because a clip's rows are of one group.

    >>> scores = [[0.9, 0.1]] * 4
    >>> table = Predictions(["run", "walk"], ["a", "b", "c", "a"], ["run", "run", "walk", "run"], [None] * 4, scores)
    >>> measured = pooled_metrics(table)
    >>> measured.right, measured.clips, measured.wilson.units
    (3, 4, 3)
    """
    measured = compute_metrics(predictions, seed=seed)
    if measured.distinct_clips == measured.clips:
        return measured
    clips = effective_clips(predictions.labelled().clips)
    interval = wilson_interval(measured.top1 * clips, clips)  # type: ignore[arg-type]  # no whole numbers
    return dataclasses.replace(measured, wilson=dataclasses.replace(interval, units=round(clips)))


def effective_clips(clips: Sequence[str]) -> float:
    """How many clips, each tested once, say as much as these tests do: (sum of counts)² / sum of squares.

    Kish, Survey Sampling, 1965. It is their number where none repeats, and no more than the number of distinct ones.

    >>> effective_clips(["a", "b", "c"]), effective_clips(["a", "a", "b"])
    (3.0, 1.8)
    """
    return len(clips) ** 2 / sum(count * count for count in Counter(clips).values())
