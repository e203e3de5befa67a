"""Which frames stand for a clip: T equal segments, one frame from each (docs/model.md, section 6).

One formula, floor((i + u_i) * L / T), serves everything. With u_i = 1/2 it gives the middle frame of every segment
(test); with u_i drawn from [0, 1) it gives a random frame of every segment (training). A clip shorter than T repeats
frames by the same formula, so any L >= 1 and T >= 1 work.
"""

from __future__ import annotations

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


def jittered_indices(length: int, num_frames: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random frame of each of `num_frames` equal segments: int64 (T,), rising, each in 0 .. length - 1.

    Draws exactly `num_frames` numbers from `rng`. Raises ValueError if either number is below 1.

    >>> jittered_indices(100, 4, np.random.default_rng(0))
    array([15, 31, 51, 75])
    """
    _check(length, num_frames)
    return indices_at(length, rng.random(num_frames))


def indices_at(length: int, offsets: NDArray[np.float64]) -> NDArray[np.int64]:
    """The frame at `offsets[i]` (0 <= offset < 1) of segment i of len(offsets) equal segments: int64 (T,).

    Kept apart from the drawing, so that the same draw can be applied again when a clip turns out to be shorter than
    its container says.

    >>> indices_at(8, np.array([0.0, 0.5, 0.9, 0.25]))
    array([0, 3, 5, 6])
    """
    _check(length, len(offsets))
    positions = (np.arange(len(offsets)) + offsets) * length / len(offsets)  # (T,)
    return np.minimum(positions.astype(np.int64), length - 1)  # an offset just below 1 may round up to the end


def _check(length: int, num_frames: int) -> None:
    if length < 1 or num_frames < 1:
        raise ValueError(f"a clip of {length} frames cannot be sampled at {num_frames} frames: both must be at least 1")
