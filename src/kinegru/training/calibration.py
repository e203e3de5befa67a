"""Scores that are probabilities of being right: one temperature, fitted on validation clips (Guo et al. 2017).

A network trained to the end is surer than it is right. Dividing its logits by one number T, found where the validation
clips are likeliest, mends that and changes no order of classes. A model that is right on every validation clip would
get T = 0 and be certain for ever; so the targets are softened as Platt (1999) does, to n + 1 right of n + 2: the more
clips there were, the surer it may be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLDEST, WARMEST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature, and what it does to the mean negative log-likelihood of the clips it was fitted on."""

    temperature: float
    clips: int
    nll_before: float  # nats a clip, at temperature 1
    nll_after: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the model file's provenance."""
        return asdict(self)


def fit_temperature(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> Calibration | None:
    """Fit on softmax scores (n, K), rows summing to 1, and class indices (n,); None for no clip or a single class.

    >>> sure = np.array([[0.99, 0.01]] * 10)
    >>> found = fit_temperature(sure, np.array([0] * 7 + [1] * 3))  # 99 % sure, 70 % right
    >>> round(found.temperature, 1), found.nll_after < found.nll_before
    (6.6, True)
    """
    from scipy.optimize import minimize_scalar

    if not len(targets) or probabilities.shape[1] < 2:
        return None
    logits = np.log(np.clip(probabilities, 1e-12, None)).astype(np.float64)
    right = np.zeros(logits.shape)
    right[np.arange(len(targets)), targets] = 1.0
    doubt = 1 / (len(targets) + 2)
    softened = (1 - doubt) * right + doubt * (1 - right) / (logits.shape[1] - 1)

    def loss(log_temperature: float, wanted: NDArray[np.float64]) -> float:
        return float(-(wanted * _log_softmax(logits / np.exp(log_temperature))).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(WARMEST)), args=(softened,), method="bounded")
    return Calibration(float(np.exp(found.x)), len(targets), loss(0.0, right), loss(found.x, right))


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
