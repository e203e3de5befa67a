"""`kinegru explain`: a video under its heat, a sheet of frames, curves and numbers, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hostile_files import write_broken, write_strange, write_unkind
from PIL import Image
from small_set import moving_bar, write_timed

from kinegru.models.modelfile import load_model, save_model
from kinegru.models.zoo import create_model
from kinegru.recognition.recognizer import Recognizer
from kinegru.video.reader import iter_frames, probe
from kinegru.video.writer import write_video

FILES = ["overlay.mp4", "frames.png", "time.png", "explain.json"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explained") / "walk.mp4"
    write_video(path, moving_bar("left", 20, width=64, height=48), 10.0, "mpeg4")
    return path


def test_all_files_are_written_and_tell_the_same(kinegru, trained, clip):
    ran = kinegru("explain", trained, clip, "--json", "--sanity")
    assert ran.status == 0, ran.err
    result = json.loads(ran.out)
    assert result["files"] == [f"walk.explain/{name}" for name in FILES]
    assert sorted(path.name for path in Path("walk.explain").iterdir()) == sorted(FILES)  # nothing is left over
    said = Recognizer.load(trained).predict(clip)
    assert result["label"] == result["predicted"] == said.label
    assert result["score"] == pytest.approx(said.score, abs=1e-4)
    frames = result["frames"]
    assert {len(values) for values in frames.values()} == {3} and result["sampled"] == [2, 6, 10]
    assert frames["seconds"] == [0.2, 0.6, 1.0] and frames["score"][-1] == pytest.approx(said.score, abs=1e-4)
    assert set(frames) == {
        *("number", "seconds", "score", "heat", "update", "reset", "change", "spatial_mask", "channel_mask"),
    }
    assert set(result["sanity"]) == {"classifier", "temporal", "neck", "trunk"}
    assert all(-1 <= value <= 1 for value in result["sanity"].values())
    written = json.loads(Path("walk.explain/explain.json").read_text())
    maps = written.pop("maps")
    assert written == {name: value for name, value in result.items() if name != "files"}
    assert np.array(maps["heat"]).shape == (3, 2, 2) and np.array(maps["spatial_mask"]).shape == (3, 4, 4)


def test_the_overlay_is_the_video_with_heat_and_the_figures_show_something(kinegru, trained, clip):
    assert kinegru("explain", trained, clip, "--out", "a", "--scale", "frame").status == 0
    before, after = probe(clip), probe("a/overlay.mp4")
    assert (after.frames, after.fps, after.width, after.height) == (before.frames, 10.0, before.width, before.height)
    shown, drawn = (np.stack(list(iter_frames(path))).astype(int) for path in (clip, "a/overlay.mp4"))
    assert np.abs(drawn[:, :36] - shown[:, :36]).mean() > 3
    assert drawn[:, 36:].mean() < shown[:, 36:].mean() - 10  # the band is dark
    for name in ("frames.png", "time.png"):
        picture = np.asarray(Image.open(Path("a") / name).convert("RGB")).astype(int)
        assert picture.shape[0] > 300 and picture.shape[1] > 700
        assert (picture != 255).any(axis=2).mean() > 0.02 and np.ptp(picture, axis=2).max() > 80  # in colour


def test_times_are_those_of_the_file_where_its_rate_varies(kinegru, trained):
    times = [0.1 * number for number in range(6)] + [3.5 + 0.1 * number for number in range(6)]
    clip = write_timed(Path("pause.mkv"), moving_bar("left", 3), times)
    ran = kinegru("explain", trained, clip, "--json")
    assert ran.status == 0, ran.err
    result = json.loads(ran.out)
    assert result["frames"]["seconds"] == pytest.approx([times[number] for number in result["sampled"]], abs=0.002)
    before, after = probe(clip), probe("pause.explain/overlay.mp4")
    assert after.frames / after.fps == pytest.approx(times[-1] + 0.1, abs=2.5 / after.fps) and before.frames == 12


def test_another_label_can_be_asked_for(kinegru, trained, clip):
    said = Recognizer.load(trained).predict(clip)
    (label, _), (other, score) = said.top(2)
    ran = kinegru("explain", trained, clip, "--label", other)
    assert f"{other} {score:.1%}, though it predicts {label}" in ran.out and "states of the ConvGRU" in ran.out
    written = json.loads(Path("walk.explain/explain.json").read_text())
    assert (written["label"], written["predicted"]) == (other, label)
    assert written["scores"] == pytest.approx(dict(said.top(2)), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--label", "lefd"], "label 'lefd' is none of the model's: left"),
        (["--out", "taken"], "--out taken: is a file; give a folder"),
        (["--scale", "week"], "scale"),
    ],
)
def test_wrong_use_is_told_and_nothing_is_written(kinegru, trained, clip, options, reason):
    Path("taken").touch()
    ran = kinegru("explain", trained, clip, *options)
    assert ran.status == 2 and reason in ran.err
    assert [path.name for path in Path().iterdir()] == ["taken"]


def test_the_video_is_never_written_over(kinegru, trained, clip):
    Path("out").mkdir()
    video = Path("out/overlay.mp4")
    video.write_bytes(clip.read_bytes())
    ran = kinegru("explain", trained, video, "--out", "out")
    assert ran.status == 2 and "is the video itself" in ran.err and video.read_bytes() == clip.read_bytes()


def test_a_file_that_is_no_video_is_one_line_and_leaves_nothing(kinegru, trained, tmp_path_factory):
    for path in write_broken(tmp_path_factory.mktemp("hostile") / "broken")[:4]:
        ran = kinegru("explain", trained, path)
        assert (ran.status, ran.out) == (1, ""), path
        assert ran.err.startswith(f"kinegru explain: {path}: ") and len(ran.err.splitlines()) == 1
        assert not list(Path().iterdir())


def test_strange_videos_and_unkind_names_are_explained(kinegru, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    strange = [
        path for path in write_strange(folder / "strange") if path.stem in ("one_frame", "tall", "no_timestamps")
    ]
    unkind = [path for path in write_unkind(folder / "unkind") if "\n" in path.stem or not path.stem.isascii()]
    assert len(unkind) == 3
    for path in [*strange, *unkind]:
        ran = kinegru("explain", trained, path, "--json")
        assert ran.status == 0, ran.err
        assert json.loads(ran.out)["sampled"] and all((Path(f"{path.stem}.explain") / name).exists() for name in FILES)


def test_a_model_without_recurrence_over_maps_says_what_its_heat_is_on(kinegru, clip):
    model = create_model("tsn_xception", 2, backbone="xception_small")
    save_model("mean.safetensors", model, ["left", "right"], {"frames": 3, "size": 32})
    ran = kinegru("explain", "mean.safetensors", clip)
    assert ran.status == 0 and "heat: Grad-CAM on the encoder's last maps" in ran.out
    assert "update" not in json.loads(Path("walk.explain/explain.json").read_text())["frames"]
    ran = kinegru("explain", "mean.safetensors", clip, "--on", "states", "--out", "b")
    assert ran.status == 2 and "has no ConvGRU" in ran.err and not Path("b").exists()


def test_what_the_model_did_not_see_is_shown_as_such(kinegru, trained):
    loaded = load_model(trained / "model.safetensors")
    settings = loaded.preprocessing | {"fit": "crop", "rate": 5.0, "windows": 2}
    save_model("other.safetensors", loaded.model, loaded.labels, settings)
    write_video("wide.mp4", moving_bar("right", 3, frames=20, width=120, height=30), 10.0, "mpeg4")
    ran = kinegru("explain", "other.safetensors", "wide.mp4", "--json")
    assert ran.status == 0, ran.err
    result = json.loads(ran.out)
    assert len(result["sampled"]) == 3 and np.ptp(result["sampled"]) < 8  # a part of the clip
    drawn = np.stack(list(iter_frames("wide.explain/overlay.mp4"))).astype(int)
    shown = np.stack(list(iter_frames("wide.mp4"))).astype(int)
    middle = result["sampled"][1]
    assert drawn[middle, :18, :40].mean() < 0.6 * shown[middle, :18, :40].mean()  # what was cut off is dark
    away = 0 if middle > 10 else 19  # a frame that the model did not look at stays as it is
    assert np.abs(drawn[away, :18] - shown[away, :18]).mean() < 8
