"""The answer of a recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one clip: a probability a class.

    >>> prediction = Prediction("a.mp4", ("run", "walk"), np.array([0.25, 0.75]))
    >>> prediction.label, prediction.score, prediction.top(1)
    ('walk', 0.75, [('walk', 0.75)])
    """

    source: str
    labels: tuple[str, ...]
    scores: np.ndarray = field(repr=False)  # (K,) float, sums to 1

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.labels[int(self.scores.argmax())]

    @property
    def score(self) -> float:
        """Its probability, 0 to 1."""
        return float(self.scores.max())

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The `k` likeliest classes and their probabilities, best first."""
        return likeliest(self.labels, self.scores, k)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: source, label, score, and every class's score."""
        scores = {label: round(float(score), 6) for label, score in zip(self.labels, self.scores, strict=True)}
        return {"source": self.source, "label": self.label, "score": round(self.score, 6), "scores": scores}


def likeliest(labels: Sequence[str], scores: np.ndarray, k: int) -> list[tuple[str, float]]:
    """The `k` likeliest classes and their probabilities (K,), best first; of equals the first."""
    best = np.argsort(-scores, kind="stable")[:k]
    return [(labels[i], float(scores[i])) for i in best]
