"""`kinegru benchmark MODEL [VIDEO]`: how fast a model is on this machine, with every engine it was exported for.

The project's own figures, each with its command, are in `benchmarks/`.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from kinegru.console import say
from kinegru.errors import KineGRUError, UsageError
from kinegru.measuring import ProcessRun, interleave, run_process
from kinegru.models.modelfile import LoadedModel, resolve, save_model
from kinegru.models.zoo import create_model, list_models
from kinegru.recognition.engines import Engine, TorchEngine
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.speed import StreamSpeed, measure_streams
from kinegru.runs.provenance import machine
from kinegru.video.loading import load_windows
from kinegru.video.reader import read_clip
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing

EXPORTED = ("openvino", "onnx", "openvino-int8", "onnx-int8")
FRAMES = 16  # of the video, gone through over and over


@dataclass(frozen=True)
class Benchmarked:
    """What was measured; times are medians."""

    model: str
    machine: dict[str, Any]
    window: int  # frames of a prediction
    size: int  # pixels of a frame's side, as the network sees it
    threads: int
    engines: dict[str, StreamSpeed]
    reading: dict[str, Any]  # seconds to decode and resize one clip of the video
    start: ProcessRun  # `kinegru predict` of one clip, from a fresh process to its end
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "model": self.model,
            "machine": self.machine,
            "window": self.window,
            "size": self.size,
            "threads": self.threads,
            "engines": {name: speed.to_dict() for name, speed in self.engines.items()},
            "reading a clip": self.reading,
            "kinegru predict": {
                "seconds": self.start.seconds,
                "processor seconds": self.start.processor,
                "peak, MB": self.start.peak / 1e6,
            },
            "notes": self.notes,
        }


def benchmark(
    model: str,
    video: str | None = None,
    *,
    window: int | None = None,
    rounds: int = 5,
    seconds: float = 60.0,
    threads: int | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> Benchmarked:
    """Measure how fast a model is here: live, frame by frame, and on whole windows, with every engine it has.

    Engines that `kinegru export` wrote beside the model file are measured in turn with torch, as is; besides, reading a
    clip of the video, and the start of `kinegru predict` in a fresh process with its peak of memory.

    Args:
        model: Model file, RUN folder, hub id, or a model's name, which is then measured untrained: times are the same.
        video: Video file; by default a short drawn one.
        window: Frames of a prediction; by default as many as in training.
        rounds: How often the sides take turns.
        seconds: About how long, after three rounds.
        threads: Of the processor; by default torch's choice.
        device: Where torch computes.

    Raises:
        UsageError: for options out of range or that contradict each other.
        ModelFileError: for a model file or an export of it that cannot be used.
    """
    if rounds < 1 or (window is not None and window < 1) or (threads is not None and threads < 1):
        raise UsageError("--rounds, --window and --threads take numbers of at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return _measure(model, video, window, rounds, seconds, device)
    finally:
        torch.set_num_threads(before)


def show(result: Benchmarked) -> None:
    """Print a table for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("engine")
    columns = ("frames/s live", "ms a frame (quartiles)", "ms, window re-run", "ratio", "times torch")
    for title in columns:
        table.add_column(title, justify="right")
    first = next(iter(result.engines.values()))
    for name, speed in result.engines.items():
        if speed.stream.error or speed.rerun.error:
            table.add_row(name, Text(speed.stream.error or speed.rerun.error or ""))
            continue
        live, again = speed.stream.to_dict(), speed.rerun.to_dict()
        low, high = live["quartiles"]
        found = speed.ratio()
        table.add_row(
            name,
            f"{1 / live['seconds']:.1f}",
            f"{1e3 * live['seconds']:.1f} ({1e3 * low:.1f} to {1e3 * high:.1f})",
            f"{1e3 * again['seconds']:.0f}",
            "" if found is None else str(found),
            "" if first.stream.error else f"{first.stream.to_dict()['seconds'] / live['seconds']:.2f}x",
        )
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    console.print(table)
    start, reading = result.start, result.reading
    console.print(
        f"window {result.window} frames of {result.size} px, {result.threads} threads; reading a clip "
        f"{1e3 * reading['seconds']:.0f} ms; kinegru predict from its start to its end {start.seconds:.1f} s, "
        f"{start.peak / 1e6:.0f} MB",
        style="dim", highlight=False,
    )  # fmt: skip
    console.print(
        "ratio: processor seconds of a window that is run anew, over those of a frame of the live form, both for one "
        "prediction",
        style="dim",
    )
    described = ", ".join(f"{key} {value}" for key, value in result.machine.items())
    console.print(Text(f"machine: {described}", style="dim"))


def untrained(name: str, size: int, frames: int, classes: int = 101, **options: Any) -> Recognizer:
    """A recogniser with random weights: it takes as long as a trained one.

    >>> untrained("sc_xception_convgru_mcam_aff", 64, 4, classes=2, backbone="xception_small").preprocessing.frames
    4
    """
    model = create_model(name, classes, **options).eval()
    labels = [f"class {number}" for number in range(classes)]
    return Recognizer(LoadedModel(model, labels, Preprocessing(frames=frames, size=size).to_dict()), "cpu")


def _measure(
    model: str, video: str | None, window: int | None, rounds: int, seconds: float, device: str
) -> Benchmarked:
    source = Path(video) if video is not None else example_clip()
    with tempfile.TemporaryDirectory(prefix="kinegru-") as folder:
        path = resolve(model) if model not in list_models() else _write_untrained(model, Path(folder))
        recognizer = Recognizer.load(path, device)
        length = window or recognizer.clip_window
        notes: list[str] = []
        frames = _frames(source)
        streams = {}
        for name, engine in _engines(recognizer, path, notes).items():
            if not recognizer.takes(engine, length):
                notes.append(f"{name} takes windows of {engine.length} frames only")
                continue
            streams[name] = recognizer.stream_on(engine, length)
        for note in notes:
            say(f"note: {note}")
        found = measure_streams(streams, frames, rounds, seconds=seconds)
        reading = interleave({"read": lambda: load_windows(source, recognizer.preprocessing)}, rounds)["read"]
        if reading.error is not None:
            raise KineGRUError(reading.error)
        start = run_process([sys.executable, "-m", "kinegru", "predict", str(path), str(source), "--device", device])
    return Benchmarked(
        model, machine(), length, recognizer.preprocessing.size, torch.get_num_threads(), found, reading.to_dict(),
        start, notes,
    )  # fmt: skip


def _write_untrained(name: str, folder: Path) -> Path:
    model = create_model(name, 101)
    preprocessing = Preprocessing(**model.preprocessing_defaults)
    labels = [f"class {number}" for number in range(model.num_classes)]
    return save_model(folder / "model.safetensors", model, labels, preprocessing.to_dict())


def _engines(recognizer: Recognizer, path: Path, notes: list[str]) -> dict[str, Engine]:
    """torch, then what lies beside the model file; a note for what lies there and cannot be used."""
    from kinegru.recognition.exported import ExportedEngine, export_folder

    engines: dict[str, Engine] = {"torch": TorchEngine(recognizer.model, recognizer.device)}
    for name in EXPORTED:
        folder = export_folder(path, name)
        if recognizer.device.type == "cpu" and folder.is_dir():
            try:
                engines[name] = ExportedEngine(folder, path)
            except KineGRUError as error:
                notes.append(str(error))
    if len(engines) == 1 and recognizer.device.type == "cpu":
        notes.append("the model has no other engine yet: kinegru export writes them")
    return engines


def _frames(source: Path) -> np.ndarray:
    return np.stack(list(read_clip(source, FRAMES)[0]))
