"""Several windows of a clip, averaged: the same in testing, from the cache and not, and in use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from kinegru.__main__ import main
from kinegru.data.dataset import plain_views
from kinegru.errors import UsageError
from kinegru.evaluation.predictions import Predictions
from kinegru.recognition.recognizer import Recognizer
from kinegru.training.settings import TrainSettings
from kinegru.video.loading import load_clip

pytestmark = pytest.mark.usefixtures("no_reports")


@pytest.mark.parametrize("way", ["frames", "cache"])
def test_a_test_score_is_the_mean_over_windows_and_what_predict_gives(way: str, clips: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cache = "off" if way == "frames" else tmp_path / "cache"
    assert main(tiny.command(clips, run, profile="head", epochs=1, rate=20.0, windows=3, cache=cache)) == 0
    recognizer = Recognizer.load(run, "cpu")
    p = recognizer.preprocessing
    assert (p.rate, p.windows, recognizer.frame_rate, plain_views(p)) == (20.0, 3, 20.0, [0, -1, -2])
    table = Predictions.read(run / "predictions.csv")
    for name, row in zip(table.clips, np.asarray(table.scores), strict=True):
        each = torch.stack([load_clip(clips / name, p, window=number) for number in range(3)])
        with torch.inference_mode():
            expected = recognizer.model(each).softmax(dim=1).mean(dim=0).numpy()
        np.testing.assert_allclose(row, expected, atol=2e-3)  # the cache keeps float16
        np.testing.assert_allclose(recognizer.predict(clips / name).scores, expected, atol=1e-5)
    assert len({tuple(load_clip(clips / table.clips[0], p, window=n).flatten().tolist()) for n in range(3)}) == 3
    assert json.loads((run / "metrics.json").read_text())["metrics"]["clips"] == len(table.clips)


def test_windows_without_a_rate_are_refused() -> None:
    with pytest.raises(UsageError, match="together with --rate"):
        TrainSettings(windows=3)
    with pytest.raises(UsageError, match="--rate must be above 0"):
        TrainSettings(rate=0.0)
