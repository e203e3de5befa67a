"""RGB frames into a video file that appears under its name only when it is whole.

H.264 where libav was built with an encoder for it, else MPEG-4 part 2; both play everywhere. One encoder thread and no
macroblock tree (in x264 it differs from run to run, two or three times in a thousand), so the same frames give the same
file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from kinegru.errors import UsageError, VideoError
from kinegru.files import atomic_write
from kinegru.video.container import shown

ENDINGS = (".mp4", ".mkv", ".mov", ".m4v", ".avi")
ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "23", "x264-params": "mbtree=0"},
    "libopenh264": {},
    "mpeg4": {"qscale": "4"},
}


def require_video_name(option: str, name: str, source: str | None, what: str) -> None:
    """Raise UsageError, before any work, where no video can be written at `name`, given as `option`.

    `source` is the file that is read at the same time, if it is one; `what` is its name in the message.
    """
    given = f"{option} {shown(name)}"
    if not name.lower().endswith(ENDINGS):
        raise UsageError(f"{given}: give a name that ends in one of {', '.join(ENDINGS)}")
    if Path(name).is_dir():
        raise UsageError(f"{given}: is a folder; give the name of a file")
    if source is not None and Path(name).exists() and Path(source).exists() and Path(name).samefile(source):
        raise UsageError(f"{given}: is the {what} itself; give another name")


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[NDArray[np.uint8]],
    fps: float = 25.0,
    codec: str | None = None,
    options: dict[str, str] | None = None,
) -> int:
    """Encode uint8 frames (H, W, 3) RGB, all of one size; the number of frames written is returned.

    The container follows from the name (.mp4, .mkv, .avi). Sides may be odd. `codec` and `options` are libav's;
    without them the best encoder at hand is taken. Raises VideoError for an unknown container or codec, ValueError
    for no frames.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(Path(folder) / "black.mp4", np.zeros((10, 48, 64, 3), np.uint8))
    10
    """
    path = Path(path)
    codec = codec or next(name for name in ENCODERS if name in av.codecs_available)
    options = ENCODERS.get(codec, {}) if options is None else options
    count = 0
    with atomic_write(path, "wb") as file:
        try:
            with av.open(file, "w", format=_container(path)) as container:
                stream: Any = None
                for image in frames:
                    if stream is None:
                        stream = container.add_stream(
                            codec, rate=Fraction(fps).limit_denominator(1001), options=options
                        )
                        stream.height, stream.width = image.shape[:2]
                        odd = image.shape[0] % 2 or image.shape[1] % 2
                        stream.pix_fmt = "yuv444p" if odd and codec == "libx264" else "yuv420p"
                        stream.thread_count = 1
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
                    count += 1
                if stream is None:
                    raise ValueError("a video needs at least one frame")
                container.mux(stream.encode(None))
        except av.error.FFmpegError as error:
            raise VideoError(f"{path}: cannot be written with {codec} ({error.strerror})") from None
    return count


def _container(path: Path) -> str:
    suffix = path.suffix.lower().lstrip(".")
    name = {"mkv": "matroska", "m4v": "mp4"}.get(suffix, suffix)
    if name not in av.formats_available:
        raise VideoError(f"{path}: no video container is known by the ending {path.suffix!r}; use .mp4, .mkv or .avi")
    return name
