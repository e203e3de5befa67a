"""What a prediction costs: a stream, and the clip model run anew on every window, side by side.

Both sides get each frame once, resized and normalised alike; re-running keeps the prepared frames of its window, so
that only the network's work is compared. Where a frame cannot be prepared without the others of its window (optical
flow, the background taken away), that is done anew for every window. Processor seconds count all threads, wall seconds
what a user waits.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kinegru.measuring import Call, Ratio, Side, interleave, ratio
from kinegru.recognition.stream import Stream


@dataclass(frozen=True)
class StreamSpeed:
    """One stream beside re-running; times are of one prediction."""

    engine: str
    window: int
    exact: bool  # False: the model can only be re-run, and there is nothing to compare
    stream: Side
    rerun: Side
    difference: float | None  # the largest between the two sides' probabilities for one window

    def ratio(self) -> Ratio | None:
        """How many times the stream's processor seconds re-running takes."""
        if not self.exact or self.stream.error or self.rerun.error:
            return None
        return ratio(self.rerun.processor, self.stream.processor)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = self.ratio()
        return {
            "engine": self.engine,
            "window": self.window,
            "exact": self.exact,
            "stream": self.stream.to_dict(),
            "re-run": self.rerun.to_dict(),
            "ratio": None if found is None else found.median,
            "ratio quartiles": None if found is None else [found.low, found.high],
            "difference": self.difference,
        }


def measure_streams(
    streams: Mapping[str, Stream], frames: np.ndarray, rounds: int = 5, steps: int = 8, seconds: float = 120.0
) -> dict[str, StreamSpeed]:
    """Let streams with a window and their re-runs take turns on the frames (L, H, W, 3), over and over.

    A round has `steps` predictions of every stream and one re-run each.

    >>> from kinegru.recognition.recognizer import example_recognizer
    >>> stream = example_recognizer().stream(window=4)
    >>> found = measure_streams({"example": stream}, np.zeros((3, 48, 64, 3), np.uint8), rounds=2, steps=1)
    >>> found["example"].exact, found["example"].difference < 1e-5
    (True, True)
    """
    sides: dict[str, Call] = {}
    different: dict[str, float] = {}
    for name, stream in streams.items():
        again = _Rerun(stream, frames)
        if stream.exact:
            different[name] = _fill(stream, frames, again)
            sides[f"{name}/stream"] = _Steps(stream, frames, steps)
        sides[f"{name}/rerun"] = again
    found = interleave(sides, rounds, seconds, warm_up=2)  # OpenVINO compiles at a shape's third call: `_fill` was one
    speeds = {}
    for name, stream in streams.items():
        rerun = found[f"{name}/rerun"]
        stepped = found.get(f"{name}/stream", rerun)
        if stream.exact:
            stepped.seconds = [value / steps for value in stepped.seconds]
            stepped.processor = [value / steps for value in stepped.processor]
        speeds[name] = StreamSpeed(
            stream.engine.name, stream.window or 0, stream.exact, stepped, rerun, different.get(name)
        )
    return speeds


def _fill(stream: Stream, frames: np.ndarray, again: _Rerun) -> float:
    """Give the stream its first window, and compare what it says of it with the clip model."""
    last = None
    for number in range(stream.window or 1):
        last = stream.step(frames[number % len(frames)])
    assert last is not None, "the window is full"
    return float(np.abs(last.scores - again.window().softmax(dim=1).double().cpu().numpy()[0]).max())


class _Steps:
    """So many predictions of a stream that is full."""

    def __init__(self, stream: Stream, frames: np.ndarray, steps: int) -> None:
        self.stream, self.steps = stream, steps
        self.frames = itertools.cycle(frames)

    def __call__(self) -> None:
        for _ in range(self.steps * self.stream.stride):
            self.stream.step(next(self.frames))


class _Rerun:
    """The clip model on a window that moves on by the stride; frames are prepared once, where one can be alone."""

    def __init__(self, stream: Stream, frames: np.ndarray) -> None:
        self.engine, self.prepare, self.stride = stream.engine, stream.prepare, stream.stride
        self.alone = stream.together is None
        window = stream.window or 1
        self.frames = itertools.cycle(frames)
        self.kept = deque((self._next() for _ in range(window)), maxlen=window)

    def window(self) -> torch.Tensor:
        if self.alone:
            return self.engine.clip(torch.cat(tuple(self.kept))[None])
        return self.engine.clip(self.prepare(np.concatenate(tuple(self.kept)))[None])

    def __call__(self) -> torch.Tensor:
        for _ in range(self.stride):
            self.kept.append(self._next())
        return self.window().softmax(dim=1)

    def _next(self) -> Any:
        frame = next(self.frames)[None]
        return self.prepare(frame) if self.alone else frame
