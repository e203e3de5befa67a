"""From scores of windows to a timeline: who does what from when to when.

Pure functions on arrays, in the order they are applied:

    tempered    scores become probabilities of being right (one temperature, fitted on validation clips)
    smooth      mean over neighbouring windows
    decide      one label a window, with hysteresis, or UNKNOWN
    merge       neighbours of one label across a short gap
    drop        what is too short to be an action; it becomes unknown, and what it divided is merged again
    close       a short gap between two labels is shared by them

A window speaks for the time around its middle, half way to the neighbouring windows' middles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinegru.errors import UsageError

UNKNOWN = -1  # the class index of what is none of the model's labels
UNKNOWN_LABEL = "unknown"

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """One stretch of a recording.

    >>> Segment("walk", 1.0, 3.5, 0.875).to_dict()
    {'label': 'walk', 'start': 1.0, 'end': 3.5, 'score': 0.875, 'known': True}
    """

    label: str  # of the model, or "unknown"
    start: float  # seconds since the recording's first frame
    end: float  # seconds
    score: float  # mean calibrated probability of the label, 0 to 1; of the likeliest class where it is unknown
    known: bool = True  # False where no label of the model is given; a class may be called "unknown", too

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times to a millisecond."""
        times = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return {"label": self.label, **times, "score": round(self.score, 4), "known": self.known}


@dataclass
class Rules:
    """How scores become segments."""

    threshold: float = 0.5
    """Least calibrated probability of a label; below it a moment is `unknown`."""
    margin: float = 0.1
    """How far a label may fall below the threshold, or behind another, before it is left."""
    smooth: int = 3
    """Windows that are averaged; 1 averages nothing."""
    gap: float = 1.0
    """Seconds of unknown that are closed: within one label, or half and half between two."""
    shortest: float = 0.5
    """Seconds; shorter segments become unknown."""

    def check(self) -> Rules:
        """Itself. Raises UsageError for a value out of its range."""
        for name, good, range_ in (
            ("threshold", 0 <= self.threshold <= 1, "from 0 to 1"),
            ("margin", 0 <= self.margin <= 1, "from 0 to 1"),
            ("smooth", isinstance(self.smooth, int) and self.smooth >= 1, "of windows, at least 1"),
            ("gap", self.gap >= 0, "of at least 0 s"),
            ("shortest", self.shortest >= 0, "of at least 0 s"),
        ):
            if not good:
                raise UsageError(f"{name} is {getattr(self, name)}: give a number {range_}")
        return self


@dataclass(frozen=True)
class WindowScores:
    """What a model says of the windows of a recording."""

    times: Floats  # (n, 2) start and end of each window in seconds, starts rising
    probabilities: Floats  # (n, K), rows sum to 1
    step: float  # seconds from one window's start to the next; further apart there is a cut between them
    duration: float  # of the recording, seconds

    @property
    def cuts(self) -> list[slice]:
        """The windows between cuts, in order."""
        if not len(self.times):
            return []
        breaks = np.flatnonzero(np.diff(self.times[:, 0]) > 1.5 * self.step) + 1
        return [slice(int(a), int(b)) for a, b in zip([0, *breaks], [*breaks, len(self.times)], strict=True)]


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """Softmax scores (n, K) as they were with logits divided by `temperature`, rows sum to 1; above 1 they are milder.

    >>> tempered(np.array([[0.9, 0.1]]), 2.0)
    array([[0.75, 0.25]])
    """
    logs = np.log(np.clip(probabilities, 1e-12, None)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def smooth(probabilities: Floats, windows: int) -> Floats:
    """Mean over `windows` neighbouring rows of (n, K), centred; at the ends over those there are.

    >>> smooth(np.array([[1.0], [0.0], [0.5], [0.0]]), 3).ravel()
    array([0.5       , 0.5       , 0.16666667, 0.25      ])
    """
    count = len(probabilities)
    sums = np.concatenate([np.zeros_like(probabilities[:1], dtype=np.float64), np.cumsum(probabilities, axis=0)])
    at = np.arange(count)
    first, last = np.maximum(at - (windows - 1) // 2, 0), np.minimum(at + windows // 2 + 1, count)
    return (sums[last] - sums[first]) / (last - first)[:, None]


def decide(probabilities: Floats, threshold: float, margin: float) -> Ints:
    """A class or UNKNOWN for each row of (n, K), with hysteresis: int64 (n,).

    A class is entered at `threshold`. It is left where it falls below `threshold - margin`, or where another one has
    reached the threshold and leads by `margin`.

    >>> decide(np.array([[0.45, 0.55], [0.52, 0.48], [0.7, 0.3], [0.48, 0.48], [0.3, 0.3]]), 0.5, 0.1).tolist()
    [1, 1, 0, 0, -1]
    """
    labels = np.full(len(probabilities), UNKNOWN, dtype=np.int64)
    current = UNKNOWN
    for i, row in enumerate(probabilities):
        best = int(row.argmax())
        entered = row[best] >= threshold
        if current == UNKNOWN or row[current] < threshold - margin or (entered and row[best] - row[current] >= margin):
            current = best if entered else UNKNOWN
        labels[i] = current
    return labels


@dataclass
class Piece:
    """A stretch of one class on the way to a segment; `weight` are the seconds that `score` is the mean of."""

    label: int
    start: float
    end: float
    score: float
    weight: float

    def joined(self, other: Piece) -> Piece:
        """From the start of this to the end of the later `other`."""
        weight = self.weight + other.weight
        score = (self.score * self.weight + other.score * other.weight) / weight if weight else self.score
        return Piece(self.label, self.start, other.end, score, weight)


def merge(pieces: Sequence[Piece], gap: float) -> list[Piece]:
    """Neighbours of one class that are at most `gap` seconds apart become one.

    >>> merge([Piece(0, 0, 1, 0.5, 1), Piece(0, 1.5, 2.5, 0.7, 1), Piece(1, 2.5, 3, 0.9, 0.5)], gap=0.5)
    [Piece(label=0, start=0, end=2.5, score=0.6, weight=2), Piece(label=1, start=2.5, end=3, score=0.9, weight=0.5)]
    """
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is not None and last.label == piece.label and piece.start - last.end <= gap + 1e-9:
            merged[-1] = last.joined(piece)
        else:
            merged.append(piece)
    return merged


def drop(pieces: Sequence[Piece], shortest: float) -> list[Piece]:
    """Without those shorter than `shortest` seconds.

    >>> drop([Piece(0, 0, 1, 0.5, 1), Piece(1, 1, 1.2, 0.7, 0.2)], 0.5)
    [Piece(label=0, start=0, end=1, score=0.5, weight=1)]
    """
    return [piece for piece in pieces if piece.end - piece.start >= shortest - 1e-9]


def close(pieces: Sequence[Piece], gap: float) -> list[Piece]:
    """Neighbours that are at most `gap` seconds apart meet in the middle.

    >>> [(p.start, p.end) for p in close([Piece(0, 0, 1, 0.5, 1), Piece(1, 2, 3, 0.7, 1), Piece(0, 5, 6, 0.9, 1)], 1.0)]
    [(0, 1.5), (1.5, 3), (5, 6)]
    """
    closed = [replace(piece) for piece in pieces]
    for one, other in pairwise(closed):
        if other.start - one.end <= gap + 1e-9:
            one.end = other.start = (one.end + other.start) / 2
    return closed


def make_segments(scores: WindowScores, labels: Sequence[str], rules: Rules) -> list[Segment]:
    """The timeline: segments in order, without overlap or hole, from 0 to the recording's end.

    Of what no rule gives a label, and what no window reaches, the label is "unknown".

    >>> p = np.array([[0.9, 0.1]] * 4 + [[0.2, 0.8]] * 4)
    >>> times = np.stack([np.arange(8.0), np.arange(8.0) + 2], axis=1)
    >>> for segment in make_segments(WindowScores(times, p, 1.0, 9.0), ["run", "walk"], Rules(smooth=1)):
    ...     print(segment.label, segment.start, segment.end, round(segment.score, 2))
    run 0.0 4.5 0.9
    walk 4.5 9.0 0.8
    """
    rules.check()
    edges, smoothed, decided = _moments(scores, rules)
    pieces = [
        Piece(int(label), float(start), float(end), float(row[label]), float(end - start))
        for label, (start, end), row in zip(decided, edges, smoothed, strict=True)
        if label != UNKNOWN and start < end
    ]
    pieces = merge(merge(pieces, 0.0), rules.gap)
    pieces = close(merge(drop(pieces, min(rules.shortest, scores.duration)), rules.gap), rules.gap)
    best = _Mean(edges, smoothed.max(axis=1) if len(smoothed) else np.zeros(0))
    segments: list[Segment] = []
    at = 0.0
    for piece in pieces:
        if piece.start > at:
            segments.append(Segment(UNKNOWN_LABEL, at, piece.start, best.between(at, piece.start), known=False))
        segments.append(Segment(labels[piece.label], piece.start, piece.end, piece.score))
        at = piece.end
    if at < scores.duration:
        segments.append(Segment(UNKNOWN_LABEL, at, scores.duration, best.between(at, scores.duration), known=False))
    return segments


def _moments(scores: WindowScores, rules: Rules) -> tuple[Floats, Floats, Ints]:
    """What each window speaks for, (n, 2) in seconds; its smoothed scores (n, K); its class (n,)."""
    edges = np.empty((len(scores.times), 2))
    smoothed = np.empty(scores.probabilities.shape)
    decided = np.empty(len(scores.times), dtype=np.int64)
    for part in scores.cuts:
        times = scores.times[part]
        middles = times.mean(axis=1)
        beyond = scores.times[part.stop, 0] if part.stop < len(scores.times) else scores.duration
        bounds = np.minimum([times[0, 0], *(middles[1:] + middles[:-1]) / 2, times[-1, 1] + scores.step], beyond)
        edges[part] = np.stack([bounds[:-1], bounds[1:]], axis=1)
        smoothed[part] = smooth(scores.probabilities[part], rules.smooth)
        decided[part] = decide(smoothed[part], rules.threshold, rules.margin)
    return edges, smoothed, decided


class _Mean:
    """The mean over time of values that hold between edges (n, 2), and are 0 elsewhere."""

    def __init__(self, edges: Floats, values: Floats) -> None:
        sums = np.concatenate([[0.0], np.cumsum(values * (edges[:, 1] - edges[:, 0]))])
        self.at, self.sums = edges.ravel(), np.stack([sums[:-1], sums[1:]], axis=1).ravel()

    def between(self, start: float, end: float) -> float:
        if not len(self.at):
            return 0.0
        first, last = np.interp([start, end], self.at, self.sums)
        return float((last - first) / (end - start))
