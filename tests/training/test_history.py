"""`history.csv`, TensorBoard and the learning rate that they show."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import tiny

from kinegru.training.history import COLUMNS
from kinegru.training.schedule import learning_rate
from kinegru.training.settings import TrainSettings


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_history_has_a_row_an_epoch_and_all_columns(clips: Path, tmp_path: Path) -> None:
    _, result = tiny.fit_tiny(clips, tmp_path, tiny.settings(epochs=3))
    rows = read(tmp_path / "history.csv")
    assert list(rows[0]) == COLUMNS == [
        "epoch", "train_loss", "train_top1", "train_top5", "val_loss", "val_top1", "val_top5",
        "learning_rate", "seconds",
    ]  # fmt: skip
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for row, epoch in zip(rows, result.history, strict=True):
        for name in COLUMNS:
            assert float(row[name]) == pytest.approx(getattr(epoch, name), rel=1e-5)


def test_without_validation_clips_its_columns_are_empty(clips: Path, tmp_path: Path) -> None:
    tiny.fit_tiny(clips, tmp_path, tiny.settings(epochs=1), validate=False)
    (row,) = read(tmp_path / "history.csv")
    assert row["val_loss"] == row["val_top1"] == row["val_top5"] == "" and float(row["train_loss"]) > 0


def test_tensorboard_holds_what_history_holds(clips: Path, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, result = tiny.fit_tiny(clips, tmp_path, tiny.settings(tensorboard=True))
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = ["train/loss", "train/top1", "train/top5", "val/loss", "val/top1", "val/top5", "learning/rate", "seconds"]
    assert sorted(events.Tags()["scalars"]) == sorted(names)
    losses = {event.step: event.value for event in events.Scalars("val/loss")}
    assert losses == {row.epoch: pytest.approx(row.val_loss, rel=1e-5) for row in result.history}


# -- the course of the learning rate ------------------------------------------------------------------------------


def course(steps_an_epoch: int = 4, **options: object) -> list[float]:
    settings = TrainSettings(epochs=3, learning_rate=2.0, **options)  # type: ignore[arg-type]
    return [learning_rate(settings, step, steps_an_epoch) for step in range(3 * steps_an_epoch)]


def test_a_constant_rate_is_constant() -> None:
    assert course() == [2.0] * 12


def test_the_cosine_falls_from_the_full_rate_towards_zero() -> None:
    assert course(schedule="cosine") == pytest.approx([1 + math.cos(math.pi * step / 12) for step in range(12)])


def test_the_warm_up_rises_to_the_full_rate_and_the_rest_follows_the_schedule() -> None:
    assert course(warmup_epochs=1) == pytest.approx([0.5, 1.0, 1.5] + [2.0] * 9)
    expected = [0.5, 1.0, 1.5, 2.0] + [1 + math.cos(math.pi * step / 8) for step in range(8)]
    assert course(warmup_epochs=1, schedule="cosine") == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.5, 1.3, 3.0, 7.0])
def test_a_warm_up_of_any_length_never_exceeds_the_rate(warmup: float) -> None:
    for schedule in ("constant", "cosine"):
        rates = course(warmup_epochs=warmup, schedule=schedule)
        assert min(rates) > 0 and max(rates) <= 2.0
        rising = rates[: math.ceil(4 * warmup)]
        assert rising == sorted(rising)


def test_the_optimiser_takes_these_rates(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(epochs=2, schedule="cosine", warmup_epochs=0.5)
    _, result = tiny.fit_tiny(clips, tmp_path, chosen, validate=False)  # ten clips in three batches an epoch
    assert [row.learning_rate for row in result.history] == [learning_rate(chosen, step, 3) for step in (2, 5)]
