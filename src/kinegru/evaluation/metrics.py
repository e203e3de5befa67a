"""Every measure of a result, from the table of predictions and nothing else.

Notable:
* Clips are counted. Batch or fold accuracies are never averaged: folds are pooled first (`Predictions.concatenate`).
* Top-1 has two intervals (intervals.py), and confidence is held against accuracy (reliability.py).
* Nothing is NaN. What has no value is 0 beside a count of 0: recall of a class without test clips (`support` 0),
  precision of a class never predicted (`predicted` 0). Mean class accuracy is over the classes that were tested.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kinegru.errors import DataError
from kinegru.evaluation.intervals import Interval, bootstrap_intervals, wilson_interval
from kinegru.evaluation.predictions import Predictions
from kinegru.evaluation.reliability import ReliabilityBin, reliability


@dataclass(frozen=True)
class ClassScore:
    """How one class fared. `precision` is 0 if `predicted` is 0, `recall` and `f1` are 0 if `support` is 0."""

    label: str
    precision: float  # of the clips called so, the share that were so
    recall: float  # of the clips that were so, the share called so: the class's accuracy
    f1: float
    support: int  # test clips of the class
    predicted: int  # test clips called so


@dataclass(frozen=True)
class Confusion:
    """A class taken for another."""

    true: str
    predicted: str
    count: int
    share: float  # of the true class's clips


@dataclass(frozen=True)
class ClipScore:
    """One clip worth looking at."""

    clip: str
    label: str
    predicted: str
    confidence: float  # score of the predicted class
    label_score: float  # score of the true class
    correct: bool
    group: str | None = None


@dataclass(frozen=True)
class PartScore:
    """The clips of one group or one fold: how many, how many right."""

    name: str
    clips: int
    right: int


@dataclass(frozen=True)
class Metrics:
    """All measures of one table of predictions. Shares are in [0, 1], log loss in nats."""

    classes: list[str]
    clips: int  # labelled predictions: what everything below counts
    distinct_clips: int  # fewer than `clips` where overlapping folds were pooled
    unlabelled: int  # predictions left out because their label is not known
    right: int
    top1: float
    top5: float  # the true class is among the `top5_of` best
    top5_of: int  # min(5, K)
    mean_class_accuracy: float  # over the classes that were tested
    majority: float  # top-1 of always answering the most frequent test class
    wilson: Interval  # of top-1
    bootstrap: Interval  # of top-1
    mean_class_bootstrap: Interval  # of mean class accuracy, the same resamples
    per_class: list[ClassScore]  # K, in the classes' order
    confusion_matrix: list[list[int]]  # (K, K), rows true, columns predicted
    confusions: list[Confusion]  # most frequent first
    calibration_error: float  # expected calibration error, 15 bins
    mean_confidence: float
    reliability: list[ReliabilityBin]  # the bins that hold a clip
    log_loss: float  # mean -ln(score of the true class), scores taken as at least 1e-12
    worst: list[ClipScore]  # wrong ones, surest first; then right ones, least sure first
    groups: list[PartScore]  # lowest accuracy first; empty unless all clips have a group
    folds: list[PartScore]  # in the order of the table; empty unless all clips have a fold

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, for JSON.

        >>> table = Predictions(["run", "walk"], ["a"], ["run"], [None], [[0.9, 0.1]])
        >>> compute_metrics(table).to_dict()["wilson"]["method"]
        'wilson'
        """
        return asdict(self)


def compute_metrics(predictions: Predictions, seed: int = 0, bootstrap: int = 1000, worst: int = 12) -> Metrics:
    """Measure the labelled rows of a table of predictions.

    Args:
        predictions: any number of clips; those without a label are counted as such and left out.
        seed: of the bootstrap.
        bootstrap: how many resamples.
        worst: how many clips to name in `Metrics.worst`.

    Raises:
        DataError: if no clip has a label.

    >>> table = Predictions(["run", "walk"], list("abc"), ["run", "run", "walk"], [None] * 3,
    ...                     [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    >>> measured = compute_metrics(table)
    >>> measured.right, measured.clips, measured.mean_class_accuracy, measured.confusion_matrix
    (2, 3, 0.75, [[1, 1], [0, 1]])
    """
    table = predictions.labelled()
    if not len(table):
        raise DataError(f"none of the {len(predictions)} predicted clips has a label: there is nothing to measure")
    from sklearn.metrics import precision_recall_fscore_support

    clips, classes = len(table), len(table.classes)
    truth, predicted, correct = table.truth(), table.top1(), table.correct
    scores = table.scores.astype(np.float64)  # (n, K)
    confidence, true_score = scores.max(axis=1), scores[np.arange(clips), truth]  # (n,), (n,)
    top5_of = min(5, classes)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top5_of]  # (n, top5_of), the first of equals first
    index = list(range(classes))
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (truth, predicted), 1)  # (K, K), rows true
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, labels=index, zero_division=0)
    tested = support > 0
    grouped = all(table.groups) and len(set(table.groups)) > 1
    units = table.groups if grouped else None
    of_top1, of_mean_class = bootstrap_intervals(correct, truth, units, resamples=bootstrap, seed=seed)
    bins, error = reliability(confidence, correct)
    return Metrics(
        classes=list(table.classes),
        clips=clips,
        distinct_clips=len(set(table.clips)),
        unlabelled=len(predictions) - clips,
        right=int(correct.sum()),
        top1=float(correct.mean()),
        top5=float((best == truth[:, None]).any(axis=1).mean()),
        top5_of=top5_of,
        mean_class_accuracy=float(recall[tested].mean()),
        majority=float(support.max() / clips),
        wilson=wilson_interval(int(correct.sum()), clips),
        bootstrap=of_top1,
        mean_class_bootstrap=of_mean_class,
        per_class=[
            ClassScore(
                name, float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]), int(matrix[:, k].sum())
            )
            for k, name in enumerate(table.classes)
        ],
        confusion_matrix=matrix.tolist(),
        confusions=_confusions(matrix, table.classes),
        calibration_error=error,
        mean_confidence=float(confidence.mean()),
        reliability=bins,
        log_loss=float(np.log(1 / np.maximum(true_score, 1e-12)).mean()),
        worst=_worst(table, confidence, true_score, worst),
        groups=sorted(
            _parts(table.groups, correct), key=lambda part: (part.right / part.clips, -part.clips, part.name)
        ),
        folds=_parts(table.folds, correct),
    )


def _confusions(matrix: np.ndarray, classes: list[str]) -> list[Confusion]:
    """Every cell off the diagonal that holds a clip, most frequent first."""
    wrong = [(true, other) for true, other in np.argwhere(matrix).tolist() if true != other]
    wrong.sort(key=lambda cell: (-matrix[cell], cell))
    totals = matrix.sum(axis=1)
    return [Confusion(classes[t], classes[p], int(matrix[t, p]), float(matrix[t, p] / totals[t])) for t, p in wrong]


def _worst(table: Predictions, confidence: np.ndarray, true_score: np.ndarray, limit: int) -> list[ClipScore]:
    """Wrong clips, surest first, then right ones, least sure first."""
    predicted, correct = table.top1(), table.correct
    order = sorted(
        range(len(table)), key=lambda row: (correct[row], confidence[row] if correct[row] else -confidence[row])
    )
    return [
        ClipScore(
            clip=table.clips[row],
            label=str(table.labels[row]),
            predicted=table.classes[predicted[row]],
            confidence=float(confidence[row]),
            label_score=float(true_score[row]),
            correct=bool(correct[row]),
            group=table.groups[row],
        )
        for row in order[:limit]
    ]


def _parts(names: list[str | None], correct: np.ndarray) -> list[PartScore]:
    """Clips and right clips by name, in order of first appearance; nothing unless every clip has a name."""
    if not all(names):
        return []
    total = Counter(names)
    right = Counter(name for name, hit in zip(names, correct, strict=True) if hit)
    return [PartScore(str(name), total[name], right[name]) for name in total]
