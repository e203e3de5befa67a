"""The frames of a recording at an even rate, by its timestamps, one in memory at a time.

* Frame k of the even rate is the one that is shown at (k + 1/2) / rate seconds: the middle of its segment, as
  kinegru.video.sampling takes it. Variable frame rates and dropped frames therefore leave time as it is; a frame that
  is shown for long comes several times, one shown too briefly not at all.
* Times count from the first frame. Where timestamps are missing or run backwards, time goes on at the nominal rate.
* Only frames that somebody looks at (`PacedFrame.image`) are converted to RGB.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinegru.errors import UsageError
from kinegru.video.container import Decoder

LONGEST_GAP = 10.0  # seconds; a longer pause between two frames is a cut, not a picture that stands still
USUAL_RATE = 25.0  # frames a second, where a container gives none, or the ticks of its clock instead
HIGHEST_RATE = 240.0
SLACK = 1e-3  # seconds; containers round their timestamps to as much


class PacedFrame:
    """Frame `number` of the even rate. `cut` says that time has jumped since the one before."""

    __slots__ = ("_shown", "cut", "number")

    def __init__(self, number: int, cut: bool, shown: _Shown) -> None:
        self.number, self.cut, self._shown = number, cut, shown

    @property
    def image(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) RGB, upright."""
        return self._shown.image()


class Recording:
    """One pass over a video file, as a context manager.

    While iterating, `duration` is the end of the last frame seen, in seconds; `damage` says what was wrong with the
    file, None if it is sound. `expected` is the duration the container promises, 0.0 if it does not say.

    Raises VideoError for a file that cannot be read, UsageError for a rate that is not above 0.

    >>> from kinegru.video.synthetic import example_clip
    >>> with Recording(example_clip()) as recording:  # 30 frames, 25 a second
    ...     numbers = [frame.number for frame in recording.frames(10.0)]
    >>> numbers == list(range(12)), round(recording.duration, 3)
    (True, 1.2)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._decoder = Decoder(path)
        stream: Any = self._decoder.stream
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.rate = rate if 0 < rate <= HIGHEST_RATE else USUAL_RATE  # nominal, frames a second
        length = stream.container.duration  # microseconds
        self.expected = max(0.0, length / 1e6) if length else 0.0
        self.duration = 0.0

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._decoder.__exit__(kind, error, trace)

    @property
    def damage(self) -> str | None:
        """What was wrong with the part of the file seen so far."""
        return self._decoder.damage

    def frames(self, rate: float | None = None, longest_gap: float = LONGEST_GAP) -> Iterator[PacedFrame]:
        """The frames at `rate` a second (by default the file's own); pauses above `longest_gap` seconds are cut."""
        rate = self.rate if rate is None else rate
        if not (math.isfinite(rate) and rate > 0):
            raise UsageError(f"{rate} frames a second: give a number above 0")
        number, cut, usual = 0, False, 1 / self.rate  # how long a frame is shown whose end is not known
        held: tuple[float, _Shown] | None = None  # the frame that is on the screen, and since when
        for time, frame in self._timed():
            shown = _Shown(self._decoder, frame)
            if held is not None:
                pause = time - held[0] > longest_gap
                usual = usual if pause else time - held[0]
                until = held[0] + usual
                end = _first(until, rate, number)
                while number < end:
                    yield PacedFrame(number, cut, held[1])
                    number, cut = number + 1, False
                if pause:
                    number, cut = _first(time, rate, number), True
            held = (time, shown)
            self.duration = time + usual
        if held is not None:
            end = max(_first(self.duration, rate, number), 1)  # at least one frame comes
            while number < end:
                yield PacedFrame(number, cut, held[1])
                number, cut = number + 1, False

    def _timed(self) -> Iterator[tuple[float, Any]]:
        """Every decoded frame and its time in seconds since the first, rising."""
        base = self._decoder.stream.time_base
        shift: float | None = None
        last = -1 / self.rate
        for frame in self._decoder:
            stamp = float(frame.pts * base) if frame.pts is not None and base is not None else None
            if shift is None and stamp is not None:
                shift = last + 1 / self.rate - stamp
            time = last + 1 / self.rate if stamp is None or shift is None else stamp + shift
            if time <= last:
                time = last + 1 / self.rate
                assert stamp is not None
                shift = time - stamp
            yield time, frame
            last = time


class _Shown:
    """A decoded frame, converted when it is first looked at."""

    def __init__(self, decoder: Decoder, frame: Any) -> None:
        self._decoder, self._frame = decoder, frame
        self._image: NDArray[np.uint8] | None = None

    def image(self) -> NDArray[np.uint8]:
        if self._image is None:
            self._image = self._decoder.rgb(self._frame)
        return self._image


def _first(time: float, rate: float, least: int) -> int:
    """The first frame of the even rate, from `least` on, that is not shown before `time`."""
    return max(least, math.ceil((time - SLACK) * rate - 0.5))
