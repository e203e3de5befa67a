"""A recogniser on a source that does not wait: what happens now, how late it is told, and what was missed.

A thread captures, the caller's thread recognises; between them is one picture, the newest (kinegru.video.capture).
So the delay of a result is at most the work on two frames, however slow the machine is; what it cannot do shows as
dropped frames. A model that sees motion needs every frame: some may wait, and while they do, predictions are left out
instead. Nothing grows with time: delays are counted in a histogram.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from kinegru.errors import UsageError
from kinegru.recognition.prediction import likeliest
from kinegru.recognition.timeline import UNKNOWN, UNKNOWN_LABEL, decide, tempered
from kinegru.video.capture import Capture, Pace, Taken
from kinegru.video.pacing import Picture
from kinegru.video.recorder import Recorder
from kinegru.video.sources import Source, find
from kinegru.video.writer import require_video_name

if TYPE_CHECKING:
    from kinegru.recognition.recognizer import Recognizer

SECONDS_OF_RATE = 5.0
LEAST_SPAN = 0.5  # seconds; what is measured over less is the burst at a stream's beginning


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model says of the window that ends now."""

    time: float  # seconds, by the source's own clock since it was opened
    label: str  # the class, or "unknown"
    score: float  # calibrated probability of the label, 0 to 1; of the likeliest class where it is unknown
    labels: tuple[str, ...]
    scores: np.ndarray = field(repr=False)  # (K,) calibrated probabilities, sum to 1
    latency: float  # seconds from the capture of the newest frame to the result
    known: bool = True  # False where no label of the model is given; a class may be called "unknown", too

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The `k` likeliest classes and their probabilities, best first."""
        return likeliest(self.labels, self.scores, k)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        scores = {label: round(float(score), 6) for label, score in zip(self.labels, self.scores, strict=True)}
        return {
            "time": round(self.time, 3), "label": self.label, "score": round(self.score, 6), "scores": scores,
            "latency": round(self.latency, 4), "known": self.known,
        }  # fmt: skip


class Latencies:
    """Quantiles of delays in constant memory, to 1 %.

    >>> latencies = Latencies()
    >>> for milliseconds in range(1, 101):
    ...     latencies.add(milliseconds / 1000)
    >>> round(latencies.quantile(0.5), 3), round(latencies.quantile(0.95), 3)
    (0.05, 0.095)
    """

    LEAST, STEP, BINS = 1e-5, 1.01, 2000  # seconds; the last bin is above an hour

    def __init__(self) -> None:
        self._counts = np.zeros(self.BINS, dtype=np.int64)

    def add(self, seconds: float) -> None:
        """One delay, seconds."""
        place = math.log(max(seconds, self.LEAST) / self.LEAST) / math.log(self.STEP)
        self._counts[min(round(place), self.BINS - 1)] += 1

    def quantile(self, part: float) -> float | None:
        """Seconds that this part of all delays does not exceed; None where there are none."""
        total = int(self._counts.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self._counts), max(1, math.ceil(part * total))))
        return float(self.LEAST * self.STEP**place)


class Live:
    """A recogniser at work on a source, as a context manager; iterate over it for all that it sees.

    `source` is a camera's number or device, an address, a file's path, or `-` for stdin. `fps` is the rate at which
    frames are taken, by default the model's, else the source's. `window` and `stride` are as in `Recognizer.stream`. A
    label is given where its calibrated probability reaches `threshold`, and left where it falls `margin` below it or
    another leads by as much. For `pace`, `retries` and `timeout` see kinegru.video.capture.Capture; for `raw`,
    `raw_fps` and `options` kinegru.video.sources.find. `record` is a video file for all pictures with the label drawn.

    Raises UsageError for settings out of range at once, VideoError for a source that cannot be read when it is found.

    >>> from kinegru.recognition.recognizer import example_recognizer
    >>> from kinegru.video.synthetic import example_clip
    >>> with Live(example_recognizer(), str(example_clip()), fps=10.0, pace="asap", threshold=0) as live:
    ...     seen = list(live)  # windows of 4 frames in 12
    >>> len(seen), seen[0].label in ("run", "walk"), live.drops
    (9, True, 0)
    """

    def __init__(
        self,
        recognizer: Recognizer,
        source: str | int | os.PathLike[str] | Source,
        *,
        fps: float | None = None,
        window: int | Literal["clip"] | None = "clip",
        stride: int | None = None,
        pace: Pace = "auto",
        threshold: float = 0.5,
        margin: float = 0.1,
        retries: int = 8,
        timeout: float = 10.0,
        record: str | os.PathLike[str] | None = None,
        raw: str | None = None,
        raw_fps: float = 25.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(source, Source):
            source = find(str(source) if isinstance(source, int) else os.fspath(source), raw, raw_fps, options)
        self.source = source
        _check(fps, pace, threshold, margin, retries, timeout)
        self.recognizer, self.threshold, self.margin = recognizer, threshold, margin
        self.stream = recognizer.stream(window, stride)
        self.recorder: Recorder | None = None
        if record is not None:
            read = self.source.url if self.source.kind == "file" else None
            require_video_name("--record", os.fspath(record), read, "source")
            self.recorder = Recorder(os.fspath(record), wait=pace == "asap")
        each = self._record if self.recorder is not None else None
        together = self.stream.together
        self._catches_up = together is not None and together.every_frame and pace != "asap"
        keep = max(1, (self.stream.window or 0) // 2) if self._catches_up else 1
        self.capture = Capture(self.source, fps or recognizer.frame_rate, pace, retries, timeout, each, keep)
        self.frames = self.predictions = 0
        self.latencies = Latencies()
        self.latest: Seen | None = None
        self._class = UNKNOWN
        self._times: deque[float] = deque(maxlen=1000)  # when the frames of the last seconds were done with
        self._entered = False

    def __enter__(self) -> Live:
        side = self.recognizer.preprocessing.size
        self.stream.step(np.zeros((side, side, 3), np.uint8))  # the first pass is slow: not at a frame's cost
        self.stream.reset()
        self.capture.__enter__()
        self._entered = True
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.capture.__exit__(kind, error, trace)
        finally:
            if self.recorder is not None:
                self.recorder.close()
        if error is None and self.recorder is not None and self.recorder.failure is not None:
            raise self.recorder.failure

    def __iter__(self) -> Iterator[Seen]:
        """All that is seen until the source ends. Raises VideoError where it is lost for good."""
        while not self.ended:
            yield from self.wait(1.0)

    def wait(self, seconds: float) -> list[Seen]:
        """What the next picture tells: nothing where none comes within so many seconds, or no window is full.

        Raises VideoError where the source is lost for good, or the recording cannot be written, UsageError outside a
        `with` block.
        """
        if not self._entered:
            raise UsageError("nothing is captured yet: write `with Live(...) as live:`")
        if self.recorder is not None and self.recorder.failure is not None:
            raise self.recorder.failure
        taken = self.capture.take(seconds)
        if taken is None:
            if self.capture.failure is not None:
                raise self.capture.failure
            return []
        found = self._recognise(taken)
        self.frames += 1
        self._note_time(time.monotonic())
        for seen in found:
            self.predictions += 1
            self.latencies.add(seen.latency)
            self.latest = seen
        return found

    @property
    def ended(self) -> bool:
        """Whether all is seen. A source that was lost has not ended: `wait` says so."""
        return self.capture.ended and self.capture.failure is None

    @property
    def drops(self) -> int:
        """Frames that came while the one before was still waiting."""
        return self.capture.drops

    @property
    def reconnects(self) -> int:
        """How often the source came back."""
        return self.capture.reconnects

    @property
    def rate(self) -> float | None:
        """Frames a second that were recognised in the last five seconds; None before it can be told."""
        span = self._times[-1] - self._times[0] if self._times else 0.0
        return (len(self._times) - 1) / span if span >= LEAST_SPAN else None

    def _note_time(self, now: float) -> None:
        self._times.append(now)
        while self._times[0] < now - SECONDS_OF_RATE:
            self._times.popleft()

    def _recognise(self, taken: Taken) -> list[Seen]:
        if taken.cut:
            self.stream.reset()
            self._class, self.latest = UNKNOWN, None
            self._times.clear()
        found: list[Seen] = []
        for tick in range(taken.ticks):
            prediction = self.stream.step(taken.image, predict=not (self._catches_up and self.capture.waiting))
            if prediction is None:
                continue
            scores = tempered(prediction.scores[None], self.recognizer.temperature)[0]
            label, score = self._decide(scores)
            assert self.capture.rate is not None
            at = (taken.number + tick + 0.5) / self.capture.rate
            late = time.monotonic() - taken.captured
            found.append(Seen(at, label, score, self.stream.labels, scores, late, known=self._class != UNKNOWN))
        return found

    def _decide(self, scores: np.ndarray) -> tuple[str, float]:
        """The timeline's rule, one window on: the class before is a row of its own."""
        rows = [scores] if self._class == UNKNOWN else [np.eye(len(scores))[self._class], scores]
        self._class = int(decide(np.stack(rows), self.threshold, self.margin)[-1])
        if self._class == UNKNOWN:
            return UNKNOWN_LABEL, float(scores.max())
        return self.stream.labels[self._class], float(scores[self._class])

    def _record(self, seconds: float, picture: Picture, first: bool) -> None:
        """In the capturing thread: every picture, with what is known by then."""
        assert self.recorder is not None and self.capture.source_rate is not None
        seen = self.latest
        label = "" if seen is None else f"{seen.label} {seen.score:.0%}" if seen.known else seen.label
        minutes, rest = divmod(int(seconds), 60)
        clock = time.strftime("%H:%M:%S") if self.source.comes_back else f"{minutes}:{rest:02d}"
        self.recorder.push(seconds, picture, (label, clock), self.capture.source_rate, first)


def _check(fps: float | None, pace: str, threshold: float, margin: float, retries: int, timeout: float) -> None:
    if pace not in get_args(Pace):
        raise UsageError(f"--pace is {pace!r}: give one of {', '.join(get_args(Pace))}")
    if fps is not None and not 0 < fps < float("inf"):
        raise UsageError(f"--fps is {fps}: give a number of frames a second above 0")
    for name, value in (("threshold", threshold), ("margin", margin)):
        if not 0 <= value <= 1:
            raise UsageError(f"--{name} is {value}: give a number from 0 to 1")
    if retries < -1:
        raise UsageError(f"--retries is {retries}: give a number of tries, or -1 for any number")
    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout is {timeout}: give a number of seconds above 0")
