"""Every verb on broken, strange or unkindly named files: a clear line, the right exit status, and the rest goes on."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from hostile_files import write_broken, write_cut, write_strange, write_unkind
from small_set import ACTIONS, write_recipe, write_small_set

from kinegru.evaluation.predictions import Predictions
from kinegru.video.container import shown


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_broken(tmp_path_factory.mktemp("hostile") / "broken")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_strange(tmp_path_factory.mktemp("hostile") / "strange")


@pytest.fixture(scope="module")
def unkind(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_unkind(tmp_path_factory.mktemp("hostile") / "unkind")


@pytest.fixture(scope="module")
def spoilt(clips: Path, broken: list[Path], strange: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips with broken files among those of one class and strange ones among those of the other."""
    folder = tmp_path_factory.mktemp("spoilt") / "bars"
    shutil.copytree(clips, folder)
    for label, paths in zip(ACTIONS, (broken, strange), strict=True):
        for path in paths:
            shutil.copy2(path, folder / label, follow_symlinks=False)
    return folder


def one_line(text: str, *parts: str) -> str:
    """The only line of `text` that holds all parts."""
    lines = [line for line in text.splitlines() if all(part in line for part in parts)]
    assert len(lines) == 1, f"{parts} in {len(lines)} lines of:\n{text}"
    return lines[0]


# -- predict ------------------------------------------------------------------------------------------------------


def test_predict_names_each_bad_file_once_and_goes_on(kinegru, trained, clips, broken):
    good = sorted(clips.glob("*/*.mp4"))[:3]
    mixed = [good[0], *broken[:5], good[1], *broken[5:], good[2]]
    ran = kinegru("predict", trained, *mixed, "--json")
    assert ran.status == 1
    result = json.loads(ran.out)
    assert [item["source"] for item in result["predictions"]] == [str(path) for path in good]
    assert sorted(result["failures"]) == [str(path) for path in broken]
    for path in broken:
        assert one_line(ran.err, path.name).startswith(f"kinegru predict: {path}: ")


def test_predict_says_what_is_wrong_with_a_file(kinegru, trained, broken):
    ran = kinegru("predict", trained, *broken)
    reasons = {path.name: one_line(ran.err, path.name).rpartition(": ")[2] for path in broken}
    assert reasons["empty.mp4"] == "is empty (0 bytes)"
    assert reasons["text.mp4"] == reasons["noise.avi"] == "is no video, or its beginning or index is damaged"
    assert reasons["only_sound.mp4"] == reasons["only_sound_wav.avi"] == "holds no video stream, only audio"
    assert reasons["link_to_nowhere.mp4"] == "no such file"
    assert (ran.status, ran.out) == (1, "")


def test_predict_recognises_strange_but_sound_files(kinegru, trained, strange):
    ran = kinegru("predict", trained, *strange, "--json")
    assert ran.status == 0
    assert [item["source"] for item in json.loads(ran.out)["predictions"]] == [str(path) for path in strange]


def test_predict_on_files_cut_at_random_bytes_gives_a_label_or_a_line(kinegru, trained, tmp_path):
    paths = write_cut(tmp_path / "cut")
    ran = kinegru("predict", trained, *paths, "--json")
    result = json.loads(ran.out)
    found = {item["source"] for item in result["predictions"]} | set(result["failures"])
    assert found == {str(path) for path in paths}
    assert ran.status == (1 if result["failures"] else 0)
    for reason in result["failures"].values():
        one_line(ran.err, reason)


def test_predict_shows_any_name_on_one_line_and_gives_it_back_whole(kinegru, trained, unkind):
    table = kinegru("predict", trained, *unkind)
    assert table.status == 0
    assert len(table.out.splitlines()) == len(unkind) + 1
    printed = kinegru("predict", trained, *unkind, "--csv").out
    assert len(list(csv.reader(io.StringIO(printed)))) == len(unkind) + 1
    parsed = json.loads(kinegru("predict", trained, *unkind, "--json").out)
    assert [item["source"] for item in parsed["predictions"]] == [str(path) for path in unkind]


def test_predict_says_of_a_missing_file_with_any_name_that_it_is_missing(kinegru, trained, unkind):
    missing = [path.with_name(path.name + "x") for path in unkind]
    ran = kinegru("predict", trained, *missing)
    assert ran.status == 1
    for path in missing:
        one_line(ran.err, shown(path).encode(errors="backslashreplace").decode(), "no such file")


def test_no_verb_waits_for_a_named_pipe(kinegru, trained, clips, tmp_path):
    pipe = tmp_path / "set" / ACTIONS[0] / "pipe.mp4"
    shutil.copytree(clips, tmp_path / "set")
    os.mkfifo(pipe)
    ran = kinegru("predict", trained, pipe)
    assert ran.status == 1
    one_line(ran.err, f"{pipe}: is a pipe, socket or device, not a file")
    ran = kinegru("check", tmp_path / "set", "--workers", "0", "--json")
    assert [item["subject"] for item in json.loads(ran.out)["problems"]] == [f"{ACTIONS[0]}/pipe.mp4"]


# -- check --------------------------------------------------------------------------------------------------------


def test_check_names_every_bad_clip(kinegru, spoilt, broken):
    ran = kinegru("check", spoilt, "--workers", "0", "--json")
    assert ran.status == 1
    problems = {item["subject"]: item["kind"] for item in json.loads(ran.out)["problems"]}
    for path in broken:
        expected = {"empty.mp4": "empty", "link_to_nowhere.mp4": "missing"}.get(path.name, "unreadable")
        assert problems[f"{ACTIONS[0]}/{path.name}"] == expected
    assert problems[f"{ACTIONS[1]}/one_frame.mp4"] == "too_short"
    assert f"{ACTIONS[1]}/odd_size.mp4" not in problems


def test_check_passes_clips_with_unkind_names(kinegru, tmp_path, clips, unkind):
    for path, source in zip(unkind, sorted(clips.glob("*/*")), strict=False):
        copy = tmp_path / "set" / source.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
    ran = kinegru("check", tmp_path / "set", "--workers", "0", "--min-clips", "1")
    assert ran.status == 0, ran.out
    assert f"no problems: all {len(unkind)} clips can be read" in ran.out


def test_check_lists_a_clip_with_any_name_on_one_line(kinegru, tmp_path, unkind):
    for path in unkind:
        copy = tmp_path / "set" / "class" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"no video")
    ran = kinegru("check", tmp_path / "set", "--workers", "0")
    assert ran.status == 1
    for path in unkind:
        one_line(ran.out, f"class/{shown(path.name)}".encode(errors="backslashreplace").decode(), "no video")


def test_check_lists_every_line_of_a_table_that_has_no_good_one(kinegru, tmp_path):
    (tmp_path / "clips.csv").write_text("path,label\na.mp4,\nb.mp4,\n", encoding="utf-8")
    ran = kinegru("check", tmp_path / "clips.csv", "--json")
    assert ran.status == 1
    assert [item["subject"] for item in json.loads(ran.out)["problems"]] == ["clips.csv:2", "clips.csv:3"]


# -- train --------------------------------------------------------------------------------------------------------


def test_train_on_data_that_is_not_there_leaves_nothing_behind(kinegru):
    ran = kinegru("train", "nowhere")
    assert (ran.status, one_line(ran.err, "nowhere")) == (1, "kinegru train: nowhere: no such folder or CSV file")
    assert not Path("runs").exists()


@pytest.mark.parametrize("way", ["frames", "cache"])
def test_train_skips_counts_and_names_bad_clips(kinegru, spoilt, tmp_path, broken, way):
    recipe = write_recipe(tmp_path / "recipe.yaml", "off" if way == "frames" else tmp_path / "cache", profile="head")
    ran = kinegru("train", spoilt, "--out", "run", "--config", recipe, "--max-bad-clips", "0.9", "--json")
    assert ran.status == 0, ran.err
    one_line(ran.err, f"{len(broken)} clips could not be read and were left out")
    for path in broken:
        one_line(ran.err, f"  {ACTIONS[0]}/{path.name}: ")
    left_out = json.loads(ran.out)["folds"][0]["bad_clips"]
    assert sorted(left_out) == sorted(f"{ACTIONS[0]}/{path.name}" for path in broken)
    assert not any(str(spoilt) in reason for reason in left_out.values())  # no path of this machine in results
    assert Path("run/model.safetensors").exists()
    tested = Predictions.read(Path("run/predictions.csv")).clips
    assert tested and not set(tested) & set(left_out)


@pytest.mark.parametrize("way", ["frames", "cache"])
def test_train_stops_where_too_many_clips_are_bad(kinegru, spoilt, tmp_path, way):
    recipe = write_recipe(tmp_path / "recipe.yaml", "off" if way == "frames" else tmp_path / "cache", profile="head")
    ran = kinegru("train", spoilt, "--out", "run", "--config", recipe)
    assert ran.status == 1
    assert one_line(ran.err, "kinegru train: ", "more than --max-bad-clips 0.05 allows", str(spoilt), "kinegru check")
    assert not Path("run/model.safetensors").exists()


def test_train_takes_clips_with_unkind_names(kinegru, tiny, tmp_path, clips, unkind):
    data = tmp_path / "data set 数据, 'quoted'"
    for number, source in enumerate(sorted(clips.glob("*/*"))):
        copy = data / source.parent.name / f"{number}{unkind[number % len(unkind)].name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
    ran = kinegru("train", data, "--out", "run", "--config", tiny, "--split", "random", "--group-pattern", r"/(\d+)")
    assert ran.status == 0, ran.err
    tested = Predictions.read(Path("run/predictions.csv")).clips
    there = {path.relative_to(data).as_posix() for path in data.glob("*/*")}
    assert there >= set(tested)
    again = kinegru("evaluate", "run", data, "--group-pattern", r"/(\d+)", "--split", "model")
    assert again.status == 0, again.err


# -- evaluate -----------------------------------------------------------------------------------------------------


def test_evaluate_measures_the_readable_clips_and_names_the_rest(kinegru, trained, spoilt, broken, strange):
    ran = kinegru("evaluate", trained, spoilt, "--out", "evaluation", "--json")
    assert ran.status == 1
    result = json.loads(ran.out)
    assert result["metrics"]["clips"] == 16 + len(strange)
    assert sorted(result["bad_clips"]) == sorted(f"{ACTIONS[0]}/{path.name}" for path in broken)
    for path in broken:
        one_line(ran.err, f"kinegru evaluate: {spoilt / ACTIONS[0] / path.name}: ")
    assert Path("evaluation/report.html").exists()


# -- demo ---------------------------------------------------------------------------------------------------------


def test_demo_on_own_clips_stops_with_a_line_where_too_many_are_bad(kinegru, spoilt):
    ran = kinegru("demo", spoilt, "--epochs", "1")
    assert ran.status == 1
    assert one_line(ran.err, "kinegru demo: ", "cannot be read", "kinegru check")


def test_demo_goes_through_on_own_clips_with_unkind_names(kinegru, tmp_path, unkind):
    data = write_small_set(tmp_path / "own clips", people=("ann", "bob", "cyd"))
    for path in unkind[:2]:
        shutil.copy2(path, data / ACTIONS[0])
    ran = kinegru("demo", data, "--epochs", "1")
    assert ran.status == 0, ran.err
    assert "open this report: " in ran.out
    report = Path("runs/demo-own clips/report.html")
    written = report.stat().st_mtime_ns
    again = kinegru("demo", data, "--epochs", "1")
    assert again.status == 0 and "nothing is trained" in again.err and report.stat().st_mtime_ns == written
    longer = kinegru("demo", data, "--epochs", "2")
    assert longer.status == 2 and one_line(longer.err, "epochs 1, not 2")
    other = write_small_set(tmp_path / "elsewhere" / "own clips", people=("dan", "eve", "fay"))
    refused = kinegru("demo", other, "--epochs", "1")
    assert refused.status == 1 and one_line(refused.err, "runs/demo-own clips", "other clips", "--out")


# -- every verb ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["check", "shrink", "train", "evaluate", "demo"])
@pytest.mark.parametrize("kind", ["missing", "empty folder", "no video", "binary file", "no labels"])
def test_data_that_is_none_gives_one_line(kinegru, trained, tiny, tmp_path, verb, kind):
    data = tmp_path / "the data"
    if kind == "empty folder":
        data.mkdir()
    elif kind == "no video":
        (data / "walk").mkdir(parents=True)
        (data / "walk" / "notes.txt").write_text("nothing")
    elif kind == "binary file":
        data.write_bytes(os.urandom(300))
    elif kind == "no labels":
        data.write_text("path,label\na.mp4,\n")
    options = {"train": ["--config", tiny], "evaluate": [trained], "shrink": ["small"]}.get(verb, [])
    arguments = [*options, data] if verb == "evaluate" else [data, *options]
    ran = kinegru(verb, *arguments)
    assert (ran.status, ran.out) == (1, "") or (verb == "check" and kind == "no labels" and ran.status == 1)
    if ran.out == "":
        assert one_line(ran.err, f"kinegru {verb}: ", str(data))
        assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("content", [b"", b"no model", os.urandom(4000)])
def test_a_file_that_is_no_model_gives_one_line(kinegru, clips, tmp_path, content):
    model = tmp_path / "model ' 模型.safetensors"
    model.write_bytes(content)
    for arguments in (("predict", model, next(clips.glob("*/*"))), ("evaluate", model, clips)):
        ran = kinegru(*arguments)
        assert (ran.status, ran.out) == (1, "")
        assert ran.err.splitlines() == [one_line(ran.err, f"kinegru {arguments[0]}: {model}: ")]
