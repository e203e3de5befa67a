"""`kinegru timeline MODEL RECORDING`: what happens when, as JSON, CSV and subtitles; a killed run goes on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kinegru.console import clock, progress_bar, say
from kinegru.errors import UsageError
from kinegru.files import atomic_write
from kinegru.models.modelfile import resolve
from kinegru.recognition.engines import EngineName
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.recording import Scanned, digest, scan
from kinegru.recognition.timeline import Rules, Segment, make_segments
from kinegru.video.container import shown
from kinegru.video.overlay import caption
from kinegru.video.pacing import Recording
from kinegru.video.writer import require_video_name, write_video


@dataclass(frozen=True)
class Timeline:
    """The timeline of a recording, and the files it was written to."""

    recording: str
    duration: float  # seconds
    segments: list[Segment]
    fps: float  # frames a second that were looked at
    window: int  # frames of a window
    stride: int  # frames from one window to the next
    temperature: float | None  # of the model's calibration, None where it has none
    rules: Rules
    damage: str | None = None  # what was wrong with the file
    files: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the JSON file holds the same without `files`."""
        return {
            "recording": self.recording,
            "duration": round(self.duration, 3),
            "segments": [segment.to_dict() for segment in self.segments],
            "settings": {"fps": self.fps, "window": self.window, "stride": self.stride, **asdict(self.rules)},
            "temperature": self.temperature,
            "damage": self.damage,
            "files": self.files,
        }


def timeline(
    model: str,
    recording: str,
    *,
    out: str | None = None,
    video: str | None = None,
    fps: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    rules: Rules | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    engine: EngineName = "auto",
) -> Timeline:
    """Say what happens when in a recording of any length, and write it as JSON, CSV and SRT subtitles.

    Windows of as many frames as a training clip run over the recording; their scores, calibrated and smoothed, become
    segments, with the label `unknown` where the model is not sure. The same command goes on after a kill.

    Args:
        model: Model file, RUN folder, or hub id.
        recording: Video file.
        out: Name of the files without their endings, or a folder for them; by default NAME-OF-RECORDING.timeline here.
        video: Also write the recording with label, score and time drawn to this .mp4, .mkv, .mov or .avi file.
        fps: Frames a second to look at; by default as in the training clips.
        window: Frames of a window; by default as many as a training clip has. Shorter ones find shorter actions.
        stride: Frames from one window to the next; by default a quarter of a window.
        device: Where to compute.
        engine: torch, or what `kinegru export` wrote; auto takes an export that gives torch's numbers, if there is one.

    Raises:
        UsageError: for options out of range or that contradict each other.
        ModelFileError: for a model file or an export of it that cannot be used.
        VideoError: for a video that cannot be read.
    """
    rules = (rules or Rules()).check()
    prefix = _prefix(out, recording)
    for name, frames in (("window", window), ("stride", stride)):
        if frames is not None and frames < 1:
            raise UsageError(f"--{name} is {frames}: give a number of frames, at least 1")
    if fps is not None and not 0 < fps < float("inf"):
        raise UsageError(f"--fps is {fps}: give a number of frames a second above 0")
    if video is not None:
        require_video_name("--video", video, recording, "recording")
    path = resolve(model)
    recognizer = Recognizer.load(path, device, engine)
    with Recording(recording):  # a file that cannot be read is refused before anything is written
        pass
    if "calibration" not in recognizer.provenance:
        say("note: the model file has no calibration (no validation part in training): scores are taken as they are")
    if fps is None and recognizer.frame_rate is None:
        say("note: the model file does not say how long its clips were: frames are taken at the recording's own rate")
    bound = {"recording": digest(recording), "model": digest(path), "engine": recognizer.engine.name}
    with progress_bar(f"timeline of {shown(Path(recording).name)}, seconds") as track:
        scanned, log = scan(recognizer, recording, fps, window, stride, _beside(prefix, ".partial"), bound, track)
    if log.resumed:
        say(f"went on after {log.resumed} windows of an earlier run")
    if scanned.damage:
        say(f"note: {shown(recording)} is damaged, the timeline is of what decodes: {scanned.damage}")
    segments = make_segments(scanned.scores, recognizer.labels, rules)
    result = _result(recording, recognizer, scanned, segments, rules)
    files = _write(result, prefix)
    if video is not None:
        with progress_bar(f"writing {shown(video)}, seconds") as track:
            write_video(video, _drawn(recording, segments, track), _rate(recording))
        files.append(video)
    log.remove()
    result.files.extend(files)
    return result


def show(result: Timeline) -> None:
    """Print the segments as a table for people."""
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, justify in (("from", "right"), ("to", "right"), ("label", "left"), ("score", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for segment in result.segments:
        style = "bold" if segment.known else "dim"
        times = (clock(segment.start), clock(segment.end))
        table.add_row(*times, Text(segment.label, style=style), f"{segment.score:.1%}")
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(table)
    console.print(Text(f"written: {', '.join(map(shown, result.files))}", style="dim"))


def subtitles(segments: Sequence[Segment]) -> str:
    """The named segments as SubRip text.

    >>> print(subtitles([Segment("walk", 0.0, 61.25, 0.93), Segment("unknown", 61.25, 70.0, 0.3, known=False)]), end="")
    1
    00:00:00,000 --> 00:01:01,250
    walk 93 %
    """
    entries: list[str] = []
    for segment in segments:
        if segment.known:
            text = " ".join(segment.label.split())  # an empty line would end the entry
            times = f"{_srt(segment.start)} --> {_srt(segment.end)}"
            entries.append(f"{len(entries) + 1}\n{times}\n{text} {100 * segment.score:.0f} %\n")
    return "\n".join(entries)


# -- steps --------------------------------------------------------------------------------------------------------


def _prefix(out: str | None, recording: str) -> Path:
    name = f"{Path(recording).stem}.timeline"
    if out is None:
        return Path(name)
    if Path(out).is_dir() or out.endswith(("/", "\\")):
        return Path(out) / name
    return Path(out).with_suffix("") if Path(out).suffix in (".json", ".csv", ".srt") else Path(out)


def _beside(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def _result(
    recording: str, recognizer: Recognizer, scanned: Scanned, segments: list[Segment], rules: Rules
) -> Timeline:
    temperature = recognizer.temperature if "calibration" in recognizer.provenance else None
    return Timeline(
        recording, scanned.scores.duration, segments, scanned.rate, scanned.window, scanned.stride, temperature, rules,
        scanned.damage,
    )  # fmt: skip


def _write(result: Timeline, prefix: Path) -> list[str]:
    paths = [_beside(prefix, ending) for ending in (".json", ".csv", ".srt")]
    with atomic_write(paths[0]) as file:
        kept = {name: value for name, value in result.to_dict().items() if name != "files"}
        json.dump(kept, file, ensure_ascii=False, indent=1)
    with atomic_write(paths[1]) as file:
        rows = csv.writer(file)
        rows.writerow(["start", "end", "label", "score"])
        for segment in result.segments:
            rows.writerow([f"{segment.start:.3f}", f"{segment.end:.3f}", segment.label, f"{segment.score:.4f}"])
    with atomic_write(paths[2]) as file:
        file.write(subtitles(result.segments))
    return [str(path) for path in paths]


def _rate(recording: str) -> float:
    with Recording(recording) as opened:
        return opened.rate


def _drawn(recording: str, segments: Sequence[Segment], track: Any) -> Iterator[np.ndarray]:
    """Every frame at the recording's nominal rate, pauses filled, so that time runs as in the recording."""
    at = 0
    with Recording(recording) as opened:
        for frame in opened.frames(longest_gap=float("inf")):
            time = frame.number / opened.rate
            while at + 1 < len(segments) and segments[at].end <= time:
                at += 1
            segment = segments[at]
            score = f" {segment.score:.0%}" if segment.known else ""
            yield caption(frame.image, segment.label + score, clock(time))
            track(int(time), max(int(segments[-1].end), int(time) + 1))


def _srt(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    hours, minutes = milliseconds // 3_600_000, milliseconds // 60_000 % 60
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000 % 60:02d},{milliseconds % 1000:03d}"
