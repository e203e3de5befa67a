"""The windows of a recording of any length, scored in constant memory; the work is kept on disk and can go on.

Frames come at the rate the model was trained for, go once through a stream, and are forgotten. What grows are the
scores: 4 bytes a class and window. A recording shorter than one window is recognised as a clip.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from kinegru.errors import UsageError
from kinegru.recognition.timeline import WindowScores, tempered
from kinegru.video.pacing import Recording

if TYPE_CHECKING:
    from kinegru.recognition.recognizer import Recognizer

MIB = 1 << 20


@dataclass(frozen=True)
class Scanned:
    """A recording that was looked through."""

    scores: WindowScores  # calibrated with the model's temperature
    rate: float  # frames a second that were looked at
    window: int  # frames
    stride: int  # frames from one window to the next
    damage: str | None  # what was wrong with the file, None if it is sound


class ScoreLog:
    """Scores of windows in their order, in memory and, with a path, in a file that outlives a kill.

    The file opens with what the scores depend on (`bound_to`); one of anything else is started anew. A last line that a
    kill cut short is taken off.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for first in (0, 5):
    ...         with ScoreLog(Path(folder) / "log", {"video": "abc"}) as log:
    ...             log.append(first, np.array([0.25, 0.75], np.float32))
    ...     log.firsts.tolist(), log.rows(2).tolist()
    ([0, 5], [[0.25, 0.75], [0.25, 0.75]])
    """

    def __init__(self, path: Path | None = None, bound_to: dict[str, Any] | None = None) -> None:
        self.path, self._file = path, None
        self._firsts, self._scores = array("q"), array("f")
        if path is not None:
            head = json.dumps({"kinegru": "timeline scores", **(bound_to or {})}, sort_keys=True)
            self._file = self._open(path, head)
        self.resumed = len(self._firsts)

    def __enter__(self) -> ScoreLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def firsts(self) -> np.ndarray:
        """int64 (n,): the first frame of each window."""
        return np.array(self._firsts, dtype=np.int64)

    def rows(self, classes: int) -> np.ndarray:
        """float64 (n, classes)."""
        return np.array(self._scores, dtype=np.float64).reshape(-1, classes)

    @property
    def last(self) -> int | None:
        """The first frame of the last window, None where there is none."""
        return self._firsts[-1] if self._firsts else None

    def append(self, first: int, scores: np.ndarray) -> None:
        """The next window, (K,)."""
        row = array("f", scores.tolist())
        if self._file is not None:
            self._file.write(json.dumps([first, row.tolist()]).encode() + b"\n")
            self._file.flush()
        self._keep(first, row)

    def remove(self) -> None:
        """Delete the file: all that it was for is written."""
        if self._file is not None and self.path is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)

    def _keep(self, first: int, row: array[float]) -> None:
        self._firsts.append(first)
        self._scores.extend(row)

    def _open(self, path: Path, head: str) -> BinaryIO:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("r+b" if path.exists() else "w+b")
        whole = file.tell()
        if file.readline() == head.encode() + b"\n":
            whole = file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    first, row = json.loads(line)
                    self._keep(int(first), array("f", row))
                except (ValueError, TypeError):
                    break
                whole += len(line)
        file.seek(whole)
        file.truncate()
        if not whole:
            file.write(head.encode() + b"\n")
            file.flush()
        return file


def scan(
    recognizer: Recognizer,
    source: str | os.PathLike[str],
    fps: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    log_path: Path | None = None,
    bound_to: dict[str, Any] | None = None,
    track: Callable[[int, int], None] | None = None,
) -> tuple[Scanned, ScoreLog]:
    """Score every window of a video file. `fps` is by default the model's rate, else the file's; `window` the
    recogniser's `clip_window`; `stride` a quarter of the window.

    With `log_path` scores are kept there as they come, and an earlier scan of the same (`bound_to`) goes on; the caller
    removes the log when it has used them. `track` is told the seconds done and the seconds there are.

    Raises VideoError for a file that cannot be read, UsageError for an `fps`, `window` or `stride` out of range.
    """
    window = recognizer.clip_window if window is None else window
    stride = max(1, window // 4) if stride is None else stride
    stream = recognizer.stream(window=window, stride=stride)
    classes = len(recognizer.labels)
    with Recording(source) as recording:
        rate = fps if fps is not None else recognizer.frame_rate or recording.rate
        if not 0 < rate < float("inf"):
            raise UsageError(f"fps is {rate}: give a number of frames a second above 0")
        bound = {**(bound_to or {}), "rate": rate, "window": window, "stride": stride, "labels": recognizer.labels}
        with ScoreLog(log_path, bound) as log:
            before = log.last  # an earlier scan came so far
            start = 0 if before is None else before + stride
            for frame in recording.frames(rate):
                if frame.cut:  # no window lies across it
                    stream.reset()
                    start = start if before is not None and frame.number <= before else frame.number
                if frame.number < start:
                    continue
                prediction = stream.step(frame.image)
                if prediction is not None:
                    log.append(frame.number - window + 1, prediction.scores)
                if track is not None:
                    _tell(track, frame.number / rate, recording.expected)
            if track is not None:
                track(max(1, round(recording.duration)), max(1, round(recording.duration)))
        times = (log.firsts[:, None] + np.array([0, window])) / rate  # (n, 2)
        rows, step = log.rows(classes), stride / rate
        if not len(rows):  # no window fits in
            times, step = np.array([[0.0, recording.duration]]), recording.duration
            rows = recognizer.predict(source).scores[None]
        scores = WindowScores(times, tempered(rows, recognizer.temperature), step, recording.duration)
        return Scanned(scores, rate, window, stride, recording.damage), log


def _tell(track: Callable[[int, int], None], done: float, expected: float) -> None:
    track(int(done), max(int(expected), int(done) + 1))


def digest(path: str | os.PathLike[str]) -> str:
    """32 hex digits for a file: of its size, and of a MiB from its beginning, middle and end.

    Enough to tell recordings apart without reading hours of them. Raises OSError.
    """
    found = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        found.update(str(size).encode())
        for at in (0, max(0, size // 2 - MIB // 2), max(0, size - MIB)):
            file.seek(at)
            found.update(file.read(MIB))
    return found.hexdigest()
