"""Real encoded clips whose frames carry their own number, as a pattern of light and dark blocks."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROWS, COLUMNS = 3, 4  # blocks, one bit each


def numbered_frame(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A picture (height, width, 3) that shows `number` in binary, least significant bit at the top left."""
    bits = [(number >> i) & 1 for i in range(ROWS * COLUMNS)]
    blocks = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * 180 + 30
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    return np.repeat(blocks[rows][:, columns, None], 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    """The number a decoded picture shows."""
    grey = frame.astype(np.float32).mean(2)
    height, width = grey.shape
    total = 0
    for row in range(ROWS):
        for column in range(COLUMNS):
            middle = grey[
                height * (3 * row + 1) // (3 * ROWS) : height * (3 * row + 2) // (3 * ROWS) + 1,
                width * (3 * column + 1) // (3 * COLUMNS) : width * (3 * column + 2) // (3 * COLUMNS) + 1,
            ]
            total |= int(middle.mean() > 120) << (row * COLUMNS + column)
    return total


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    rate: int = 25,
    times: Iterable[int] | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container: str | None = None,
    sound: bool = False,
) -> Path:
    """Write frames with PyAV directly, so that the reader is tested against libav and not against our writer.

    `times` are presentation times in units of 1 / (rate * 10) seconds; without them frames follow evenly.
    """
    frames = list(frames)
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, rate * 10)
        if sound:
            audio = output.add_stream("aac", rate=16000, layout="mono")
        stamps = list(times) if times is not None else None
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[i], Fraction(1, rate * 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate = 16000
            output.mux(audio.encode(samples))
            output.mux(audio.encode(None))
    return path
