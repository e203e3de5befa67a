"""The frames of a recording at an even rate, by its timestamps, one in memory at a time.

* Frame k of the even rate is the one that is shown at (k + 1/2) / rate seconds: the middle of its segment, as
  kinegru.video.sampling takes it. Variable frame rates and dropped frames therefore leave time as it is; a frame that
  is shown for long comes several times, one shown too briefly not at all.
* Times count from the first frame. Where timestamps are missing or run backwards, time goes on at the nominal rate.
* Only frames that somebody looks at (`Picture.image`) are converted to RGB.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from kinegru.errors import UsageError
from kinegru.video.container import Decoder

LONGEST_GAP = 10.0  # seconds; a longer pause between two frames is a cut, not a picture that stands still
USUAL_RATE = 25.0  # frames a second, where a container gives none, or the ticks of its clock instead
HIGHEST_RATE = 240.0
SLACK = 1e-3  # seconds; containers round their timestamps to as much

Shown = TypeVar("Shown")


class Picture:
    """A decoded frame, converted when it is first looked at; may be looked at from several threads."""

    __slots__ = ("_convert", "_frame", "_image", "_lock")

    def __init__(self, frame: Any, convert: Callable[[Any], NDArray[np.uint8]], lock: threading.Lock) -> None:
        self._frame, self._convert, self._lock = frame, convert, lock  # one lock for all frames that share `convert`
        self._image: NDArray[np.uint8] | None = None

    @property
    def image(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) RGB, upright."""
        with self._lock:
            if self._image is None:
                self._image = self._convert(self._frame)
                self._frame = None
            return self._image


class PacedFrame:
    """Frame `number` of the even rate, frame `place` of the file. `cut`: time has jumped since the one before."""

    __slots__ = ("_picture", "cut", "number", "place")

    def __init__(self, number: int, cut: bool, place: int, picture: Picture) -> None:
        self.number, self.cut, self.place, self._picture = number, cut, place, picture

    @property
    def image(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) RGB, upright."""
        return self._picture.image


class Clock:
    """Timestamps of any kind, or none, as seconds since the first frame that only ever rise.

    >>> clock = Clock(usual=0.5)
    >>> [clock.time(stamp) for stamp in (7.0, 7.25, None, 3.0, 4.0)]
    [0.0, 0.25, 0.75, 1.25, 2.25]
    """

    def __init__(self, usual: float) -> None:
        self.usual = usual  # seconds from frame to frame, where timestamps do not tell
        self._last, self._shift = -usual, None  # type: float, float | None

    @property
    def began(self) -> bool:
        """Whether there was a frame."""
        return self._last >= 0

    def time(self, stamp: float | None) -> float:
        """The time of the next frame, whose timestamp is `stamp` seconds."""
        after = self._last + self.usual
        if self._shift is None and stamp is not None:
            self._shift = after - stamp
        time = after if stamp is None or self._shift is None else stamp + self._shift
        if time <= self._last:
            assert stamp is not None
            time, self._shift = after, after - stamp
        self._last = time
        return time


class Pacer(Generic[Shown]):
    """Which of the frames that come stand for the frames of an even rate.

    A frame is known to be shown until the next one comes. `ahead` does not wait for it: a frame is taken at once for
    the time that the one before it was shown, and what is missed when frames come late is not made up for.

    >>> pacer = Pacer(10.0, usual=0.04)
    >>> [(number, cut, shown) for i in range(7) for number, cut, shown in pacer.push(i * 0.04, i)]
    [(0, False, 1), (1, False, 3)]
    >>> pacer = Pacer(10.0, usual=0.04, ahead=True)
    >>> [(number, i, shown) for i in range(7) for number, cut, shown in pacer.push(i * 0.04, i)]
    [(0, 1, 1), (1, 3, 3), (2, 6, 6)]
    """

    def __init__(self, rate: float, usual: float, longest_gap: float = LONGEST_GAP, ahead: bool = False) -> None:
        if not (math.isfinite(rate) and rate > 0):
            raise UsageError(f"{rate} frames a second: give a number above 0")
        self.rate, self.longest_gap, self.ahead = rate, longest_gap, ahead
        self.end = 0.0  # of the last frame that came, seconds
        self._usual = usual  # how long a frame is shown whose end is not known
        self._number, self._cut = 0, False
        self._held: tuple[float, Shown] | None = None  # the frame that is on the screen, and since when

    def push(self, time: float, shown: Shown) -> Iterator[tuple[int, bool, Shown]]:
        """A frame that is shown from `time` seconds on -> (number, cut, frame) of what can now be told, in order."""
        if self._held is not None:
            since, before = self._held
            pause = time - since > self.longest_gap
            if self.ahead:
                self._usual = min(time - since, 2 * self._usual)  # after a stall the next frame lasts no longer
            else:
                self._usual = self._usual if pause else time - since
                yield from self._until(since + self._usual, before)
            if pause:
                self._number, self._cut = _first(time, self.rate, self._number), True
            elif self.ahead:
                self._number = _first(time, self.rate, self._number + 1) - 1  # a tick between two frames is no gap
        self._held = (time, shown)
        self.end = time + self._usual
        if self.ahead:
            yield from self._until(self.end, shown)

    def finish(self) -> Iterator[tuple[int, bool, Shown]]:
        """What the last frame stands for; at least one frame comes in all."""
        if self._held is not None:
            yield from self._until(self.end, self._held[1], least=1)

    def _until(self, end: float, shown: Shown, least: int = 0) -> Iterator[tuple[int, bool, Shown]]:
        last = max(_first(end, self.rate, self._number), least)
        while self._number < last:
            number, cut = self._number, self._cut
            self._number, self._cut = number + 1, False
            yield number, cut, shown


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
        self.rate = nominal_rate(stream)  # frames a second
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
        pacer: Pacer[tuple[int, Picture]] = Pacer(self.rate if rate is None else rate, 1 / self.rate, longest_gap)
        for place, (time, picture) in enumerate(self.timed()):
            for number, cut, shown in pacer.push(time, (place, picture)):
                yield PacedFrame(number, cut, *shown)
            self.duration = pacer.end
        for number, cut, shown in pacer.finish():
            yield PacedFrame(number, cut, *shown)

    def timed(self) -> Iterator[tuple[float, Picture]]:
        """Every decoded frame and its time in seconds since the first, rising."""
        clock, lock = Clock(1 / self.rate), threading.Lock()
        for frame in self._decoder:
            yield clock.time(stamp(frame, self._decoder.stream)), Picture(frame, self._decoder.rgb, lock)


def nominal_rate(stream: Any) -> float:
    """Frames a second that a video stream says it has; a usual rate where it does not say, or gives its clock's."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if 0 < rate <= HIGHEST_RATE else USUAL_RATE


def stamp(frame: Any, stream: Any) -> float | None:
    """A decoded frame's timestamp in seconds, None where it has none."""
    base = stream.time_base
    return float(frame.pts * base) if frame.pts is not None and base is not None else None


def _first(time: float, rate: float, least: int) -> int:
    """The first frame of the even rate, from `least` on, that is not shown before `time`."""
    return max(least, math.ceil((time - SLACK) * rate - 0.5))
