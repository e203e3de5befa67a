"""A run that was stopped anywhere goes on to the same weights, bit by bit, as one that was left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file

from kinegru.__main__ import main
from kinegru.errors import DataError
from kinegru.training.interrupts import Interrupted

# dropout is 0.5, so the random numbers have to be taken up again too
EVERYTHING = {"ema": 0.7, "schedule": "cosine", "warmup_epochs": 1.0, "epochs": 3, "checkpoint_minutes": 0.0}


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.fixture(scope="module")
def uninterrupted(clips: Path, tmp_path_factory: pytest.TempPathFactory):
    """Weights and result of a run that was left alone."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    model, result = tiny.fit_tiny(clips, folder, tiny.settings(**EVERYTHING))
    return tiny.weights(model), result


@pytest.mark.parametrize("step", [1, 2, 4, 6, 7])  # of nine, three an epoch
def test_a_killed_run_goes_on_to_the_same_weights(step: int, clips: Path, tmp_path: Path, uninterrupted) -> None:
    def kill(done: int, total: int, text: str) -> None:
        assert total == 9
        if done == step + 1:  # the checkpoint after `step` is the newest
            raise Killed

    chosen = tiny.settings(**EVERYTHING)
    with pytest.raises(Killed):
        tiny.fit_tiny(clips, tmp_path, chosen, track=kill)
    reports: list[int] = []
    model, result = tiny.fit_tiny(clips, tmp_path, chosen, resume=True, track=lambda done, *_: reports.append(done))
    weights, whole = uninterrupted
    assert reports[0] == step + 1  # nothing is computed twice
    tiny.assert_same(tiny.weights(model), weights)
    assert result.best_epoch == whole.best_epoch
    timeless = [[{**vars(row), "seconds": 0} for row in r.history] for r in (result, whole)]
    assert timeless[0] == timeless[1]  # the sums of the broken epoch were kept


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_and_the_run_goes_on(name: str, clips: Path, tmp_path: Path, uninterrupted) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if done in (3, 5):  # at the end of an epoch and inside of one
            signal.raise_signal(getattr(signal, name))

    rare = tiny.settings(**EVERYTHING | {"checkpoint_minutes": 60.0})  # only the signal makes it save
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for resume in (False, True):
        with pytest.raises(Interrupted, match="the state is saved in"):
            tiny.fit_tiny(clips, tmp_path, rare, resume=resume, track=stop)
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    model, _ = tiny.fit_tiny(clips, tmp_path, rare, resume=True)
    tiny.assert_same(tiny.weights(model), uninterrupted[0])


def test_resuming_a_finished_run_trains_no_more(clips: Path, tmp_path: Path) -> None:
    chosen = tiny.settings(**EVERYTHING)
    model, _ = tiny.fit_tiny(clips, tmp_path, chosen)
    again, result = tiny.fit_tiny(
        clips, tmp_path, chosen, resume=True, track=lambda *_: pytest.fail("a finished run was trained on")
    )
    tiny.assert_same(tiny.weights(model), tiny.weights(again))
    assert len(result.history) == 3


def test_without_resume_a_run_starts_anew(clips: Path, tmp_path: Path, uninterrupted) -> None:
    tiny.fit_tiny(clips, tmp_path, tiny.settings(epochs=1))
    model, _ = tiny.fit_tiny(clips, tmp_path, tiny.settings(**EVERYTHING))
    tiny.assert_same(tiny.weights(model), uninterrupted[0])


def test_a_run_does_not_go_on_with_other_clips(clips: Path, tmp_path: Path) -> None:
    tiny.fit_tiny(clips, tmp_path / "run", tiny.settings(epochs=1))
    fewer = tiny.write_clips(tmp_path / "fewer", tiny.PEOPLE[1:])
    with pytest.raises(DataError, match="other training clips") as caught:
        tiny.fit_tiny(fewer, tmp_path / "run", tiny.settings(epochs=1), resume=True)
    assert "--overwrite" in str(caught.value) and "\n" not in str(caught.value)


# -- the real command, stopped from outside -----------------------------------------------------------------------


LONG = {"epochs": 12, "batch": 3, "checkpoint_minutes": 0.0}  # 36 steps and as many saves


@pytest.fixture(scope="module")
def finished(clips: Path, tmp_path_factory: pytest.TempPathFactory, no_reports: None) -> Path:
    """The folder of the same command, left alone."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main(tiny.command(clips, run, **LONG)) == 0
    return run


def stop_from_outside(clips: Path, run: Path, number: int, **more: object) -> tuple[int, str]:
    """Start the command, signal all its processes after the third save, as a terminal does; status and stderr."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "kinegru", *tiny.command(clips, run, **LONG | more)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    saved: set[int] = set()
    while len(saved) < 3 and process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            saved.add((run / "checkpoint").stat().st_mtime_ns)
        time.sleep(0.005)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert not (run / "model.safetensors").exists() and not (run / "metrics.json").exists(), "it was too late to stop"
    return process.returncode, errors


def assert_goes_on(clips: Path, run: Path, finished: Path) -> None:
    assert main(tiny.command(clips, run, resume=True, **LONG)) == 0
    tiny.assert_same(load_file(run / "model.safetensors"), load_file(finished / "model.safetensors"))
    assert (run / "predictions.csv").read_bytes() == (finished / "predictions.csv").read_bytes()
    assert len((run / "history.csv").read_text().splitlines()) == 13


def test_resume_after_sigkill_equals_an_uninterrupted_run(clips: Path, tmp_path: Path, finished: Path) -> None:
    status, _ = stop_from_outside(clips, tmp_path / "run", signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert_goes_on(clips, tmp_path / "run", finished)


def test_ctrl_c_saves_says_how_to_go_on_and_equals_an_uninterrupted_run(
    clips: Path, tmp_path: Path, finished: Path
) -> None:
    status, errors = stop_from_outside(clips, tmp_path / "run", signal.SIGINT, workers=2)
    assert status == 1
    last = errors.strip().splitlines()[-1]
    assert last.startswith("kinegru train: stopped; the state is saved in")
    assert last.endswith("the same command with --resume goes on from there")
    assert "Traceback" not in errors
    assert_goes_on(clips, tmp_path / "run", finished)
