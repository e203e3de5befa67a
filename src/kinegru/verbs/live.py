"""`kinegru live MODEL SOURCE`: what happens now, on a terminal or as JSON lines, until the source ends or Ctrl-C."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import datetime
from json import dumps
from typing import Any, Literal

from kinegru.console import console, duration, say
from kinegru.errors import UsageError, VideoError
from kinegru.recognition.engines import EngineName
from kinegru.recognition.live import Live, Seen
from kinegru.recognition.recognizer import Recognizer
from kinegru.training.interrupts import stop_requests
from kinegru.verbs.live_display import Display
from kinegru.video.container import shown
from kinegru.video.sources import find

MANY = 0.2  # of the frames; if so many are missed, the user is told


@dataclass(frozen=True)
class LiveResult:
    """What a live recognition came to."""

    source: str
    seconds: float  # from the first frame to the end
    frames: int  # that were recognised
    predictions: int
    drops: int  # frames that came while the one before was still waiting
    reconnects: int
    median_latency: float | None  # seconds from capture to result; None without a prediction
    p95_latency: float | None
    recorded: str | None = None  # the video file
    failure: str | None = None  # why the source was lost for good; None where it ended or was told to stop
    json: bool = False  # whether stdout belongs to JSON lines

    @property
    def exit_status(self) -> int:
        """1 where the source was lost, else 0."""
        return 1 if self.failure else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("source", "seconds", "frames", "predictions", "drops", "reconnects")
        latencies = {"median_latency": self.median_latency, "p95_latency": self.p95_latency}
        return {name: getattr(self, name) for name in names} | latencies | {"recorded": self.recorded}


def live(
    model: str,
    source: str,
    *,
    fps: float | None = None,
    window: int | Literal["none"] | None = None,
    stride: int | None = None,
    threshold: float = 0.5,
    margin: float = 0.1,
    pace: Literal["auto", "live", "real", "asap"] = "auto",
    seconds: float | None = None,
    record: str | None = None,
    retries: int = 8,
    timeout: float = 10.0,
    raw: str | None = None,
    raw_fps: float = 25.0,
    options: dict[str, Any] | None = None,
    engine: EngineName = "auto",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    json: bool = False,
) -> LiveResult:
    """Say what happens now, with the delay of the answer and the frames that were missed.

    SOURCE is a camera (0, /dev/video0), an address (rtsp://, http://, ...), a video file, or - for stdin. Never more
    than one frame waits, or a second of them where the model sees motion: a machine that is too slow drops frames and
    does not fall behind. A stream that breaks off is opened again. Ctrl-C stops.

    Args:
        model: Model file, RUN folder, or hub id.
        source: Camera number or device, address, video file, or - for stdin.
        fps: Frames a second to look at; by default as in the training clips.
        window: Frames of a prediction; by default as many as a training clip has, `none` carries the state for ever.
        stride: Frames from one prediction to the next; by default 1, or from one frame that the network looks at to
            the next, where it sees the motion between them.
        threshold: Least calibrated probability of a label; below it is `unknown`.
        margin: How far a label may fall below the threshold, or behind another, before it is left.
        pace: As it comes (live), by its timestamps (real), or every frame as fast as it goes (asap); auto is real for
            files and pipes, and live for cameras and streams.
        seconds: Stop so long after the first frame.
        record: Also write all pictures with the label drawn to this .mp4, .mkv, .mov or .avi file.
        retries: Tries to connect again, in a row, before giving up; -1 never gives up.
        timeout: Seconds without an answer or data after which a stream counts as lost.
        raw: WIDTHxHEIGHT[:PIXEL_FORMAT] of bare frames on stdin, such as 640x480:bgr24.
        raw_fps: Bare frames a second.
        options: libav's options for the source, such as video_size 1280x720 for a camera.
        engine: What computes: torch, or what `kinegru export` wrote beside the model file; auto takes an export
            that gives torch's numbers.
        device: Where to compute.
        json: Print each prediction as a line of JSON on stdout.

    Raises:
        UsageError: for options out of range or that contradict each other.
        ModelFileError: for a model file or an export of it that cannot be used.
        VideoError: for a source that cannot be opened, or is lost for good.
    """
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds is {seconds}: give a number above 0")
    found = find(source, raw, raw_fps, options)
    if found.kind == "pipe" and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("stdin is closed or a terminal: pipe a container or raw frames into it")
    recognizer = Recognizer.load(model, device, engine)
    watched = Live(
        recognizer, found, fps=fps, window=None if window == "none" else "clip" if window is None else window,
        stride=stride, pace=pace, threshold=threshold, margin=margin, retries=retries, timeout=timeout, record=record,
    )  # fmt: skip
    if fps is None and recognizer.frame_rate is None:
        say("note: the model file does not say how long its clips were: frames are taken at the source's own rate")
    failure = None
    began = ended = time.monotonic()
    block = console.is_terminal and not (json and sys.stdout.isatty())
    with stop_requests() as stop, watched, Display(watched, record, block) as display:
        while not (watched.ended or stop.is_set() or (seconds is not None and ended - began >= seconds)):
            first = not watched.frames
            try:
                predictions = watched.wait(0.1)
            except VideoError as error:
                if not watched.frames:
                    raise
                failure = str(error)
                break
            ended = time.monotonic()
            began = ended if first else began
            for seen in predictions if json else ():
                print(dumps(_line(watched, seen), ensure_ascii=True), flush=True)
            display.update()
    return _result(watched, ended - began, failure, json)


def show(result: LiveResult) -> None:
    """Print the closing summary; on stderr where stdout belongs to JSON lines."""
    words = [f"{result.frames} frames", f"{result.predictions} predictions", f"{result.drops} dropped"]
    words.append(f"{result.reconnects} reconnect{'' if result.reconnects == 1 else 's'}")
    if result.median_latency is not None and result.p95_latency is not None:
        median, p95 = (1000 * value for value in (result.median_latency, result.p95_latency))
        words.append(f"latency {median:.0f} ms (median), {p95:.0f} ms (95th percentile)")
    tell = say if result.json else print
    tell(f"{result.source}, {duration(result.seconds)}: {', '.join(words)}")
    if result.recorded:
        tell(f"recorded: {shown(result.recorded)}")
    if result.drops > MANY * (result.frames + result.drops):
        say("note: a window with dropped frames spans more time than in training; --engine or a smaller --fps may help")
    if result.failure:
        say(f"kinegru live: {result.failure}")


def _line(watched: Live, seen: Seen) -> dict[str, Any]:
    at = datetime.now().astimezone().isoformat(timespec="milliseconds")
    counts = {"frames": watched.frames, "drops": watched.drops, "reconnects": watched.reconnects}
    return {"at": at, **seen.to_dict(), **counts}


def _result(watched: Live, seconds: float, failure: str | None, json: bool) -> LiveResult:
    recorder = watched.recorder
    if watched.capture.damage:
        say(f"note: {watched.source.name}: {watched.capture.damage}")
    if recorder is not None and recorder.missed > MANY * recorder.came:
        say(f"note: {recorder.missed} of {recorder.came} pictures came too fast to be recorded")
    return LiveResult(
        watched.source.name, seconds, watched.frames, watched.predictions, watched.drops, watched.reconnects,
        watched.latencies.quantile(0.5), watched.latencies.quantile(0.95),
        str(recorder.path) if recorder is not None and recorder.frames else None, failure, json,
    )  # fmt: skip
