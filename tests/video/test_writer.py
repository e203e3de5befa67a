"""What is written can be read back, and a failed or repeated writing leaves no half file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numbered_video import number_of, numbered_frame

from kinegru.errors import VideoError
from kinegru.video.reader import iter_frames, probe
from kinegru.video.writer import write_video


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", '中文 "a".mp4'])
def test_frames_come_back(name: str, tmp_path: Path) -> None:
    clip = [numbered_frame(i) for i in range(20)]
    assert write_video(tmp_path / name, clip, fps=12.5) == 20
    assert [number_of(frame) for frame in iter_frames(tmp_path / name)] == list(range(20))
    assert probe(tmp_path / name).fps == pytest.approx(12.5)


def test_odd_sizes_are_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mp4", np.full((3, 33, 47, 3), 90, np.uint8))
    info = probe(tmp_path / "odd.mp4")
    assert (info.width, info.height) == (47, 33)


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    clip = [numbered_frame(i) for i in range(20)]
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, clip)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield numbered_frame(0)
        raise RuntimeError("camera unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        write_video(tmp_path / "a.mp4", broken())
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(VideoError, match=r"a\.doc: no video container"):
        write_video(tmp_path / "a.doc", [numbered_frame(0)])
    assert list(tmp_path.iterdir()) == []
