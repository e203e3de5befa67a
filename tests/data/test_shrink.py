"""Small copies keep what a data set says: names, classes, groups, splits, lists, frames and their rate."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_set import moving_bar, write_small_set
from test_docs import write_ucf101

from kinegru.data.catalog import load_catalog
from kinegru.data.copies import shrink_command
from kinegru.data.shrink import shrink_data, smaller_sides
from kinegru.data.splits import make_splits
from kinegru.errors import DataError, UsageError
from kinegru.video.loading import load_clip
from kinegru.video.reader import probe
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing
from kinegru.video.writer import write_video


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips of 12 frames, 96 x 64."""
    folder = tmp_path / "clips"
    for action in ("left", "right"):
        for seed, person in enumerate(("ann", "bob")):
            (folder / action).mkdir(parents=True, exist_ok=True)
            frames = moving_bar(action, seed, width=96, height=64)
            write_video(folder / action / f"{person}_{action}.avi", frames, fps=12.5, codec="mpeg4")
    return folder


def told(data: Path | str) -> list[tuple[str, str, str | None, str | None]]:
    """What a data set says of its clips, but for the ending of their names."""
    catalog = load_catalog(data)
    return [(str(Path(catalog.name(c)).with_suffix("")), c.label, c.group, c.split) for c in catalog.clips]


def test_copies_keep_names_classes_groups_frames_and_rate(clips: Path, tmp_path: Path) -> None:
    rows = [f"{action}/{person}_{action}.avi,{person}" for action in ("left", "right") for person in ("ann", "bob")]
    (clips / "groups.csv").write_text("path,group\n" + "\n".join(rows) + "\n")
    calls: list[tuple[int, int]] = []
    shrunk = shrink_data(clips, tmp_path / "small", 32, workers=2, progress=lambda *done: calls.append(done))
    assert (shrunk.clips, shrunk.copied, shrunk.kept, shrunk.exit_status) == (4, 4, 0, 0)
    assert calls == [(n, 4) for n in range(1, 5)]
    assert told(shrunk.data) == told(clips) and {group for _, _, group, _ in told(clips)} == {"ann", "bob"}
    for path in (tmp_path / "small").glob("*/*.mp4"):
        info = probe(path)
        assert (info.frames, info.fps, info.width, info.height, info.damaged) == (12, 12.5, 48, 32, None)
    assert shrunk.bytes_after == sum(path.stat().st_size for path in (tmp_path / "small").glob("*/*.mp4"))


def test_a_copy_shows_what_the_clip_shows(tmp_path: Path) -> None:
    (tmp_path / "clips" / "walk").mkdir(parents=True)
    shutil.copy(example_clip(), tmp_path / "clips" / "walk" / "a.mp4")
    shrink_data(tmp_path / "clips", tmp_path / "small", 48, workers=0)
    seen = Preprocessing(frames=6, size=32)
    clip, copy = (load_clip(tmp_path / where / "walk" / "a.mp4", seen) for where in ("clips", "small"))
    assert np.abs(clip.numpy()).mean() > 0.1
    assert float((clip - copy).abs().mean()) < 0.03  # of values in -1 .. 1


@given(height=st.integers(2, 3000), width=st.integers(2, 3000), short_side=st.integers(8, 300).map(lambda n: 2 * n))
@settings(deadline=None)
def test_sides_are_even_keep_their_shape_and_never_grow(height: int, width: int, short_side: int) -> None:
    sides = smaller_sides(height, width, short_side)
    assert all(side % 2 == 0 for side in sides)
    if min(height, width) <= short_side:  # at most a row or column more, to be even
        assert all(abs(side - was) <= 1 for side, was in zip(sides, (height, width), strict=True))
    else:
        assert min(sides) == short_side
        assert abs(max(sides) - max(height, width) * short_side / min(height, width)) <= 1


def test_the_same_call_goes_on_and_copies_what_is_missing_or_older(clips: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    shrink_data(clips, small, 32, workers=0)
    before = {path: path.stat().st_mtime_ns for path in small.glob("*/*.mp4")}
    lost, stale = small / "left" / "ann_left.mp4", small / "right" / "bob_right.mp4"
    lost.unlink()
    write_video(clips / "right" / "bob_right.avi", moving_bar("left", 9, frames=20), codec="mpeg4")
    os.utime(clips / "right" / "bob_right.avi", ns=(before[stale] + 10**9,) * 2)
    again = shrink_data(clips, small, 32, workers=0)
    assert (again.copied, again.kept) == (2, 2)
    assert probe(stale).frames == 20 and probe(lost).frames == 12
    for path in before.keys() - {lost, stale}:
        assert path.stat().st_mtime_ns == before[path]


def test_a_table_keeps_labels_groups_and_splits(clips: Path, tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    table.write_text(
        "path,label,group,split\nclips/left/ann_left.avi,go,ann,train\nclips/right/ann_right.avi,stay,,test\n"
    )
    shrunk = shrink_data(table, tmp_path / "small", 32, workers=0)
    assert Path(shrunk.data) == tmp_path / "small" / "clips.csv"
    assert told(shrunk.data) == told(table)
    assert all(clip.path.is_file() for clip in load_catalog(shrunk.data).clips)


def test_official_lists_come_along(tmp_path: Path) -> None:
    write_ucf101(tmp_path / "UCF-101")
    shrunk = shrink_data(tmp_path / "UCF-101", tmp_path / "elsewhere" / "small", 16, workers=0)
    catalogs = [load_catalog(tmp_path / "UCF-101"), load_catalog(shrunk.data)]
    assert catalogs[1].kind == "ucf101" and told(shrunk.data) == told(tmp_path / "UCF-101")
    tests = [
        [clip.path.stem for clip in make_splits(catalog, "official:1", 0)[0].test] for catalog in catalogs
    ]  # fmt: skip
    assert tests[0] == tests[1] and tests[0]


def test_lists_among_the_clips_come_without_the_clips(tmp_path: Path) -> None:
    write_ucf101(tmp_path / "UCF-101")
    for path in (tmp_path / "UCF-101" / "ucfTrainTestlist").iterdir():
        path.rename(tmp_path / "UCF-101" / path.name)
    (tmp_path / "UCF-101" / "ucfTrainTestlist").rmdir()
    shrunk = shrink_data(tmp_path / "UCF-101", tmp_path / "elsewhere" / "small", 16, workers=0)
    assert load_catalog(shrunk.data).lists is not None
    assert sum(path.suffix in (".avi", ".mp4") for path in Path(shrunk.data).rglob("*")) == shrunk.clips


def test_what_cannot_be_read_is_named_and_the_rest_copied(clips: Path, tmp_path: Path) -> None:
    (clips / "left" / "text.avi").write_text("no video")
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), np.uint8)
    write_video(clips / "right" / "cut.avi", noise, codec="mpeg4")
    os.truncate(clips / "right" / "cut.avi", (clips / "right" / "cut.avi").stat().st_size // 2)
    shrunk = shrink_data(clips, tmp_path / "small", 32, workers=1)
    assert shrunk.exit_status == 1 and list(shrunk.unreadable) == ["left/text.avi"]
    assert list(shrunk.damaged) == ["right/cut.avi"]
    assert 1 <= probe(tmp_path / "small" / "right" / "cut.mp4").frames < 20
    assert not (tmp_path / "small" / "left" / "text.mp4").exists()
    assert shrunk.copied == 5


def test_copies_of_two_kinds_do_not_mix(clips: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    shrink_data(clips, small, 32, workers=0)
    with pytest.raises(UsageError, match="made with --short-side 32 --crf 18"):
        shrink_data(clips, small, 48, workers=0)
    (tmp_path / "empty").mkdir()
    assert shrink_data(clips, tmp_path / "empty", 48, workers=0).copied == 4
    own = write_small_set(tmp_path / "own", people=("ann",))
    with pytest.raises(UsageError, match="holds no copies made by this verb"):
        shrink_data(clips, own, 32, workers=0)
    with pytest.raises(UsageError, match="lies in the folder of the clips"):
        shrink_data(clips, clips / "small", 32, workers=0)
    for short_side, crf in ((31, 18), (8, 18), (32, 52)):
        with pytest.raises(UsageError, match=r"--(short-side|crf) \d+: "):
            shrink_data(clips, tmp_path / "other", short_side, crf, workers=0)
    assert not (tmp_path / "other").exists()


def test_copies_know_the_command_that_made_them(clips: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    for made_of in (clips, tmp_path / "moved"):  # the same copies go on when the clips have moved
        clips = clips.rename(made_of)
        shrink_data(clips, small, 32, workers=0)
        command = f"kinegru shrink {clips} {small} --short-side 32 --crf 18"
        assert shrink_command(small) == command
        assert load_catalog(small).notes == (f"the clips are small copies, made by: {command}",)  # reports print notes
    (small / "shrink.json").write_text("not JSON")
    assert shrink_command(small) is None and shrink_command(clips) is None and not load_catalog(clips).notes
    table = tmp_path / "all.csv"
    table.write_text("path,label\nmoved/left/ann_left.avi,go\n")
    of_table = shrink_data(table, tmp_path / "less", 32, workers=0).data
    assert shrink_command(of_table) == f"kinegru shrink {table} {tmp_path / 'less'} --short-side 32 --crf 18"


def test_two_clips_never_become_one_copy(clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "left" / "ann_left.avi", clips / "left" / "ann_left.mkv")
    with pytest.raises(DataError, match=r"left/ann_left\.avi and left/ann_left\.mkv would both be copied to"):
        shrink_data(clips, tmp_path / "small", 32, workers=0)
    table = tmp_path / "tables" / "all.csv"
    table.parent.mkdir()
    table.write_text(f"path,label\n{clips / 'left' / 'ann_left.avi'},left\n")
    with pytest.raises(DataError, match="lies outside of the table's folder"):
        shrink_data(table, tmp_path / "small", 32, workers=0)
    assert not (tmp_path / "small").exists()
