"""The drawn set is real video, the same for the same seed, and no give-away."""

import atexit
import json
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from kinegru.errors import UsageError
from kinegru.video import synthetic
from kinegru.video.puppet import ACTIONS, Motion, draw_person, skeleton
from kinegru.video.reader import probe, read_clip
from kinegru.video.synthetic import contact_sheet, example_clip, render_clip, write_dataset

SMALL = {"people": 2, "clips_per_action": 1, "size": (64, 48)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    write_dataset(folder, **SMALL, workers=1)
    return folder


def clips(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.mp4"))


def test_every_person_does_everything(dataset: Path) -> None:
    names = [str(path.relative_to(dataset)) for path in clips(dataset)]
    assert names == sorted(f"{action}/p0{person}_{action}_1.mp4" for action in ACTIONS for person in (1, 2))
    for path in clips(dataset):
        info = probe(path)
        assert (info.width, info.height, info.fps) == (64, 48, 25.0)
        assert 1.4 <= info.duration <= 2.6
        assert info.damaged is None


def test_same_seed_same_files_and_processes_change_nothing(dataset: Path, tmp_path: Path) -> None:
    paths = write_dataset(tmp_path / "again", **SMALL, workers=2)
    assert [path.read_bytes() for path in sorted(paths)] == [path.read_bytes() for path in clips(dataset)]
    other = np.stack(list(render_clip("run", 0, 0, seed=1, size=(64, 48))))[:30]
    same = np.stack(list(render_clip("run", 0, 0, seed=0, size=(64, 48))))[:30]
    assert not np.array_equal(other, same)


@pytest.mark.parametrize("action", ["wave", "sit-down"])
def test_in_a_calm_room_nothing_moves_but_the_person(action: str) -> None:
    """Seen at the picture's edges, where the person is not; the sensor's noise stays."""
    quiet, busy = (
        np.stack(list(render_clip(action, 0, 0, size=(96, 72), calm=calm))).astype(float) for calm in (True, False)
    )

    def motion(frames: np.ndarray) -> float:
        edges = np.concatenate([frames[:, :, :12], frames[:, :, -12:]], axis=2)
        return float(np.abs(edges[-8:].mean(axis=0) - edges[:8].mean(axis=0)).mean())

    assert motion(quiet) < 3 and motion(busy) > 2 * motion(quiet)
    assert np.abs(quiet[-8:].mean(axis=0) - quiet[:8].mean(axis=0))[:, 12:-12].mean() > motion(quiet)


def test_an_interrupted_set_is_completed_and_a_whole_one_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    settings = {"people": 1, "clips_per_action": 1, "size": (32, 24), "workers": 1}
    write = synthetic.write_video
    done: list[Path] = []

    def interrupted(path: Path, *rest: object, **options: object) -> int:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(path)
        return write(path, *rest, **options)

    monkeypatch.setattr(synthetic, "write_video", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(folder, **settings)
    assert len(clips(folder)) == 3
    before = {path: path.stat().st_mtime_ns for path in clips(folder)}
    monkeypatch.setattr(synthetic, "write_video", write)
    seen: list[tuple[int, int]] = []
    assert (
        len(write_dataset(folder, **settings, progress=lambda n, of: seen.append((n, of)))) == 6 == len(clips(folder))
    )
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert seen[-1] == (6, 6)
    monkeypatch.setattr(synthetic, "write_video", interrupted)  # would stop at once
    write_dataset(folder, **settings)


def test_other_peoples_folders_are_left_alone(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="other settings"):
        write_dataset(dataset, **(SMALL | {"people": 3}))
    (tmp_path / "holiday.mp4").write_bytes(b"precious")
    with pytest.raises(UsageError, match="not empty"):
        write_dataset(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]


def test_sitting_down_and_standing_up_differ_in_order_alone() -> None:
    """One movement, forwards and backwards: every pose of one is a pose of the other."""
    for seed in range(5):
        person = draw_person(np.random.default_rng(seed))
        down, up = (Motion(action, person, 2.0, np.random.default_rng(seed)) for action in ("sit-down", "stand-up"))
        for time in np.linspace(0, 2, 9):
            assert down.pose(float(time)) == up.pose(float(2 - time))
        heights = [skeleton(person, down.pose(t))["head"][1] for t in (0.0, 2.0)]
        assert heights[0] > heights[1] + 0.25


def test_limbs_keep_their_length_and_feet_stay_above_ground() -> None:
    person = draw_person(np.random.default_rng(0))
    for action in ACTIONS:
        motion = Motion(action, person, 2.0, np.random.default_rng(0))
        bodies = [skeleton(person, motion.pose(t)) for t in np.linspace(0, 2, 40)]
        for a, b in (("hip1", "knee1"), ("knee1", "ankle1"), ("elbow-1", "wrist-1"), ("pelvis", "chest")):
            lengths = [np.linalg.norm(body[a] - body[b]) for body in bodies]
            assert np.ptp(lengths) < 1e-9
        assert min(point[1] for body in bodies for point in body.values()) > 0
        highest = max(min(body["toe1"][1], body["toe-1"][1]) for body in bodies)
        assert (highest > 0.15) == (action == "jump")


def test_people_and_takes_differ() -> None:
    first = [next(render_clip("walk", person, take, size=(64, 48))) for person, take in ((0, 0), (0, 1), (1, 0))]
    assert all(np.abs(a.astype(int) - b).mean() > 8 for a, b in ((first[0], first[1]), (first[0], first[2])))


def test_the_camera_and_the_figure_move(dataset: Path) -> None:
    for path in clips(dataset):
        frames, _ = read_clip(path, 6)
        edge = frames[:, :, :8].astype(int)  # mostly background
        assert np.abs(np.diff(edge, axis=0)).mean() > 1


def test_overview_and_command(dataset: Path, tmp_path: Path) -> None:
    sheet = contact_sheet(clips(dataset)[:3], columns=5, tile=40)
    assert sheet.size == (200, 90)
    marker = json.loads((dataset / synthetic.MARKER).read_text())
    assert marker["people"] == 2
    command = [
        sys.executable,
        "-m",
        "kinegru.video.synthetic",
        str(dataset),
        "--people",
        "2",
        "--clips-per-action",
        "2",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "other settings" in run.stderr


def test_the_example_clip_outlives_a_forked_child_and_not_its_process() -> None:
    clip = example_clip()
    child = get_context("fork").Process(target=atexit._clear)  # as every forked child does, from Python 3.13 on
    child.start()
    child.join()
    assert child.exitcode == 0 and clip.exists()
    code = "from kinegru.video.synthetic import example_clip; print(example_clip())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(other.stdout.strip()).parent.exists() and not other.stderr
