"""Pictures that come at their own times, recorded with a caption by a thread of its own.

The file appears under its name when the recorder is closed, however that comes about, and is whole then. Time in it
runs as it did: a picture is repeated for as long as it stood still, up to the pause that counts as a cut.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinegru.video.overlay import caption
from kinegru.video.pacing import Pacer, Picture
from kinegru.video.writer import write_video

WAITING = 8  # pictures


class Recorder:
    """A video file in the making, as a context manager.

    With `wait` a picture waits until there is room for it; else one that comes while eight wait is `missed`, and the
    one before it is shown for its time.

    >>> import tempfile
    >>> from kinegru.video.reader import probe
    >>> from kinegru.video.synthetic import example_clip
    >>> from kinegru.video.pacing import Recording
    >>> with tempfile.TemporaryDirectory() as folder, Recording(example_clip()) as clip:  # 30 frames
    ...     with Recorder(Path(folder) / "a.mp4", wait=True) as recorder:
    ...         for seconds, picture in clip.timed():
    ...             recorder.push(seconds, picture, ("walk", "0:01"), rate=clip.rate)
    ...     recorder.frames, probe(recorder.path).frames
    (30, 30)
    """

    def __init__(self, path: str | os.PathLike[str], wait: bool = False) -> None:
        self.path, self.wait = Path(path), wait
        self.came = self.missed = 0
        self.frames = 0  # in the file, known when it is closed
        self.failure: Exception | None = None  # the disk is full, the folder may not be written
        self.rate = 0.0
        self._waiting: queue.Queue[tuple[float, Picture, tuple[str, str], bool] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def push(self, seconds: float, picture: Picture, texts: tuple[str, str], rate: float, first: bool = False) -> None:
        """The next picture, shown from `seconds` on, and what to write at its lower left and right.

        `rate` is nominal, frames a second; the first one counts. `first` says that times begin anew.
        """
        if not self.rate:
            self.rate = rate
            self._thread.start()
        self.came += 1
        self._put((seconds, picture, texts, first), self.wait)

    def close(self) -> None:
        """Write what waits and give the file its name; without a picture there is no file."""
        if self.rate and self._thread.is_alive():
            self._put(None, wait=True)
            self._thread.join()

    def _put(self, item: tuple[float, Picture, tuple[str, str], bool] | None, wait: bool) -> None:
        while self._thread.is_alive():
            try:
                self._waiting.put(item, timeout=0.1 if wait else 0)
                return
            except queue.Full:
                if not wait:
                    self.missed += 1
                    return

    def _run(self) -> None:
        try:
            self.frames = write_video(self.path, self._drawn(), self.rate)
        except Exception as error:  # told by `failure`
            self.failure = error

    def _drawn(self) -> Iterator[NDArray[np.uint8]]:
        pacer: Pacer[_Captioned] = Pacer(self.rate, 1 / self.rate)
        while (item := self._waiting.get()) is not None:
            seconds, picture, texts, first = item
            if first:
                yield from (shown.image for _, _, shown in pacer.finish())
                pacer = Pacer(self.rate, 1 / self.rate)
            yield from (shown.image for _, _, shown in pacer.push(seconds, _Captioned(picture, texts)))
        yield from (shown.image for _, _, shown in pacer.finish())


class _Captioned:
    """A picture with its texts, drawn once however often it is shown."""

    def __init__(self, picture: Picture, texts: tuple[str, str]) -> None:
        self._picture, self._texts = picture, texts
        self._drawn: NDArray[np.uint8] | None = None

    @property
    def image(self) -> NDArray[np.uint8]:
        if self._drawn is None:
            self._drawn = caption(self._picture.image, *self._texts)
        return self._drawn
