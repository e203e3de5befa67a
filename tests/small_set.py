"""Real, tiny video files that train in a second: a bright bar goes left or right, for eight "people"."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import yaml

from kinegru.video.writer import write_video

ACTIONS = ("left", "right")
PEOPLE = ("ann", "bob", "cyd", "dan", "eve", "fay", "gus", "hal")
PATTERN = r"/([a-z]+)_"  # the person, in left/ann_left.mp4

TINY = {
    "options": {"backbone": "xception_small", "hidden_channels": 4, "width": 8},
    "backbone_weights": "none",
    "frames": 3,
    "size": 32,
    "epochs": 1,
    "batch": 8,
    "views": 1,
    "workers": 0,
    "device": "cpu",
}


def moving_bar(action: str, seed: int = 0, frames: int = 12, width: int = 48, height: int = 32) -> np.ndarray:
    """Frames (frames, height, width, 3), uint8."""
    rng = np.random.default_rng([seed, ACTIONS.index(action)])
    clip = np.empty((frames, height, width, 3), np.uint8)
    clip[:] = rng.integers(20, 120, 3)
    for i in range(frames):
        part = i / max(1, frames - 1)
        at = round((part if action == "right" else 1 - part) * (width - 8))
        clip[i, :, at : at + 8] = rng.integers(180, 256, 3)
    return clip


def write_small_set(folder: Path, people: tuple[str, ...] = PEOPLE, frames: int = 12) -> Path:
    """FOLDER/ACTION/PERSON_ACTION.mp4, one clip a person and action; returns the folder."""
    for action in ACTIONS:
        (folder / action).mkdir(parents=True, exist_ok=True)
        for seed, person in enumerate(people):
            write_video(folder / action / f"{person}_{action}.mp4", moving_bar(action, seed, frames))
    return folder


def write_recipe(path: Path, cache: Path | str = "off", **changes: object) -> Path:
    """A recipe file for a model that trains in a second."""
    path.write_text(yaml.safe_dump(TINY | {"cache": str(cache)} | changes), encoding="utf-8")
    return path


def write_timed(path: Path, frames: np.ndarray, times: list[float]) -> Path:
    """A video whose frames are shown from these seconds on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1000)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
