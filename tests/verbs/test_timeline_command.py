"""`kinegru timeline`: a recording in, JSON, CSV, subtitles and a drawn video out, after a kill and of any length."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hostile_files import write_broken, write_strange, write_unkind
from running import wait_while_running
from small_set import moving_bar

from kinegru.models.modelfile import read_header
from kinegru.video.reader import iter_frames, probe
from kinegru.video.writer import write_video

ENDINGS = (".json", ".csv", ".srt")


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips in a row: 4.8 s at 10 frames a second."""
    frames = np.concatenate([moving_bar(action, 20) for action in ("left", "right", "left", "right")])
    return write_long(tmp_path_factory.mktemp("joined") / "joined.mp4", frames)


def write_long(path: Path, frames, fps: float = 10.0) -> Path:
    write_video(path, frames, fps, "mpeg4")
    return path


def test_json_csv_and_subtitles_tell_the_same(kinegru, trained, joined):
    ran = kinegru("timeline", trained, joined, "--json", "--shortest", "0", "--gap", "0", "--threshold", "0")
    assert ran.status == 0
    result = json.loads(ran.out)
    assert result["files"] == [f"joined.timeline{ending}" for ending in ENDINGS]
    segments = result["segments"]
    assert segments[0]["start"] == 0 and segments[-1]["end"] == result["duration"] == pytest.approx(4.8, abs=0.01)
    written = json.loads(Path("joined.timeline.json").read_text())
    assert written == {name: value for name, value in result.items() if name != "files"}
    rows = list(csv.DictReader(Path("joined.timeline.csv").read_text().splitlines()))
    assert [(float(r["start"]), float(r["end"]), r["label"], float(r["score"])) for r in rows] == [
        (s["start"], s["end"], s["label"], s["score"]) for s in segments
    ]
    entries = parse_srt(Path("joined.timeline.srt").read_text())
    named = [s for s in segments if s["label"] != "unknown"]
    assert [(e[0], e[1]) for e in entries] == [(s["start"], s["end"]) for s in named]
    assert [e[2] for e in entries] == [f"{s['label']} {100 * s['score']:.0f} %" for s in named]
    assert sorted(path.name for path in Path().iterdir()) == sorted(result["files"])  # nothing is left over


def parse_srt(text: str) -> list[tuple[float, float, str]]:
    """(start, end, text) of each entry; fails on anything that is not SubRip."""
    entries = []
    for number, block in enumerate(text.rstrip("\n").split("\n\n") if text else [], start=1):
        index, times, *lines = block.split("\n")
        assert int(index) == number and len(lines) == 1
        found = re.fullmatch(r"(\d\d+):([0-5]\d):([0-5]\d),(\d{3}) --> (\d\d+):([0-5]\d):([0-5]\d),(\d{3})", times)
        assert found, times
        h, m, s, ms, *end = map(int, found.groups())
        entries.append(
            (h * 3600 + m * 60 + s + ms / 1000, end[0] * 3600 + end[1] * 60 + end[2] + end[3] / 1000, *lines)
        )
    return entries


def test_what_is_not_sure_is_unknown_and_in_no_subtitle(kinegru, trained, joined):
    ran = kinegru("timeline", trained, joined, "--threshold", "1")
    assert ran.status == 0 and "unknown" in ran.out and "0:04.8" in ran.out
    assert Path("joined.timeline.srt").read_text() == ""
    (segment,) = json.loads(Path("joined.timeline.json").read_text())["segments"]
    assert segment["label"] == "unknown" and 0 < segment["score"] < 1


def test_training_keeps_a_calibration_and_timeline_uses_it(kinegru, trained, joined):
    kept = read_header(trained / "model.safetensors")["provenance"]["calibration"]
    assert set(kept) == {"temperature", "clips", "nll_before", "nll_after"} and kept["clips"] > 0
    ran = kinegru("timeline", trained, joined, "--json")
    assert json.loads(ran.out)["temperature"] == kept["temperature"] and "calibration" not in ran.err


def test_without_a_calibration_it_says_so_once(kinegru, trained, joined, tmp_path):
    from kinegru.models.modelfile import load_model, save_model

    loaded = load_model(trained / "model.safetensors")
    save_model(tmp_path / "bare.safetensors", loaded.model, loaded.labels, loaded.preprocessing)
    ran = kinegru("timeline", "bare.safetensors", joined, "--json")
    result = json.loads(ran.out)
    assert ran.status == 0 and result["temperature"] is None and ran.err.count("no calibration") == 1
    assert result["settings"]["fps"] == 10.0 and ran.err.count("own rate") == 1  # nor how long its clips were


def test_the_drawn_video_is_the_recording_with_a_caption(kinegru, trained, joined):
    ran = kinegru("timeline", trained, joined, "--video", "drawn.mp4", "--out", "sub/named.json", "--json")
    assert ran.status == 0
    assert json.loads(ran.out)["files"] == [*(f"sub/named{ending}" for ending in ENDINGS), "drawn.mp4"]
    before, after = probe(joined), probe("drawn.mp4")
    assert (after.frames, after.fps, after.width, after.height) == (before.frames, 10.0, before.width, before.height)
    pairs = list(zip(iter_frames(joined), iter_frames("drawn.mp4"), strict=True))
    assert np.mean([np.abs(a[:20].astype(int) - b[:20]).mean() for a, b in pairs]) < 6
    assert np.mean([a[20:].mean() - b[20:].mean() for a, b in pairs]) > 15  # the band is dark


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--video", "drawn.txt"], "give a name that ends in"),
        (["--threshold", "1.5"], "threshold is 1.5"),
        (["--fps", "0"], "--fps is 0.0"),
        (["--stride", "0"], "--stride is 0"),
        (["--smooth", "0"], "smooth is 0"),
    ],
)
def test_wrong_use_is_told_before_any_work(kinegru, trained, joined, options, reason):
    ran = kinegru("timeline", trained, joined, *options)
    assert ran.status == 2 and reason in ran.err and len(ran.err.splitlines()) == 1
    assert not list(Path().iterdir())


def test_what_cannot_be_written_is_named_as_it_was_given(kinegru, trained, joined):
    Path("drawn.mp4").mkdir()
    ran = kinegru("timeline", trained, joined, "--video", "drawn.mp4")
    assert ran.status == 2 and "--video drawn.mp4: is a folder" in ran.err
    ran = kinegru("timeline", trained, joined, "--video", "/proc/drawn.mp4")
    assert ran.status == 1 and ran.err.splitlines()[-1].startswith("kinegru timeline: /proc/drawn.mp4: ")


def test_sigterm_leaves_nothing_half_written(trained, tmp_path):
    write_video(tmp_path / "long.mp4", np.concatenate([moving_bar("left", n) for n in range(400)]), 10.0, "mpeg4")
    command = [sys.executable, "-m", "kinegru", "timeline", str(trained), "long.mp4", "--video", "drawn.mp4"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_while_running(process, lambda: list(tmp_path.glob(".drawn.mp4.*")))
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.splitlines()[-1] == "kinegru timeline: interrupted"
    assert not list(tmp_path.glob(".*"))


def test_the_recording_is_never_written_over(kinegru, trained, joined):
    content = joined.read_bytes()
    ran = kinegru("timeline", trained, joined, "--video", joined)
    assert ran.status == 2 and "is the recording itself" in ran.err and joined.read_bytes() == content


def test_a_file_that_is_no_recording_is_one_line_and_status_1(kinegru, trained, tmp_path_factory):
    for path in write_broken(tmp_path_factory.mktemp("hostile") / "broken"):
        ran = kinegru("timeline", trained, path)
        assert (ran.status, ran.out) == (1, ""), path
        assert ran.err.splitlines()[-1].startswith(f"kinegru timeline: {path}: ") and len(ran.err.splitlines()) == 1
        assert not [left for left in Path().iterdir() if left.name.endswith(".partial")]
    assert kinegru("timeline", trained, "missing.mp4").err.endswith("missing.mp4: no such file\n")


def test_strange_recordings_and_unkind_names_get_their_timeline(kinegru, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for path in [*write_strange(folder / "strange"), *write_unkind(folder / "unkind")]:
        ran = kinegru("timeline", trained, path, "--json")
        assert ran.status == 0, ran.err
        segments = json.loads(ran.out)["segments"]
        assert segments and segments[0]["start"] == 0, path
        assert all(Path(f"{path.stem}.timeline{ending}").exists() for ending in ENDINGS)


def test_the_same_command_goes_on_after_a_kill(kinegru, trained, tmp_path):
    frames = np.concatenate([moving_bar(action, seed) for seed in range(10) for action in ("left", "right")])
    long = write_long(tmp_path / "long.mp4", frames)
    command = ["timeline", str(trained), str(long), "--fps", "10", "--stride", "1", "--out", "cut"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "kinegru", *command], cwd=tmp_path, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    partial = tmp_path / "cut.partial"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if partial.exists() and partial.read_bytes().count(b"\n") > 20:
            break
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9, "it ended before it could be killed"
    done = partial.read_bytes().count(b"\n") - 1
    assert 20 <= done < len(frames) - 3 and not Path("cut.json").exists()
    resumed = kinegru(*command, "--json")
    assert f"went on after {done} windows" in resumed.err and not partial.exists()
    whole = kinegru(*command[:-1], "whole", "--json")
    assert "went on" not in whole.err
    one, other = (json.loads(ran.out) for ran in (resumed, whole))
    assert len(one["segments"]) == len(other["segments"])
    for a, b in zip(one["segments"], other["segments"], strict=True):
        assert a == b | {"score": pytest.approx(b["score"], abs=2e-4)}


MEASURE = """
import resource, sys
from kinegru.__main__ import main
for recording in sys.argv[2:]:
    assert main(["timeline", sys.argv[1], recording, "--fps", "4", "--json"]) == 0
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_length(trained, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 120, 160, 3), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    short, long = (
        write_long(tmp_path / f"{seconds}.mp4", (noise[i % 20] for i in range(seconds * 4)), 4.0)
        for seconds in (10, 100)
    )
    frame = noise[0].nbytes / 1024  # KiB; all frames of the long one are 90 MiB
    found = subprocess.run([sys.executable, "-c", MEASURE, trained, short, long], cwd=tmp_path, capture_output=True,
                           text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)  # fmt: skip
    first, second = (int(line.split()[1]) for line in found.stdout.splitlines() if line.startswith("peak"))
    assert second - first < 40 * frame, f"{second - first} KiB more"  # a tenth of the frames
