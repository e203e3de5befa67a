"""Leave one group out: a model a fold, tests pooled, finished folds kept when the run goes on; folds side by side."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import tiny
from running import wait_while_running

from kinegru.__main__ import main
from kinegru.evaluation.predictions import Predictions
from kinegru.training.interrupts import stop_requests
from kinegru.training.loop import fit
from kinegru.training.side_by_side import fold_pool

pytestmark = pytest.mark.usefixtures("no_reports")
PEOPLE = ("ann", "bob", "cyd")
OPTIONS = {"split": "leave-one-group-out", "epochs": 1, "validation": 0.5}


def test_leave_one_group_out_pools_all_folds_and_resumes_after_finished_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []

    def watch(model, train, validation, settings, run, *rest, **options):
        trained.append(run.name)
        assert {clip.group for clip in train.clips} | {clip.group for clip in validation.clips} < set(PEOPLE)
        if len(trained) == 2:
            raise KeyboardInterrupt  # before the second fold has begun
        return fit(model, train, validation, settings, run, *rest, **options)

    monkeypatch.setattr("kinegru.runs.fold.fit", watch)
    clips, run = tiny.write_clips(tmp_path / "clips", PEOPLE), tmp_path / "run"
    assert main(tiny.command(clips, run, cache=tmp_path / "cache", **OPTIONS)) == 1
    assert "--resume goes on from there" in capsys.readouterr().err
    first = (run / "leave-one-group-out-ann" / "model.safetensors").read_bytes()

    assert main(tiny.command(clips, run, cache=tmp_path / "cache", resume=True, **OPTIONS)) == 0
    names = [f"leave-one-group-out-{person}" for person in PEOPLE]
    assert trained == [names[0], names[1], names[1], names[2]]  # ann's fold once only
    assert (run / names[0] / "model.safetensors").read_bytes() == first

    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["clip"] for row in rows) == sorted(f"{a}/{p}_{a}.mp4" for a in tiny.ACTIONS for p in PEOPLE)
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    folds = [json.loads((run / name / "metrics.json").read_text())["metrics"] for name in names]
    assert metrics["clips"] == 6 and metrics["right"] == sum(fold["right"] for fold in folds)

    # once more: everything is there already
    assert main(tiny.command(clips, run, cache=tmp_path / "cache", resume=True, **OPTIONS)) == 0
    assert len(trained) == 4
    # starting anew trains every fold again, also those of which only a part is there
    (run / names[1] / "metrics.json").unlink()
    assert main(tiny.command(clips, run, cache=tmp_path / "cache", overwrite=True, **OPTIONS)) == 0
    assert trained[4:] == names


@pytest.mark.parametrize("processes", ["1", "2"])
def test_folds_of_other_clips_are_not_pooled(
    processes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, run = tiny.write_clips(tmp_path / "clips", PEOPLE), tmp_path / "run"
    words = [*tiny.command(clips, run, cache=tmp_path / "cache", **OPTIONS), "--no-report", "--processes", processes]
    assert main(words) == 0
    (run / "leave-one-group-out-cyd" / "metrics.json").unlink()  # as after a stop before the last fold's end
    (run / "metrics.json").unlink()
    tiny.write_clips(clips, ("dan",))
    capsys.readouterr()
    assert main([*words, "--resume"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "leave-one-group-out-ann: was trained and tested on other clips than" in said[-1]
    assert not (run / "metrics.json").exists()


def test_folds_side_by_side_give_what_folds_in_turn_give(tmp_path: Path) -> None:
    """Two at a time, stopped after the first, then gone on with."""
    clips = tiny.write_clips(tmp_path / "clips", PEOPLE)
    in_turn, run = tmp_path / "in-turn", tmp_path / "run"
    assert main([*tiny.command(clips, in_turn, **OPTIONS), "--no-report"]) == 0

    words = [*tiny.command(clips, run, **OPTIONS), "--no-report", "--processes", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kinegru", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    finished = wait_while_running(process, lambda: list(run.glob("*/metrics.json")))
    process.terminate()  # the first process alone: it has to stop the others
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "--resume goes on from there" in said, said
    before = {file: file.stat().st_mtime_ns for file in finished}

    assert main([*words, "--resume", "true"]) == 0
    assert all(file.stat().st_mtime_ns == written for file, written in before.items())
    one, other = (Predictions.read(folder / "predictions.csv") for folder in (in_turn, run))
    assert one.clips == other.clips and np.allclose(one.scores, other.scores, atol=0.01)  # rounding: fewer threads


def test_no_process_at_all_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path), "--processes", "0"]) == 2
    assert "--processes 0: give 1 or more" in capsys.readouterr().err


def train_until_asked_to_stop(begun: Path, asked: Path) -> None:
    """As the training loop does: SIGTERM is a wish, and to save the state takes a moment."""
    with stop_requests() as stop:
        begun.touch()
        if stop.wait(600):
            asked.touch()
        time.sleep(1.0)


def test_the_death_of_one_process_ends_all(tmp_path: Path) -> None:
    """The one that is killed waits for work and holds the lock that the others need to ask for theirs."""
    begun, asked = tmp_path / "begun", tmp_path / "asked"
    with pytest.raises(BrokenProcessPool), fold_pool(2) as (pool, _):
        training = pool.submit(train_until_asked_to_stop, begun, asked)
        while not begun.exists() and not training.done():
            time.sleep(0.05)
        os.kill(pool.submit(os.getpid).result(), signal.SIGKILL)
        training.result()
    assert asked.exists()  # it was not waited for until its own end
