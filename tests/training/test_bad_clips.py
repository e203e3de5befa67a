"""Clips that cannot be read are skipped, counted and named; too many of them stop the run with one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from kinegru.__main__ import main
from kinegru.errors import DataError

pytestmark = pytest.mark.usefixtures("no_reports")


def people(run: Path) -> list[str]:
    """Those whose clips could be tested."""
    rows = (run / "predictions.csv").read_text().splitlines()[1:]
    return [row.split(",")[0] for row in rows]


@pytest.mark.parametrize("cached", [True, False], ids=["cache on", "cache off"])
def test_a_bad_clip_met_in_training_is_skipped_counted_and_named(
    cached: bool, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of ann's, who is trained or validated on, and one of fay's, who is tested."""
    broken = ("run/ann_run.mp4", "walk/fay_walk.mp4")
    data = tiny.spoil(clips, tmp_path / "data", *broken)
    cache = str(tmp_path / "cache") if cached else "off"
    split = "leave-one-group-out:fay"
    assert main(tiny.command(data, tmp_path / "run", cache=cache, max_bad_clips=0.5, split=split)) == 0
    errors = capsys.readouterr().err
    assert "2 clips could not be read and were left out" in errors
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sorted(stored["bad_clips"]) == sorted(broken)
    for name in broken:
        assert name in errors and "no video" in stored["bad_clips"][name]
    assert people(tmp_path / "run") == ["run/fay_run.mp4"]
    assert stored["metrics"]["clips"] == 1


@pytest.mark.parametrize("cached", [True, False], ids=["cache on", "cache off"])
def test_too_many_bad_clips_stop_the_run_with_one_line(
    cached: bool, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{action}/{person}_{action}.mp4" for action in tiny.ACTIONS for person in ("ann", "bob", "cyd")]
    data = tiny.spoil(clips, tmp_path / "data", *names)
    cache = str(tmp_path / "cache") if cached else "off"
    arguments = tiny.command(data, tmp_path / "run", cache=cache, split="leave-one-group-out:fay")
    assert main(arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "kinegru train:" in line]
    assert len(lines) == 1 and "more than --max-bad-clips 0.05 allows; the first: " in lines[0]
    assert any(Path(name).name in lines[0] for name in names)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    # the limit may be raised for what is left of the run
    assert main([*arguments, "--resume", "--max-bad-clips", "0.8"]) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("cached", [True, False], ids=["cache on", "cache off"])
def test_too_many_bad_test_clips_give_no_result(
    cached: bool, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.spoil(clips, tmp_path / "data", "walk/fay_walk.mp4")  # one of two
    cache = str(tmp_path / "cache") if cached else "off"
    arguments = tiny.command(data, tmp_path / "run", cache=cache, epochs=1, split="leave-one-group-out:fay")
    assert main(arguments) == 1
    assert "1 of 2 clips cannot be read, more than --max-bad-clips" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_bad_clips_elsewhere_do_not_count_against_training(clips: Path, tmp_path: Path) -> None:
    data = tiny.spoil(clips, tmp_path / "data", "walk/fay_walk.mp4", "walk/ann_walk.mp4")
    chosen = tiny.settings(max_bad_clips=0.5)  # one of two clips to validate on, one of ten to train on
    _, result = tiny.fit_tiny(data, tmp_path / "run", chosen)
    assert sorted(Path(name).name for name in result.bad_clips) == ["ann_walk.mp4", "fay_walk.mp4"]
    with pytest.raises(DataError, match="1 of 2 clips cannot be read"):
        tiny.fit_tiny(data, tmp_path / "stricter", tiny.settings(max_bad_clips=0.1))


def test_a_batch_without_a_good_clip_changes_nothing(clips: Path, tmp_path: Path) -> None:
    names = [f"{action}/{person}_{action}.mp4" for action in tiny.ACTIONS for person in tiny.PEOPLE[:5]]
    data = tiny.spoil(clips, tmp_path / "data", *names)  # not one clip to train on
    chosen = tiny.settings(max_bad_clips=1.0)
    model = tiny.build(chosen)
    before = tiny.weights(model)
    _, result = tiny.fit_tiny(data, tmp_path / "run", chosen, model=model)
    tiny.assert_same(tiny.weights(model), before)
    assert len(result.bad_clips) == 10 and result.history[0].train_loss == 0


@pytest.mark.parametrize("micro_batch", [None, 2, 1])
def test_bad_clips_among_good_ones_do_no_harm(micro_batch: int | None, clips: Path, tmp_path: Path) -> None:
    data = tiny.spoil(clips, tmp_path / "data", "run/ann_run.mp4", "walk/ann_walk.mp4", "run/bob_run.mp4")
    chosen = tiny.settings(max_bad_clips=0.5, micro_batch=micro_batch)
    model, result = tiny.fit_tiny(data, tmp_path / "run", chosen)
    assert all(torch.isfinite(tensor).all() for tensor in tiny.weights(model).values())
    assert len(result.bad_clips) == 3 and result.history[1].train_loss > 0
