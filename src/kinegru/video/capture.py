"""A source watched by a thread of its own: the newest picture is ready whenever somebody asks for one.

* Never more than `keep` pictures wait, by default one, and of several none for more than a second. When the next comes
  before there is room, the oldest is dropped and counted; so whoever is too slow for a source misses pictures, and does
  not fall behind it.
* Pictures are taken at an even rate by the source's own timestamps (kinegru.video.pacing).
* A stream or camera that breaks off is opened again, after 0.5, 1, 2, 4 ... up to 30 seconds, and the first picture
  behind the break says so (`cut`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kinegru.errors import VideoError
from kinegru.video.pacing import Pacer, Picture, Recording
from kinegru.video.sources import Feed, Source, Unreachable, open_source

Pace = Literal["auto", "live", "real", "asap"]
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before another try to connect
LONGEST_DELAY = 1.0  # seconds that one of several pictures may wait
CATCH_UP = 1.02  # how much faster than its timestamps a pipe may be read, so that a live one never gets ahead of us
PATIENCE = 2.0  # seconds that closing waits for a read to end


@dataclass(frozen=True)
class Taken:
    """A picture that was taken for an even rate."""

    number: int  # of the even rate, since the source was opened; the time is (number + 1/2) / rate
    ticks: int  # how many frames of the even rate it stands for; more than one where the source is slower
    cut: bool  # time has jumped, or the connection was lost, since the picture before
    captured: float  # time.monotonic() when it was there
    picture: Picture

    @property
    def image(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) RGB, upright."""
        return self.picture.image


class Capture:
    """The pictures of a source as they come, as a context manager.

    `rate` is that of the pictures, None takes the source's own. `pace` is `live` (as they come), `real` (held back
    until their time has come) or `asap` (each waits until the one before was taken; none is dropped); `auto` is `real`
    for files, pipes and what says how long it is, else `live`. After a failed try to connect there are `retries` more
    (-1: any number). `each` is called in the thread with every picture, its time, and whether a connection begins.
    `keep` is how many pictures may wait.

    When there are no more, `failure` says what went wrong; it is None at the end of a file.

    >>> from kinegru.video.sources import find
    >>> from kinegru.video.synthetic import example_clip
    >>> with Capture(find(str(example_clip())), rate=10.0, pace="asap") as capture:  # 30 frames, 25 a second
    ...     numbers = []
    ...     while not capture.ended:
    ...         taken = capture.take(1.0)
    ...         numbers += [] if taken is None else [taken.number]
    >>> numbers == list(range(12)), capture.drops
    (True, 0)
    """

    def __init__(
        self,
        source: Source,
        rate: float | None = None,
        pace: Pace = "auto",
        retries: int = 8,
        timeout: float = 10.0,
        each: Callable[[float, Picture, bool], None] | None = None,
        keep: int = 1,
    ) -> None:
        self.source, self.rate, self.pace, self.keep = source, rate, pace, keep
        self.retries, self.timeout, self.each = retries, timeout, each
        self.drops = 0  # pictures that were taken for the even rate and thrown away
        self.reconnects = 0
        self.trouble: str | None = None  # why there are no pictures just now
        self.damage: str | None = None  # what was wrong with a file or pipe, None if it is sound
        self.source_rate: float | None = None  # nominal, known when it is open
        self.failure: BaseException | None = None  # what ended it, None for the end of a file
        self._stop, self._changed = threading.Event(), threading.Condition()
        self._waiting: deque[Taken] = deque()
        self._over = self._cut = False
        self._failed = 0  # tries to connect, in a row
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(PATIENCE)  # a read that hangs ends by its time limit; nobody has to wait for that

    @property
    def ended(self) -> bool:
        """Whether there are no more pictures, and none waits."""
        with self._changed:
            return self._over and not self._waiting

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return len(self._waiting)

    def take(self, seconds: float) -> Taken | None:
        """The picture that waits longest, else the next within so many seconds, else None."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over, seconds)
            taken = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return taken

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                feed = self._connect()
                if feed is None:
                    return
                with feed:
                    self._play(feed)
                if self._stop.is_set():
                    return
                if not self.source.comes_back or feed.expected or not feed.damage:  # a file would begin again
                    self.damage = feed.damage
                    return
                self._lose(feed.damage)
        except BaseException as error:  # told to whoever takes the pictures
            self.failure = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _connect(self) -> Recording | Feed | None:
        """Open the source, with patience; None if it was told to stop. Raises VideoError."""
        again = self._cut  # it was there before, so every failure may pass
        while True:
            if (again or self._failed) and self._stop.wait(self._wait):
                return None
            try:
                feed = open_source(self.source, self.timeout, self._stop)
                break
            except VideoError as error:
                if not again and (not isinstance(error, Unreachable) or self.source.kind == "camera"):
                    raise
                self._note_failure(error)
        self.source_rate = feed.rate
        self.rate = self.rate or feed.rate
        return feed

    def _lose(self, reason: str) -> None:
        if self._cut:  # not one picture came this time either
            self._note_failure(Unreachable(f"{self.source.name}: {reason}"))
        else:
            self._cut = True
            self.trouble = f"lost: {reason}; next try in {self._wait:g} s"

    def _note_failure(self, error: VideoError) -> None:
        self._failed += 1
        if 0 <= self.retries < self._failed:
            tries = "try" if self._failed == 1 else "tries"
            raise VideoError(f"{error}; gave up after {self._failed} {tries}") from None
        reason = str(error).removeprefix(f"{self.source.name}: ")
        of = f" of {self.retries}" if self.retries >= 0 else ""
        self.trouble = f"{reason}; retry {self._failed}{of} in {self._wait:g} s"

    @property
    def _wait(self) -> float:
        return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._failed, 10))

    def _play(self, feed: Recording | Feed) -> None:
        pace = self.pace
        if pace == "auto":
            pace = "live" if self.source.comes_back and not feed.expected else "real"
        speed = 1.0 if self.source.kind == "file" else CATCH_UP
        assert self.rate is not None
        pacer: Pacer[tuple[float, Picture]] = Pacer(self.rate, 1 / feed.rate, ahead=pace != "asap")
        due = None  # when the source's time 0 is
        for seconds, picture in feed.timed():
            first = due is None
            if due is None:
                due = time.monotonic() - seconds
                self.reconnects += self._cut
                self.trouble, self._failed = None, 0
            if pace == "real":
                self._stop.wait(max(0.0, due + seconds / speed - time.monotonic()))
            if self._stop.is_set():
                return
            if self.each is not None:
                self.each(seconds, picture, first)
            self._offer(list(pacer.push(seconds, (time.monotonic(), picture))), pace)
        self._offer(list(pacer.finish()), pace)

    def _offer(self, ticks: list[tuple[int, bool, tuple[float, Picture]]], pace: Pace) -> None:
        """Frames of the even rate, all of one picture."""
        if not ticks:
            return
        number, cut, (captured, picture) = ticks[0]
        with self._changed:
            if pace == "asap":
                self._changed.wait_for(lambda: len(self._waiting) < self.keep or self._stop.is_set())
            self._waiting.append(Taken(number, len(ticks), cut or self._cut, captured, picture))
            self._cut = False
            while len(self._waiting) > self.keep or captured - self._waiting[0].captured > LONGEST_DELAY:
                self.drops += 1
                dropped = self._waiting.popleft()
                if dropped.cut:  # whoever looks next has to know
                    self._waiting[0] = replace(self._waiting[0], cut=True)
            self._changed.notify_all()
