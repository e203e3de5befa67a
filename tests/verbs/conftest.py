"""A tiny data set, a model trained on it, and verbs run in this process with what they print."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from small_set import PATTERN, write_recipe, write_small_set

from kinegru.__main__ import main


class Ran(NamedTuple):
    """What a verb did: its exit status and what it printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def kinegru(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`kinegru("check", folder)` runs a verb in this process, in an empty folder. A traceback is a failure."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | os.PathLike[str]) -> Ran:
        capsys.readouterr()
        status = main([os.fspath(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err, err
        assert "(a bug;" not in err, err
        return Ran(status, out, err)

    return run


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen clips: two actions of eight people."""
    return write_small_set(tmp_path_factory.mktemp("data") / "bars")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of one epoch."""
    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")


@pytest.fixture(scope="session")
def trained(clips: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The RUN folder of a model trained on `clips`, people apart."""
    run = tmp_path_factory.mktemp("runs") / "bars"
    command = ["train", str(clips), "--out", str(run), "--group-pattern", PATTERN, "--config", str(tiny)]
    assert main(command) == 0
    return run
