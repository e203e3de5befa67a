"""Is a model right as often as it is sure? Confidence against accuracy, and the gap between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15  # of confidence, equally wide, for the calibration error (Guo et al., ICML 2017)


@dataclass(frozen=True)
class ReliabilityBin:
    """The clips whose confidence lies in (low, high]: how sure the model was, how often it was right."""

    low: float
    high: float
    count: int
    confidence: float  # mean score of the best class
    accuracy: float  # share of clips right


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> tuple[list[ReliabilityBin], float]:
    """The reliability table and the expected calibration error: mean gap of confidence and accuracy, weighted by clips.

    Args:
        confidence: float (n,) in [0, 1], the score of each clip's predicted class.
        correct: bool (n,).

    >>> table, error = reliability(np.array([0.9, 0.9, 0.6]), np.array([True, False, True]))
    >>> [(row.count, round(row.accuracy, 2)) for row in table], round(error, 3)
    ([(1, 1.0), (2, 0.5)], 0.4)
    """
    edges = np.linspace(0, 1, bins + 1)
    of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)  # (n,), bin (low, high]
    table, error = [], 0.0
    for number in np.unique(of):
        inside = of == number
        count, sure, right = int(inside.sum()), float(confidence[inside].mean()), float(correct[inside].mean())
        table.append(ReliabilityBin(float(edges[number]), float(edges[number + 1]), count, sure, right))
        error += count / len(confidence) * abs(sure - right)
    return table, error
