"""Which frames stand for a clip: T equal segments, one frame from each (docs/model.md, section 6).

One formula, floor((i + u_i) * L / T), serves everything. With u_i = 1/2 it gives the middle frame of every segment
(test); with u_i drawn from [0, 1) it gives a random frame of every segment (training). A clip shorter than T repeats
frames by the same formula, so any L >= 1 and T >= 1 work.

A separate u_i for every segment makes the steps between frames uneven, and with about as many frames as segments some
stand still: that hides speed. One u for all segments (`even`) keeps them even.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def uniform_indices(length: int, num_frames: int) -> NDArray[np.int64]:
    """The middle frame of each of `num_frames` equal segments: int64 (T,), rising, each in 0 .. length - 1.

    The arithmetic is in integers, so the result is exact at any length. Raises ValueError if either number is below 1.

    >>> uniform_indices(10, 4)
    array([1, 3, 6, 8])
    >>> uniform_indices(2, 5)
    array([0, 0, 1, 1, 1])
    """
    _check(length, num_frames)
    return (2 * np.arange(num_frames, dtype=np.int64) + 1) * length // (2 * num_frames)  # (T,)


@dataclass(frozen=True)
class Jitter:
    """A drawn choice of frames, apart from the clip: it can be applied again when a clip turns out to be shorter than
    its container says. `start` and `share` of the clip's length bound the part that is cut into segments.

    >>> Jitter(np.array([0.0, 0.5, 0.9, 0.25])).indices(8)
    array([0, 3, 5, 6])
    >>> Jitter(np.full(4, 0.5), start=0.5, share=0.5).indices(80)
    array([45, 55, 65, 75])
    """

    offsets: NDArray[np.float64]  # (T,), 0 <= offset < 1, of a frame in its segment
    start: float = 0.0
    share: float = 1.0

    def indices(self, length: int) -> NDArray[np.int64]:
        """The frames: int64 (T,), rising, each in 0 .. length - 1. Raises ValueError for a length below 1."""
        count = len(self.offsets)
        _check(length, count)
        positions = self.start * length + (np.arange(count) + self.offsets) * (length * self.share) / count  # (T,)
        return np.minimum(positions.astype(np.int64), length - 1)  # an offset just below 1 may round up to the end


def draw_jitter(num_frames: int, rng: np.random.Generator, shortest: float = 1.0, even: bool = False) -> Jitter:
    """A random frame of each of `num_frames` equal segments, of a part of the clip that has at least the share
    `shortest` of it; with `even` at the same place in every segment.

    Always draws `num_frames` + 2 numbers from `rng`. Raises ValueError if `num_frames` is below 1.

    >>> draw_jitter(4, np.random.default_rng(0)).indices(100)
    array([15, 31, 51, 75])
    >>> np.diff(draw_jitter(4, np.random.default_rng(0), shortest=0.5, even=True).indices(1000))
    array([148, 149, 148])
    """
    _check(1, num_frames)
    offsets, part = rng.random(num_frames), rng.random(2)
    share = 1 - (1 - shortest) * float(part[0])
    return Jitter(np.full(num_frames, offsets[0]) if even else offsets, (1 - share) * float(part[1]), share)


def _check(length: int, num_frames: int) -> None:
    if length < 1 or num_frames < 1:
        raise ValueError(f"a clip of {length} frames cannot be sampled at {num_frames} frames: both must be at least 1")
