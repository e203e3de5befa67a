"""A checkpoint is whole at any moment: killed between any two file operations, a run finds the old or the new."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from accelerate import Accelerator

from kinegru.training.checkpoint import Checkpoint, Progress
from kinegru.training.history import Epoch
from kinegru.training.processes import make_accelerator


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def open_checkpoint(folder: Path) -> tuple[Checkpoint, Progress, torch.nn.Linear, Accelerator]:
    accelerator = make_accelerator(tiny.settings())
    model = accelerator.prepare(torch.nn.Linear(2, 2))
    progress = Progress()
    return Checkpoint(folder, accelerator, progress), progress, model, accelerator


def test_progress_survives(tmp_path: Path) -> None:
    checkpoint, progress, model, _ = open_checkpoint(tmp_path / "checkpoint")
    assert not checkpoint.exists()
    progress.epoch, progress.step, progress.best_epoch, progress.best_value = 3, 5, 2, (0.5, -1.25)
    progress.sums["loss"], progress.clips = 7.5, "abc"
    progress.history.append(Epoch(1, 0.5, 0.25, 1.0, None, None, None, 1e-4, 3.0))
    progress.best_weights, progress.bad_clips = {"w": torch.arange(3.0)}, {"a.avi": "empty"}
    checkpoint.save()
    expected, weight, random = vars(progress).copy(), model.weight.clone(), torch.rand(3)

    again, loaded, other, _ = open_checkpoint(tmp_path / "checkpoint")
    torch.manual_seed(99)
    assert again.exists()
    again.load()
    assert torch.equal(loaded.best_weights.pop("w"), expected.pop("best_weights")["w"]) and not loaded.best_weights
    assert {name: value for name, value in vars(loaded).items() if name != "best_weights"} == expected
    assert torch.equal(other.weight, weight) and torch.equal(torch.rand(3), random)
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("second", range(1, 8))
@pytest.mark.parametrize("first", range(1, 8))
def test_two_kills_between_any_file_operations_leave_a_whole_checkpoint(
    first: int, second: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second kill meets what the first one left; a save is at most seven operations."""
    folder = tmp_path / "checkpoint"
    checkpoint, progress, _, accelerator = open_checkpoint(folder)
    monkeypatch.setattr(
        accelerator, "save_state", lambda where: (Path(where) / "epoch").write_text(str(progress.epoch))
    )
    monkeypatch.setattr(accelerator, "load_state", lambda where: read.append(int((Path(where) / "epoch").read_text())))
    read: list[int] = []
    left = [0]

    def count(original):
        def operation(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return original(*arguments, **options)

        return operation

    for place, name in ((shutil, "rmtree"), (Path, "rename"), (Path, "mkdir"), (accelerator, "save_state")):
        monkeypatch.setattr(place, name, count(getattr(place, name)))
    progress.epoch = 1
    checkpoint.save()
    newest = 1
    for operation in (first, second):
        left[0] = operation
        progress.epoch = newest + 1
        with contextlib.suppress(Killed):
            checkpoint.save()
        left[0] = 0
        assert checkpoint.exists()
        checkpoint.load()
        assert read[-1] in (newest, newest + 1)
        newest = read[-1]
    progress.epoch = 9
    checkpoint.save()
    checkpoint.load()
    assert read[-1] == 9 and [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
