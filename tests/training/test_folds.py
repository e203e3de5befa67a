"""Leave one group out: a model a fold, all tests pooled, finished folds kept when the run goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import tiny

from kinegru.__main__ import main
from kinegru.training.loop import fit

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

    monkeypatch.setattr("kinegru.verbs.run.fit", watch)
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
