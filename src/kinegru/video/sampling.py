"""Which frames stand for a clip: T equal segments, one frame from each (docs/model.md, section 6).

One formula, floor((i + u_i) * L / T), serves everything. With u_i = 1/2 it gives the middle frame of every segment
(test); with u_i drawn from [0, 1) it gives a random frame of every segment (training). A clip shorter than T repeats
frames by the same formula, so any L >= 1 and T >= 1 work.

With a rate, the T segments fill only a part of the clip, T / rate seconds long, and the frames show how fast things
move; over whole clips a long walk and a short run look alike. A clip that is shorter than that is taken whole.

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
    its container says. The part that is cut into segments has the share `share` of the clip's length, and lies
    between the clip's beginning (`place` 0) and its end (`place` 1).

    >>> Jitter(np.array([0.0, 0.5, 0.9, 0.25])).indices(8)
    array([0, 3, 5, 6])
    >>> Jitter(np.full(4, 0.5), place=1.0, share=0.5).indices(80)
    array([45, 55, 65, 75])
    """

    offsets: NDArray[np.float64]  # (T,), 0 <= offset < 1, of a frame in its segment
    place: float = 0.0
    share: float = 1.0

    def indices(self, length: int, share: float = 1.0) -> NDArray[np.int64]:
        """The frames: int64 (T,), rising, each in 0 .. length - 1; `share` shortens the part further.

        Raises ValueError for a length below 1.
        """
        count = len(self.offsets)
        _check(length, count)
        part = length * self.share * share
        positions = self.place * (length - part) + (np.arange(count) + self.offsets) * part / count  # (T,)
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
    return Jitter(np.full(num_frames, offsets[0]) if even else offsets, float(part[1]), share)


@dataclass(frozen=True)
class Sampling:
    """`frames` frames of a clip, over all of it, or with `rate` frames a second from the part at `place`.

    `place` 0 is the part at the clip's beginning, 1 the one at its end. `jitter` puts the frames elsewhere in their
    segments, and decides the place.

    >>> Sampling(4).indices(100, fps=25.0)
    array([12, 37, 62, 87])
    >>> Sampling(4, rate=12.5).indices(100, fps=25.0)
    array([47, 49, 51, 53])
    """

    frames: int
    rate: float | None = None
    place: float = 0.5
    jitter: Jitter | None = None

    def indices(self, length: int, fps: float = 0.0) -> NDArray[np.int64]:
        """Frame numbers int64 (T,) in a clip of `length` frames, `fps` of them a second (0: unknown)."""
        share = 1.0
        if self.rate is not None and fps > 0:
            share = min(1.0, self.frames * fps / (self.rate * max(length, 1)))
        if self.jitter is not None:
            return self.jitter.indices(length, share)
        if share == 1.0:
            return uniform_indices(length, self.frames)
        return Jitter(np.full(self.frames, 0.5), self.place).indices(length, share)


def _check(length: int, num_frames: int) -> None:
    if length < 1 or num_frames < 1:
        raise ValueError(f"a clip of {length} frames cannot be sampled at {num_frames} frames: both must be at least 1")
