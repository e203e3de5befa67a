"""`kinegru predict MODEL VIDEO ...`: label and score of each file; a bad file is named and the rest go on."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kinegru.console import progress_bar, say
from kinegru.data.catalog import is_video
from kinegru.errors import UsageError, VideoError
from kinegru.recognition.engines import EngineName
from kinegru.recognition.recognizer import Prediction, Recognizer


@dataclass(frozen=True)
class Predicted:
    """What `predict` found; `exit_status` is 1 where a file could not be read."""

    predictions: list[Prediction]
    failures: dict[str, str] = field(default_factory=dict)  # file -> reason
    top: int = 3
    csv: bool = False

    @property
    def exit_status(self) -> int:
        """0 only if every file was recognised."""
        return 1 if self.failures else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"predictions": [p.to_dict() for p in self.predictions], "failures": self.failures}


def predict(
    model: str,
    *videos: str,
    top: int = 3,
    csv: bool = False,
    batch: int = 4,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    engine: EngineName = "auto",
) -> Predicted:
    """Recognise the action in each video file, as one clip.

    Args:
        model: Model file, RUN folder, or hub id.
        videos: Video files; a folder stands for the video files in it and below.
        top: Classes shown for a file.
        csv: Print every class's score as CSV on stdout.
        batch: Clips at a time.
        device: Where to compute.
        engine: torch, or what `kinegru export` wrote; auto takes an export that gives torch's numbers, if there is one.

    Raises:
        UsageError: for options out of range or that contradict each other.
        ModelFileError: for a model file or an export of it that cannot be used.
    """
    if top < 1 or batch < 1:
        raise UsageError(f"--top and --batch must be at least 1, not {min(top, batch)}")
    files = [file for video in videos for file in _files(video)]
    recognizer = Recognizer.load(model, device, engine)
    predictions: list[Prediction] = []
    failures: dict[str, str] = {}
    with progress_bar("recognising", quiet=len(files) < 2) as track:
        for number, (name, outcome) in enumerate(recognizer.predict_many(files, batch), start=1):
            if isinstance(outcome, VideoError):
                failures[name] = str(outcome)
            else:
                predictions.append(outcome)
            track(number, len(files))
    for reason in failures.values():
        say(f"kinegru predict: {reason}")
    return Predicted(predictions, failures, top, csv)


def show(result: Predicted) -> None:
    """Print a table for people, or CSV where asked for."""
    if result.csv:
        _write_csv(result.predictions)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kinegru.video.container import shown

    if not result.predictions:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("video", overflow="fold")
    table.add_column("label", style="bold")
    table.add_column("score", justify="right")
    table.add_column("next")
    for p in result.predictions:
        others = ", ".join(f"{label} {score:.1%}" for label, score in p.top(result.top)[1:])
        table.add_row(Text(shown(p.source)), Text(p.label), f"{p.score:.1%}", Text(others))
    width = None if sys.stdout.isatty() else 10_000  # a file or a pipe has no edge to break lines at
    Console(width=width).print(table)


def _files(video: str) -> Iterator[str]:
    path = Path(video)
    if not path.is_dir():
        yield video
        return
    found = sorted(file for file in path.rglob("*") if file.is_file() and is_video(file))
    if not found:
        raise UsageError(f"{video}: no video files in this folder")
    yield from map(str, found)


def _write_csv(predictions: list[Prediction]) -> None:
    rows = csv.writer(sys.stdout)
    labels = predictions[0].labels if predictions else ()
    rows.writerow(["clip", "label", "score", *(f"score:{label}" for label in labels)])
    for p in predictions:
        rows.writerow([p.source, p.label, f"{p.score:.6f}", *(f"{score:.6f}" for score in p.scores)])
