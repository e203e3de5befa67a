"""Files that no recogniser should trip over: broken ones, strange but sound ones, and unkind names."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from small_set import moving_bar

from kinegru.video.writer import write_video

UNKIND_NAMES = (
    "with space.mp4",
    "quotes ' and \".mp4",
    "two\nlines.mp4",
    "动作识别 中文.mp4",
    "comma,semicolon;.mp4",
    "[bold]markup[red].mp4",
    "100%s {x} $HOME.mp4",
    os.fsdecode(b"latin-1 caf\xe9.mp4"),
)


def write_broken(folder: Path) -> list[Path]:
    """Files named as videos out of which no frame comes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    whole = folder.parent / "whole.mp4"
    write_video(whole, moving_bar("left"))
    content = whole.read_bytes()
    contents = {
        "text.mp4": b"this is no video\n" * 20,
        "noise.avi": rng.bytes(5000),
        "empty.mp4": b"",
        "header_only.mp4": content[:40],
        "page.mkv": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    for cut in rng.integers(50, len(content) - 200, 3).tolist():  # its index stands at the end, so nothing is readable
        (folder / f"cut_at_{cut}.mp4").write_bytes(content[:cut])
    whole.unlink()
    write_sound(folder / "only_sound.mp4", "aac")
    write_sound(folder / "only_sound_wav.avi", "pcm_s16le")
    (folder / "link_to_nowhere.mp4").symlink_to(folder / "nowhere.mp4")
    return sorted(folder.iterdir())


def write_strange(folder: Path) -> list[Path]:
    """Files out of which frames come, though not as usual."""
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / "one_frame.mp4", moving_bar("left", frames=1))
    write_video(folder / "odd_size.mp4", moving_bar("right", width=97, height=61))
    write_video(folder / "tall.mkv", moving_bar("right", width=16, height=80))
    write_elementary(folder / "no_timestamps.mp4", moving_bar("left"))
    write_video(folder / "slow.avi", moving_bar("left"), fps=0.5, codec="mpeg4")
    return sorted(folder.iterdir())


def write_cut(folder: Path, count: int = 4) -> list[Path]:
    """Streams without an index, cut at random bytes: some frames may come out, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    paths = []
    for suffix in (".avi", ".mkv"):
        whole = folder / f"whole{suffix}"
        write_video(whole, moving_bar("left", frames=24), codec="mpeg4" if suffix == ".avi" else None)
        content = whole.read_bytes()
        whole.unlink()
        for cut in rng.integers(1, len(content), count).tolist():
            paths.append(folder / f"cut_at_{cut}{suffix}")
            paths[-1].write_bytes(content[:cut])
    return sorted(paths)


def write_unkind(folder: Path) -> list[Path]:
    """Sound clips with names that break careless programs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in UNKIND_NAMES:
        write_video(folder / name, moving_bar("left"))
    return sorted(folder.iterdir())


def write_sound(path: Path, codec: str) -> None:
    """Half a second of a tone, and no picture."""
    rate = 16000
    tone = (np.sin(np.arange(rate // 2) * 0.2) * 8000).astype(np.int16)[None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        for part in (frame, None):
            container.mux(stream.encode(part))


def write_elementary(path: Path, frames: np.ndarray) -> None:
    """H.264 without a container: no timestamps, no frame count, no duration."""
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
