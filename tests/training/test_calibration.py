"""The fitted temperature makes scores probabilities of being right, and never makes a model certain for ever."""

from __future__ import annotations

import numpy as np
import pytest

from kinegru.recognition.timeline import tempered
from kinegru.training.calibration import COLDEST, fit_temperature


def drawn(temperature: float, clips: int = 4000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model whose logits are `temperature` times too large, and targets drawn as they should be."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(clips, classes)) * 2
    right = softmax(logits)
    targets = np.array([rng.choice(classes, p=row) for row in right])
    return softmax(logits * temperature), targets


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def nll(probabilities: np.ndarray, targets: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(targets)), targets]).mean())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    probabilities, targets = drawn(temperature)
    found = fit_temperature(probabilities, targets)
    assert found.temperature == pytest.approx(temperature, rel=0.05) and found.clips == 4000
    assert found.nll_before == pytest.approx(nll(probabilities, targets))
    assert found.nll_after == pytest.approx(nll(tempered(probabilities, found.temperature), targets))
    assert found.nll_after <= found.nll_before + 1e-6


def test_calibrated_scores_are_shares_of_right_clips():
    probabilities, targets = drawn(3.0)
    calibrated = tempered(probabilities, fit_temperature(probabilities, targets).temperature)
    right = calibrated.argmax(axis=1) == targets
    for low, high in ((0.4, 0.6), (0.6, 0.8), (0.8, 1.0)):
        chosen = (calibrated.max(axis=1) >= low) & (calibrated.max(axis=1) < high)
        assert calibrated.max(axis=1)[chosen].mean() == pytest.approx(right[chosen].mean(), abs=0.05)


@pytest.mark.parametrize("clips", [2, 10, 100])
def test_right_every_time_is_sure_only_as_far_as_the_clips_go(clips):
    """n of n right is n + 1 of n + 2 (Laplace's rule), not certainty."""
    probabilities = np.tile([0.97, 0.02, 0.01], (clips, 1))
    found = fit_temperature(probabilities, np.zeros(clips, int))
    score = tempered(probabilities, found.temperature).max(axis=1).mean()
    assert found.temperature > COLDEST * 2
    assert score == pytest.approx((clips + 1) / (clips + 2), abs=0.02)


def test_scores_of_zero_and_one_are_no_trouble():
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = fit_temperature(probabilities, np.array([0, 1, 1]))
    assert np.isfinite(list(found.to_dict().values())).all() and found.nll_after < found.nll_before


def test_no_clip_and_a_single_class_give_none():
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) is None
    assert fit_temperature(np.ones((4, 1)), np.zeros(4, int)) is None
