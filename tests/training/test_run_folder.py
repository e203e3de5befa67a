"""RUN, the folder of a training run: what is in it, and what a second `kinegru train` does with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import yaml
from safetensors.torch import load_file

from kinegru.__main__ import main
from kinegru.models.modelfile import load_model
from kinegru.training.loop import fit
from kinegru.training.settings import TrainSettings

CONTRACT = (
    "model.safetensors",
    "history.csv",
    "settings.yaml",
    "predictions.csv",
    "report.html",
    "figures",
    "checkpoint",
)


def listing(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    cache = folder.parent / "cache"
    assert main(tiny.command(clips, folder, cache=cache, epochs=1)) == 0
    return folder


def test_a_run_holds_all_that_the_contract_names(run: Path) -> None:
    assert [name for name in CONTRACT if not (run / name).exists()] == []
    assert {path.suffix for path in (run / "figures").iterdir()} >= {".png", ".svg"}
    assert not [path for path in run.rglob("*") if path.suffix in (".tmp", ".new", ".old")]
    assert len((run / "history.csv").read_text().splitlines()) == 2
    assert len((run / "predictions.csv").read_text().splitlines()) == 3


def test_settings_yaml_is_a_recipe_of_this_run(run: Path) -> None:
    recipe = yaml.safe_load((run / "settings.yaml").read_text())
    assert recipe["split"] == "group" and recipe["group_pattern"] == tiny.PATTERN
    names = TrainSettings().to_dict()
    expected = tiny.settings(epochs=1, cache=str(run.parent / "cache")).to_dict()
    assert {name: recipe[name] for name in names} == expected


def test_the_model_file_names_labels_preprocessing_and_provenance(run: Path) -> None:
    loaded = load_model(run / "model.safetensors")
    assert tuple(loaded.labels) == tiny.ACTIONS
    assert loaded.preprocessing["frames"] == 3 and loaded.preprocessing["size"] == 32
    assert loaded.provenance["split"] == "group" and loaded.provenance["seed"] == 1
    assert loaded.clip_statistics["median_frames"] == 8
    assert str(run) not in json.dumps(loaded.provenance)  # no paths of this machine


def test_a_second_training_into_the_same_folder_is_refused(
    clips: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(run)
    assert main(tiny.command(clips, run, epochs=1)) == 2
    line = capsys.readouterr().err.strip()
    assert "holds a run already" in line and "--resume" in line and "--overwrite" in line and "\n" not in line
    assert listing(run) == before


@pytest.mark.parametrize("change", [{"epochs": 3}, {"learning_rate": 0.5}, {"seed": 7}, {"split": "random"}])
def test_a_changed_setting_on_resume_is_refused(
    change: dict[str, object], clips: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(run)
    name, value = next(iter(change.items()))
    assert main(tiny.command(clips, run, **{"epochs": 1} | change, resume=True)) == 2
    line = capsys.readouterr().err.strip()
    assert f"this run has {name} " in line and repr(value) in line and "\n" not in line
    assert listing(run) == before


@pytest.mark.usefixtures("no_reports")
def test_resume_needs_no_repeating_of_split_and_settings(clips: Path, run: Path, tmp_path: Path) -> None:
    """Above all it must not test on clips that the stopped run was trained on."""
    weights, predictions = load_file(run / "model.safetensors"), (run / "predictions.csv").read_bytes()
    (run / "predictions.csv").unlink()
    (run / "metrics.json").unlink()  # which is written last: it was stopped while it tested
    assert main(["train", str(clips), "--out", str(run), "--resume"]) == 0
    tiny.assert_same(load_file(run / "model.safetensors"), weights)
    assert (run / "predictions.csv").read_bytes() == predictions


@pytest.mark.usefixtures("no_reports")
def test_overwrite_starts_anew_and_keeps_what_is_not_of_the_run(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(tiny.command(clips, folder, epochs=2)) == 0
    (folder / "notes.txt").write_text("mine")
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "old.png").touch()
    assert main(tiny.command(clips, folder, epochs=1, seed=5, overwrite=True)) == 0
    assert len((folder / "history.csv").read_text().splitlines()) == 2
    assert yaml.safe_load((folder / "settings.yaml").read_text())["seed"] == 5
    assert (folder / "notes.txt").read_text() == "mine" and not (folder / "figures" / "old.png").exists()
    # the checkpoint is the new run's: resuming it trains no more and changes nothing
    weights = load_file(folder / "model.safetensors")
    assert main(tiny.command(clips, folder, epochs=1, seed=5, resume=True)) == 0
    tiny.assert_same(load_file(folder / "model.safetensors"), weights)


@pytest.mark.usefixtures("no_reports")
def test_no_group_lies_on_both_sides_of_training_validation_and_test(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str | None]] = {}

    def watch(model, train, validation, *rest, **options):
        seen["train"], seen["validation"] = ({clip.group for clip in d.clips} for d in (train, validation))
        return fit(model, train, validation, *rest, **options)

    monkeypatch.setattr("kinegru.runs.fold.fit", watch)
    assert main(tiny.command(clips, tmp_path / "run", epochs=1)) == 0
    rows = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    seen["test"] = {row.split(",")[0].split("/")[1].split("_")[0] for row in rows}
    assert all(seen.values())
    assert sum(len(groups) for groups in seen.values()) == len(set().union(*seen.values())) == len(tiny.PEOPLE)


def test_ctrl_c_while_features_are_computed_says_how_to_go_on(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kinegru.runs.fold.fill_cache", interrupt)
    assert main(tiny.command(clips, tmp_path / "run", cache=tmp_path / "cache")) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == "kinegru train: interrupted; the same command with --resume goes on from there"


@pytest.mark.usefixtures("no_reports")
def test_overwrite_leaves_other_runs_and_evaluations_in_the_folder_alone(clips: Path, tmp_path: Path) -> None:
    outer, inner = tmp_path / "runs", tmp_path / "runs" / "other"
    assert main(tiny.command(clips, outer, epochs=1)) == 0
    assert main(tiny.command(clips, inner, epochs=1)) == 0
    (outer / "evaluation").mkdir()
    for name in ("metrics.json", "predictions.csv", "report.html"):
        (outer / "evaluation" / name).write_text("measured")
    before = listing(inner) | listing(outer / "evaluation")
    assert main(tiny.command(clips, outer, epochs=1, seed=5, overwrite=True)) == 0
    assert listing(inner) | listing(outer / "evaluation") == before


@pytest.mark.parametrize("name", ["report.html", "checkpoint/mine.txt", "model.safetensors"])
def test_a_folder_with_files_of_that_name_but_no_run_is_refused(
    name: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "project" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        assert main(tiny.command(clips, tmp_path / "project", epochs=1, **options)) == 2
        line = capsys.readouterr().err.strip()
        assert f"project/{name.split('/')[0]}: is there already, of no run" in line and "\n" not in line
    assert listing(tmp_path / "project") == {name: b"mine"}


@pytest.mark.usefixtures("no_reports")
@pytest.mark.parametrize("finished", [True, False])
def test_resume_refuses_clips_of_another_content(
    finished: bool, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(clips, tmp_path / "clips"))
    assert main(tiny.command(data, tmp_path / "run", epochs=1)) == 0
    if not finished:
        (tmp_path / "run" / "metrics.json").unlink()
    for path in sorted((data / tiny.ACTIONS[0]).iterdir()):  # the other action under the same names
        other = path.name.replace(tiny.ACTIONS[0], tiny.ACTIONS[1])
        shutil.copyfile(data / tiny.ACTIONS[1] / other, path)
    before = listing(tmp_path / "run")
    capsys.readouterr()
    assert main(tiny.command(data, tmp_path / "run", epochs=1, resume=True)) in (1, 2)
    assert "clips" in capsys.readouterr().err.splitlines()[-1]
    assert listing(tmp_path / "run") == before


@pytest.mark.usefixtures("no_reports")
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("settings.yaml", b""),
        ("settings.yaml", b"epochs: [1"),
        ("metrics.json", b""),
        ("metrics.json", b'{"out": "evaluation"}'),
        ("checkpoint/model.safetensors", b""),
        ("checkpoint/custom_checkpoint_0.pkl", b""),
    ],
)
def test_a_damaged_run_is_named_in_one_line(
    file: str, content: bytes, clips: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    if file.startswith("checkpoint"):
        (damaged / "metrics.json").unlink()  # else nothing is read there
    (damaged / file).write_bytes(content)
    assert main(["train", str(clips), "--out", str(damaged), "--resume"]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("kinegru train: ") and f"run/{file.split('/')[0]}" in line and "a bug" not in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed=-1"], "--seed must lie between 0 and 4294967295, not -1"),
        (["--seed", "99999999999999999999"], "--seed must lie between"),
        (["--colour", "2"], "--colour must be between 0 and 1, not 2.0"),
        (["--crop-scale", "0"], "--crop-scale must be above 0 and at most 1, not 0.0"),
        (["--lists", "nowhere"], "is neither UCF101 nor HMDB51"),
    ],
)
def test_a_value_out_of_range_names_its_option(
    options: list[str], words: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*tiny.command(clips, tmp_path / "run", epochs=1), *options]) == 2
    line = capsys.readouterr().err.strip()
    assert words in line and "\n" not in line and not (tmp_path / "run").exists()
