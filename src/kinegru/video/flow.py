"""Optical flow of a clip, in eight bits: what the flow and saliency streams see (needs the extra `flow`, OpenCV).

* Field n is the motion from frame n to frame n + 1: OpenCV's DIS flow (Kroeger et al., ECCV 2016, preset medium) on
  grey frames whose short side is brought down to 240 pixels, UCF101's own; smaller frames are taken as they are.
* x to the right, y down, in pixels of those frames, clipped to ±20 and stored as 128 + round(127/20 · d): zero is
  exact, an error is below 0.08 pixel, 256 - v is the opposite motion. Cutting or scaling a field leaves its values.
* A frame's stack are the ten fields from it on (Simonyan & Zisserman, NeurIPS 2014), 20 channels x, y, x, y ...; near
  the end of the clip the last ten, in a shorter clip its last field again, in a clip of one frame no motion at all.
* Motion saliency is one channel: how far a pixel's motion is from that of the frame, against the frame's average.
* Motion energy are three: the same distance in pixels, early, in the middle and late in the stack; time as colour.
* OpenCV is imported where flow is computed. It is given one thread: clips are read side by side, in processes whose
  parent may have had a pool of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinegru.errors import UsageError
from kinegru.video.container import Decoder
from kinegru.video.reader import Frame

FORMAT = 1  # raise it, and that of the feature cache, where the numbers below or their meaning change
FIELDS = 10  # in a stack
BOUND = 20.0  # pixels; larger motions are clipped
STEP = BOUND / 127  # pixels between two stored values
ZERO = 128  # stored for no motion
LARGEST_SIDE = 240  # of a frame's shorter side, pixels
SMALLEST_SIDE = 32  # DIS needs some room; smaller frames are enlarged
STILL = 0.5  # pixels; motion contrasts well below this are not salient

Fields = NDArray[np.uint8]  # (n, h, w, 2)
Numbers = Sequence[int] | NDArray[np.int64]
FlowReader = Callable[[str | os.PathLike[str], Numbers], Fields]  # `read_flow`, or a cache of what it gives


def require_opencv() -> ModuleType:
    """OpenCV, with one thread. Raises UsageError, one line that names the extra, where it is not installed."""
    try:
        import cv2
    except ImportError:
        raise UsageError("optical flow needs OpenCV: pip install 'kinegru[flow]'") from None
    cv2.setNumThreads(1)
    return cv2


def quantise(flow: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Pixels -> eight bits, clipped to ±BOUND: values 1 .. 255, ZERO for no motion.

    >>> quantise(np.array([-99.0, -1.0, 0.0, 20.0]))
    array([  1, 122, 128, 255], dtype=uint8)
    """
    return (np.clip(flow, -BOUND, BOUND) / STEP + ZERO).round().astype(np.uint8)


def dequantise(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Eight bits -> pixels; off by STEP / 2 at most within ±BOUND.

    >>> dequantise(np.array([1, 128, 255], np.uint8))
    array([-20.,   0.,  20.], dtype=float32)
    """
    return (stored.astype(np.float32) - ZERO) * np.float32(STEP)


def windows(starts: Numbers, length: int) -> NDArray[np.int64]:
    """Numbers of the fields of each frame's stack in a clip of `length` frames: int64 (T, FIELDS).

    >>> windows([0, 30], 40)[:, [0, -1]].tolist()
    [[0, 9], [29, 38]]
    >>> windows([2], 4).tolist()
    [[0, 1, 2, 2, 2, 2, 2, 2, 2, 2]]
    """
    first = np.minimum(np.asarray(starts, np.int64), max(length - 1 - FIELDS, 0))  # (T,)
    return np.minimum(first[:, None] + np.arange(FIELDS), max(length - 2, 0))


def flow_of_frames(frames: Iterable[Frame], numbers: Numbers | None = None) -> Fields:
    """The flow of consecutive RGB frames (H, W, 3): the numbered fields, by default all, uint8 (n, h, w, 2).

    A single frame has one field, without motion. What is not asked for is not computed. For a field that there is not
    stands the last one asked for before it, or no motion.

    >>> flow_of_frames(np.zeros((3, 48, 64, 3), np.uint8)).shape
    (2, 48, 64, 2)
    """
    if numbers is None:
        compute = RunningFlow()
        fields = [field for field in map(compute.next, frames) if field is not None]
        return np.stack(fields or [compute.zero()])
    return _numbered(frames, lambda frame: frame, numbers)


def read_flow(path: str | os.PathLike[str], numbers: Numbers) -> Fields:
    """The numbered fields of a video file, as `flow_of_frames`: uint8 (len(numbers), h, w, 2). Raises VideoError.

    >>> from kinegru.video.synthetic import example_clip
    >>> read_flow(example_clip(), [0, 28, 28]).shape
    (3, 72, 96, 2)
    """
    with Decoder(path) as decoder:
        return _numbered(decoder, decoder.rgb, numbers)


def _numbered(frames: Iterable[Any], rgb: Callable[[Any], Frame], numbers: Numbers) -> Fields:
    wanted = {int(number) for number in numbers}
    compute = RunningFlow()
    found: dict[int, NDArray[np.uint8]] = {}
    for number, frame in enumerate(frames):
        if number > max(wanted) + 1:
            break
        if number in wanted or number - 1 in wanted or not number:
            field = compute.next(rgb(frame))
            if number - 1 in wanted and field is not None:
                found[number - 1] = field
        if number not in wanted:
            compute.forget()
    latest = compute.zero()
    for number in sorted(wanted):
        latest = found.setdefault(number, latest)
    return np.stack([found[int(number)] for number in numbers])


def contrast(field: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far each pixel's motion is from the dominant one, |d - median(d)|: uint8 (h, w, 2) -> float32 (h, w), pixels.

    The median of a field is the motion of the camera, or of the background.
    """
    dominant = np.median(field.reshape(-1, 2), axis=0)  # (2,)
    d = (field - dominant.astype(np.float32)) * np.float32(STEP)
    return np.hypot(d[..., 0], d[..., 1])


def saliency(contrasts: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Motion saliency of a frame from the contrasts of its stack (FIELDS, h, w): uint8 (h, w), 0 .. 255 for 0 .. 1.

        r = mean over the fields of |d - median(d)|,    s = r / (r + mean(r) + STILL)

    What moves as much as the average pixel gets about a half, noise in a still picture next to nothing.

    >>> fields = np.full((10, 8, 8, 2), ZERO, np.uint8)
    >>> fields[:, :2, :2, 0] += 32  # a corner moves to the right by five pixels
    >>> saliency(np.stack([contrast(field) for field in fields]))[::7, ::7].tolist()
    [[220, 0], [0, 0]]
    """
    r = contrasts.mean(axis=0)
    return (255 * r / (r + r.mean() + STILL)).round().astype(np.uint8)


def energy(contrasts: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Motion energy of a frame from the contrasts of its stack (FIELDS, h, w): uint8 (h, w, 3), 255 for BOUND pixels.

    The means of |d - median(d)| over the first three, the middle four and the last three fields: how fast something
    moves against the camera, whichever way, so that a limb that goes to and fro does not cancel itself.

    >>> fields = np.full((10, 8, 8, 2), ZERO, np.uint8)
    >>> fields[:3, :2, :2, 0] += 32  # for three fields a corner moves to the right by five pixels
    >>> energy(np.stack([contrast(field) for field in fields]))[0, ::7].tolist()
    [[64, 0, 0], [0, 0, 0]]
    """
    parts = np.stack([contrasts[:3].mean(axis=0), contrasts[3:7].mean(axis=0), contrasts[7:].mean(axis=0)], axis=-1)
    return (255 * np.minimum(parts / BOUND, 1)).round().astype(np.uint8)


class RunningFlow:
    """DIS from each frame to the next, in eight bits. Raises UsageError where OpenCV is not installed.

    >>> flow = RunningFlow()
    >>> [None if field is None else field.shape for field in map(flow.next, np.zeros((2, 48, 64, 3), np.uint8))]
    [None, (48, 64, 2)]
    """

    def __init__(self) -> None:
        self.cv2 = require_opencv()
        self.dis = self.cv2.DISOpticalFlow.create(self.cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.previous: NDArray[np.uint8] | None = None
        self.size = (0, 0)  # (w, h)

    def next(self, frame: Frame) -> NDArray[np.uint8] | None:
        """A frame (H, W, 3) -> the field (h, w, 2) from the one before to it; None if there was none, or `forget`."""
        if self.size == (0, 0):
            self.size = _working_size(*frame.shape[:2])
        grey = self.cv2.cvtColor(np.ascontiguousarray(frame), self.cv2.COLOR_RGB2GRAY)
        if grey.shape[::-1] != self.size:
            grey = self.cv2.resize(grey, self.size, interpolation=self.cv2.INTER_AREA)
        before, self.previous = self.previous, grey
        return None if before is None else quantise(np.nan_to_num(self.dis.calc(before, grey, None)))

    def forget(self) -> None:
        """The next frame does not follow the last one."""
        self.previous = None

    def zero(self) -> NDArray[np.uint8]:
        """No motion, at the size of the frames seen."""
        width, height = self.size
        return np.full((height, width, 2), ZERO, np.uint8)


def _working_size(height: int, width: int) -> tuple[int, int]:
    """(w, h) of the frames between which flow is computed.

    >>> _working_size(720, 1280), _working_size(144, 180), _working_size(8, 12)
    ((427, 240), (180, 144), (48, 32))
    """
    side = min(height, width)
    scale = min(LARGEST_SIDE, max(SMALLEST_SIDE, side)) / side
    return max(1, round(width * scale)), max(1, round(height * scale))
