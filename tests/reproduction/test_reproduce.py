"""`kinegru reproduce`, end to end on real clips: killed, gone on with, run again only where something changed."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import wait_while_running
from small_set import PATTERN, write_recipe, write_small_set

from kinegru.__main__ import main
from kinegru.evaluation.predictions import Predictions

ROWS = ("xception_gru", "add")


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips: two actions of six people."""
    return write_small_set(tmp_path_factory.mktemp("data") / "bars", ("ann", "bob", "cyd", "dan", "eve", "fay"))


@pytest.fixture(scope="module")
def words(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of two rows with two seeds, one fold each."""
    folder = tmp_path_factory.mktemp("reproduce")
    recipe = write_recipe(folder / "tiny.yaml", cache=folder / "cache")
    words = ["reproduce", "table4", str(bars), "--config", str(recipe), "--group-pattern", PATTERN, "--split", "group"]
    return [*words, "--seeds", "0", "1", "--rows", *ROWS, "--out", str(folder / "out")]


@pytest.fixture(scope="module")
def out(words: list[str]) -> Path:
    """The OUT of that command, killed with the first run finished and the second begun, and then given again."""
    folder = Path(words[-1])
    process = subprocess.Popen(
        [sys.executable, "-m", "kinegru", *words], stderr=subprocess.DEVNULL, start_new_session=True
    )
    first, second = (
        folder / "runs" / slug / "seed-0" for slug in ("xception_gru", "sc_xception_convgru-classifier-add")
    )
    wait_while_running(process, lambda: (first / "metrics.json").exists() and second.exists())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stamp = (first / "metrics.json").stat().st_mtime_ns
    assert main(words) == 0
    assert (first / "metrics.json").stat().st_mtime_ns == stamp  # what was finished before the kill was left alone
    return folder


def stamps(out: Path) -> dict[str, int]:
    return {
        str(path.relative_to(out)): path.stat().st_mtime_ns for path in sorted(out.glob("runs/*/seed-*/metrics.json"))
    }


def test_after_a_kill_the_same_command_finishes_the_table(out):
    assert len(stamps(out)) == 4
    names = {path.name for path in (out / "table4").iterdir()}
    assert names == {f"table4{end}" for end in (".csv", ".md", ".html", ".png", ".svg", "_comparisons.csv")}
    assert not list(out.glob("runs/**/checkpoint")) and not list(out.glob("runs/**/model.safetensors"))


def test_finished_rows_are_not_run_again(out, words, capsys):
    before = stamps(out)
    assert main([*words, "--workers", "0", "--json"]) == 0
    assert stamps(out) == before
    printed = json.loads(capsys.readouterr().out)
    assert [job["state"] for job in printed["jobs"]] == ["finished"] * 4
    assert [row["row"] for row in printed["rows"]] == list(ROWS)


def test_a_dry_run_runs_nothing(words, bars, tmp_path, capsys):
    other = [*words[:-1], str(tmp_path / "none"), "--dry-run"]
    assert main(other) == 0
    assert not (tmp_path / "none").exists()
    text = capsys.readouterr().out
    assert "nothing was run" in text and "0 of 2 folds finished" in text
    assert "estimate" in text and "GMAC a clip" in text and "GB" in text


def test_a_dry_run_knows_what_is_finished_and_what_changed(out, words, capsys):
    assert main([*words, "--dry-run"]) == 0
    assert "2 of 2 folds finished" in capsys.readouterr().out
    assert main([*words, "--dry-run", "--batch", "4"]) == 0
    assert "seed 1 would be run again: batch was 8 and is 4" in capsys.readouterr().out


def test_changed_settings_are_run_again_in_the_same_place(out, words, capsys):
    before = stamps(out)
    only = words.index("--rows")
    changed = [*words[: only - 2], "0", "--rows", "add", "--out", words[-1], "--batch", "4"]
    assert main(changed) == 0
    assert "run again, because batch was 8 and is 4" in capsys.readouterr().err
    after = stamps(out)
    folder = "runs/sc_xception_convgru-classifier-add/seed-0"
    aside = f"{folder}-before/metrics.json"
    assert after.keys() - before.keys() == {aside} and after[aside] == before[f"{folder}/metrics.json"]  # nothing lost
    assert [name for name in before if after[name] != before[name]] == [f"{folder}/metrics.json"]
    shutil.rmtree(out / f"{folder}-before")


def test_a_row_that_fails_is_reported_and_the_rest_go_on(words, tmp_path, capsys):
    start = [*words[: words.index("--config")], *words[words.index("--config") : words.index("--seeds")]]
    start[1] = "table1"  # InceptionV3 needs more than 32 pixels
    command = [*start, "--seeds", "0", "--rows", "inception_v3", "xception", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "failed: InceptionV3 + ConvGRU, seed 0: RuntimeError" in printed.out and "Traceback" not in printed.err
    assert "Xception + ConvGRU" in printed.out
    markdown = (tmp_path / "out" / "table1" / "table1.md").read_text()
    assert "Failed: seed 0: RuntimeError" in markdown
    assert re.search(r"\| Xception \+ ConvGRU \| .* \| \d of \d \|", markdown)
    assert list((tmp_path / "out").glob("runs/inception_v3*/seed-0/failure.txt"))


def test_processes_change_the_order_of_work_and_not_the_results(out, words, tmp_path, capsys):
    """Two folds at a time, stopped after the first, then gone on with."""
    side_by_side = [*words[:-1], str(tmp_path / "out"), "--processes", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kinegru", *side_by_side], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_while_running(process, lambda: stamps(tmp_path / "out"))
    process.terminate()  # the first process alone: it has to stop the others
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "the same command goes on from there" in said
    before = stamps(tmp_path / "out")
    assert len(before) < 4
    assert main(side_by_side) == 0
    after = stamps(tmp_path / "out")
    assert before.items() <= after.items() and after.keys() == stamps(out).keys()
    for name in after:
        one, other = (folder / Path(name).parent / "predictions.csv" for folder in (out, tmp_path / "out"))
        a, b = Predictions.read(one), Predictions.read(other)
        assert a.clips == b.clips and np.allclose(a.scores, b.scores, atol=0.01)  # rounding, which Adam enlarges


def test_a_killed_run_leaves_no_process_behind(words, tmp_path):
    command = [sys.executable, "-m", "kinegru", *words[:-1], str(tmp_path / "out"), "--processes", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    wait_while_running(process, lambda: list((tmp_path / "out").glob("runs/*/seed-*/settings.yaml")))  # a fold is begun
    process.kill()
    process.communicate(timeout=60)  # returns when the last one that holds its stderr has ended


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--processes", "0"], "--processes 0"),
        (["--rows", "nonsense"], "no row 'nonsense'"),
        (["--seeds", "1", "1"], "different whole numbers"),
        (["--seeds", "two"], "--seeds"),
        (["--seed", "3"], "takes --seeds"),
        (["--weights.xception_small", "nowhere.pth"], "nowhere.pth: no such weights file"),
        (["--weights.xceptoin_small", "nowhere.pth"], "did you mean xception_small?"),
        (["--seeds", "-1"], "between 0 and 4294967295"),
        (["--lists", "nowhere"], "neither UCF101 nor HMDB51"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(more, reason, words, capsys):
    assert main([*words, *more]) == 2
    printed = capsys.readouterr()
    assert reason in printed.err and len(printed.err.strip().splitlines()) == 1 and not printed.out


def test_the_leak_is_the_difference_of_two_splits_and_siblings_are_counted(bars, words, tmp_path, capsys):
    kept = words[words.index("--config") : words.index("--split")]
    command = ["reproduce", "leak", str(bars), *kept, "--seeds", "0", "1", "--out", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    by_group, by_clip = printed["rows"]
    assert "--split group" in by_group["command"] and "--split random" in by_clip["command"]
    siblings = {
        slug: json.loads((tmp_path / "out" / "runs" / slug / "seed-0" / "metrics.json").read_text())["siblings"]
        for slug in (path.name for path in (tmp_path / "out" / "runs").iterdir())
    }
    assert sorted(bool(count) for count in siblings.values()) == [False, True]
    points = 100 * (by_clip["score"]["top1"] - by_group["score"]["top1"])
    page = (tmp_path / "out" / "leak" / "leak.md").read_text(encoding="utf-8")
    assert f"gives {points:+.1f} points over whole groups" in page


def test_a_table_of_copies_says_how_they_were_made(bars, words, tmp_path, capsys):
    small, kept = tmp_path / "small ones", words[words.index("--config") : words.index("--seeds")]
    shrunk = ["shrink", str(bars), str(small), "--short-side", "24"]
    assert main(shrunk) == 0
    command = ["reproduce", "table4", str(small), *kept, "--rows", "xception_gru", "--out", str(tmp_path / "out")]
    assert main([*command, "--seeds", "0"]) == 0
    said = shlex.join(["kinegru", *shrunk, "--crf", "18"])
    for name in ("table4.md", "table4.html"):
        text = html.unescape((tmp_path / "out" / "table4" / name).read_text(encoding="utf-8"))
        assert f"The clips are small copies, made by {said}." in text.replace("`", "")
