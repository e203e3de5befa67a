"""The doctor names what is wrong with real encoded files, and nothing ends its round."""

import io
import json
import os
import signal
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from kinegru.data.doctor import Report, check_data
from kinegru.data.doctor_table import render
from kinegru.data.examine import Examination, examine, examine_all
from kinegru.errors import UsageError


def write_video(path: Path, frames: int = 24, size: tuple[int, int] = (64, 48), fps: int = 25, seed: int = 0) -> Path:
    """Noise, so that files differ and a cut loses frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for _ in range(frames):
            image = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)  # (H, W, 3)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four sound clips."""
    root = tmp_path_factory.mktemp("sound")
    for label in ("run", "walk"):
        for n in range(4):
            write_video(root / label / f"p{n}_{label}.avi", frames=20 + n, seed=n + 10 * (label == "run"))
    return root


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """The sound clips, to be spoiled."""
    for path in sound.glob("*/*"):
        target = tmp_path / "set" / path.relative_to(sound)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "set"


def found(report: Report) -> set[tuple[str, str]]:
    return {(finding.kind, finding.subject) for finding in report.problems}


def test_sound_data_has_no_problem_and_is_measured(sound: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = check_data(
        sound, group_pattern=r"(p\d)_", workers=1, progress=lambda done, total: calls.append((done, total))
    )
    assert report.ok and not report.problems and not report.remarks and not report.notes
    assert calls == [(i, 8) for i in range(1, 9)]
    assert (report.clips, report.readable, report.frames, report.classes) == (8, 8, 172, {"run": 4, "walk": 4})
    assert report.seconds == pytest.approx(172 / 25)
    assert report.lengths == [("20", 2), ("21", 2), ("22", 2), ("23", 2)]
    assert report.sizes == [("64x48", 8)] and report.rates == [("25", 8)]
    assert report.bytes == sum(path.stat().st_size for path in sound.glob("*/*"))
    assert report.data["groups"] == 4


def test_every_kind_of_damage_is_named(copy: Path) -> None:
    clip = (copy / "walk" / "p0_walk.avi").read_bytes()
    (copy / "walk" / "empty.avi").touch()
    (copy / "walk" / "text.avi").write_text("this is no video")
    (copy / "walk" / "cut.avi").write_bytes(clip[: len(clip) // 2])
    (copy / "walk" / "again [bold].avi").write_bytes(clip)
    (copy / "run" / "other label.avi").write_bytes(clip)
    write_video(copy / "walk" / "short.avi", frames=3)
    write_video(copy / "Run" / "p9.avi", seed=9)
    write_video(copy / "loose.avi", seed=7)
    write_video(copy / "walk" / "deeper" / "d.avi", seed=8)
    (copy / "walk" / "link.avi").symlink_to(copy / "gone.avi")
    (copy / "walk" / "notes.txt").write_text("x")
    (copy / "nothing").mkdir()
    report = check_data(copy, workers=0)
    assert found(report) == {
        ("empty", "walk/empty.avi"),
        ("unreadable", "walk/text.avi"),
        ("truncated", "walk/cut.avi"),
        ("too_short", "walk/cut.avi"),
        ("missing", "walk/link.avi"),
        ("too_short", "walk/short.avi"),
        ("conflict", "walk/again [bold].avi"),  # the same as "run/other label.avi"
        ("conflict", "walk/p0_walk.avi"),
        ("mis_cased", "run"),
        ("few_clips", "Run"),
        ("unlabelled", "loose.avi"),
        ("unlabelled", "walk/deeper/d.avi"),
    }
    assert {(finding.kind, finding.subject) for finding in report.remarks} == {
        ("not_video", "walk/notes.txt"),
        ("not_video", "nothing"),
    }
    assert not report.ok and report.readable == report.clips - 3


def test_a_truncated_clip_says_how_much_of_it_can_be_used(copy: Path) -> None:
    path = write_video(copy / "walk" / "long.avi", frames=60, seed=5)
    path.write_bytes(path.read_bytes()[:-20_000])
    report = check_data(copy, workers=0)
    (finding,) = report.problems
    used = int(finding.message.rpartition("; ")[2].split(" ")[0])
    assert finding.kind == "truncated" and 8 < used < 60 and report.frames == 172 + used


def test_the_same_content_in_two_groups_is_said_to_be_so(copy: Path) -> None:
    (copy / "walk" / "p7_walk.avi").write_bytes((copy / "walk" / "p0_walk.avi").read_bytes())
    (finding,) = check_data(copy, r"(p\d)_", workers=0).problems
    assert finding.kind == "duplicate" and finding.message == "the same as walk/p0_walk.avi, in another group (p0)"


def test_faulty_lines_of_a_csv_are_findings(copy: Path) -> None:
    lines = [f"{path.relative_to(copy).as_posix()},{path.parent.name}" for path in sorted(copy.glob("*/*"))]
    bad = ["gone.avi,walk", "WALK/p1_walk.avi,walk", "walk/p2_walk.avi,", "run/p1_run.avi,run", "a,b,c"]
    (copy / "clips.csv").write_text("\n".join(["path,label", *lines, *bad]))
    report = check_data(copy / "clips.csv", workers=0)
    assert found(report) == {
        ("missing", "gone.avi"),
        ("mis_cased", "WALK/p1_walk.avi"),
        ("unlabelled", "clips.csv:12"),
        ("duplicate", "clips.csv:13"),
        ("table", "clips.csv:14"),
    }
    assert "walk/p1_walk.avi" in next(f.message for f in report.problems if f.kind == "mis_cased")


def test_clips_the_official_lists_name_are_missed(tmp_path: Path) -> None:
    for label, n in (("YoYo", 1), ("HandstandPushups", 1)):
        action = "HandStandPushups" if n and label[0] == "H" else label
        for group in (1, 2):
            write_video(
                tmp_path / "UCF-101" / label / f"v_{action}_g0{group}_c01.avi", seed=group + 10 * (label == "YoYo")
            )
    names = ["YoYo/v_YoYo_g01_c01.avi", "YoYo/v_YoYo_g01_c02.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi"]
    for number in (1, 2, 3):
        for stem, lines in (("train", [f"{name} 1" for name in names]), ("test", ["Surfing/v_Surfing_g01_c01.avi"])):
            path = tmp_path / "ucfTrainTestlist" / f"{stem}list{number:02d}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(lines))
    report = check_data(tmp_path, workers=0, min_clips=2)
    assert found(report) == {("missing", "YoYo/v_YoYo_g01_c02.avi")}
    assert [(finding.kind, finding.subject) for finding in report.remarks] == [("missing", "Surfing")]


def _dies_on_bad(path: Path) -> Examination:
    if "bad" in path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    return examine(path)


def test_a_worker_that_dies_does_not_end_the_check(sound: Path, tmp_path: Path) -> None:
    paths = sorted(sound.glob("*/*"))
    for name in ("bad1.avi", "bad2.avi"):
        (tmp_path / name).write_bytes(paths[0].read_bytes())
    mixed = [tmp_path / "bad1.avi", *paths[:5], tmp_path / "bad2.avi", paths[5]]
    answers = examine_all(mixed, workers=2, work=_dies_on_bad)
    assert [answer.error and answer.error[1] for answer in answers] == [
        "crashes the decoder", *[None] * 5, "crashes the decoder", None,
    ]  # fmt: skip
    assert [answer.info.frames for answer in answers if answer.info] == [
        examine(path).info.frames for path in paths[:6]
    ]


def test_processes_give_the_same_report_as_none(sound: Path) -> None:
    assert check_data(sound, workers=2) == check_data(sound, workers=0)


def test_negative_workers_are_wrong_use(sound: Path) -> None:
    with pytest.raises(UsageError, match="workers is -1"):
        check_data(sound, workers=-1)


def test_the_report_survives_json_and_is_readable_in_a_terminal(copy: Path) -> None:
    (copy / "walk" / "[red]x.avi").touch()
    (copy / "walk" / "text.avi").write_text("no video")
    report = check_data(copy, workers=0)
    assert json.loads(json.dumps(report.to_dict()))["problems"][0] == {
        "kind": "empty", "subject": "walk/[red]x.avi", "message": "0 bytes",
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=100)
    render(report, console)
    text = console.file.getvalue()
    assert "walk/[red]x.avi" in text and "64x48" in text
    assert text.splitlines()[-1] == "2 problems: 1 empty, 1 unreadable"
    assert json.loads(json.dumps(report.to_dict()))["ok"] is False


def test_long_lists_of_findings_are_cut_in_the_terminal_only(copy: Path) -> None:
    for n in range(30):
        (copy / "walk" / f"e{n:02d}.avi").touch()
    report = check_data(copy, workers=0)
    assert len(report.problems) == 30
    console = Console(file=io.StringIO(), width=100)
    render(report, console, per_kind=5)
    text = console.file.getvalue()
    assert "e04.avi" in text and "e05.avi" not in text and "and 25 more" in text


def test_weizmann_is_sound(shared: Path) -> None:
    report = check_data(shared / "data" / "weizmann", group_pattern=r"/([a-z]+)_", workers=1)
    assert report.ok and report.readable == 90 and report.sizes == [("180x144", 90)]
