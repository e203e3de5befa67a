"""A video file explained: where and when a recogniser looked for a class, in the file's own frames and seconds.

What is computed is in `kinegru.recognition.attribution`; here it gets its place. The model saw T frames, sampled as for
`predict`; between them values are interpolated, and where it did not look there are none.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from kinegru.errors import UsageError
from kinegru.models.committee import made_of
from kinegru.models.temporal import MapRecurrence
from kinegru.recognition.attribution import METHODS, Deletion, Floats, Look, On, deletion, look
from kinegru.recognition.grid import Grid, grids
from kinegru.video.container import shown
from kinegru.video.loading import load_images
from kinegru.video.pacing import Recording

if TYPE_CHECKING:
    from kinegru.recognition.recognizer import Recognizer

Scale = Literal["clip", "frame"]


@dataclass(frozen=True)
class Explanation:
    """Why a recogniser gives a clip a label."""

    source: str
    labels: tuple[str, ...]
    label: str  # that is explained
    predicted: str  # what the recogniser says
    score: float  # of `label`, 0 to 1, as `predict` gives it
    look: Look
    deletion: Deletion
    numbers: NDArray[np.int64]  # (T,) of the frames that the model saw, in the file
    stamps: NDArray[np.float64]  # (L,) when each frame of the file is shown, seconds from its start, rising
    fps: float  # of the file, nominal
    heat_grid: Grid  # how the cells of the heat lie in the network's square
    mask_grid: Grid | None  # those of the spatial mask
    rate: float | None  # frames a second the model saw of a part of the clip; None: it saw all of the clip
    window: int = 0  # which part of the clip, of several: the one where `label` scores highest
    damage: str | None = None  # what was wrong with the file

    @property
    def places(self) -> NDArray[np.float64]:
        """Where in the file the S steps lie: (S,) frame numbers, rising; a fraction where a step joins frames."""
        steps, count = len(self.look.heat), len(self.numbers)
        middles = (np.arange(steps) + 0.5) * count / steps - 0.5
        return np.interp(middles, np.arange(count), self.numbers)

    @property
    def times(self) -> NDArray[np.float64]:
        """(S,) seconds from the file's start."""
        return self.seconds(self.places)

    @property
    def length(self) -> int:
        """Frames in the file."""
        return len(self.stamps)

    def seconds(self, numbers: NDArray[Any]) -> NDArray[np.float64]:
        """When frames of these numbers are shown, seconds from the file's start; a fraction lies between two."""
        return np.interp(numbers, np.arange(self.length), self.stamps)

    @property
    def over_time(self) -> Floats:
        """(S,): probability of `label`, read out after each step."""
        return self.look.scores[:, self.labels.index(self.label)]

    @property
    def strength(self) -> Floats:
        """(S,): mean heat of each step, 1 where it is greatest."""
        return _scaled(self.look.heat.mean(axis=(1, 2)))

    def heat(self, scale: Scale = "clip") -> Floats:
        """(S, h, w) in 0 .. 1: 1 is the hottest place of the clip, or with `frame` of each frame by itself."""
        if scale == "clip":
            return _scaled(self.look.heat)
        return np.stack([_scaled(step) for step in self.look.heat])

    def saw(self, number: float) -> bool:
        """Whether the frame lies in the part of the file that the model looked at."""
        if self.rate is None:
            return True
        half = self.fps / self.rate / 2
        return bool(self.numbers[0] - half <= number <= self.numbers[-1] + half)

    def at(self, number: float, steps: NDArray[Any]) -> NDArray[Any]:
        """Values of the steps (S, ...) at any frame of the file: linear between steps, constant beyond them."""
        places, first = np.unique(self.places, return_index=True)
        last = np.append(first[1:], len(steps)) - 1  # of the steps that repeat a frame the last one counts
        right = int(np.clip(np.searchsorted(places, number), 0, len(places) - 1))
        left = max(0, right - 1)
        if left == right or number >= places[right]:
            return steps[last[right]]
        share = max(0.0, (number - places[left]) / (places[right] - places[left]))
        return (1 - share) * steps[last[left]] + share * steps[last[right]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the maps."""
        look, gates = self.look, self.look.gates
        frames: dict[str, Any] = {
            "number": [round(float(place), 2) for place in self.places],
            "seconds": _plain(self.times, 3),
            "score": _plain(self.over_time),
            "heat": _plain(self.strength),
        }
        if gates is not None:
            frames |= {"update": _plain(gates.update), "reset": _plain(gates.reset), "change": _plain(gates.change)}
        if look.spatial is not None:
            frames["spatial_mask"] = _plain(np.abs(look.spatial).mean(axis=(1, 2)), 6)
        if look.channels is not None:
            frames["channel_mask"] = _plain(look.channels, 6)
        deletion = self.deletion
        return {
            "source": self.source,
            "label": self.label,
            "predicted": self.predicted,
            "score": round(self.score, 6),
            "scores": dict(zip(self.labels, _plain(look.scores[-1]), strict=True)),
            "heat_of": METHODS[look.method],
            "window": self.window,
            "sampled": self.numbers.tolist(),
            "frames": frames,
            "deletion": {
                "share": list(deletion.shares),
                "hottest": _plain(np.array(deletion.hottest)),
                "coldest": _plain(np.array(deletion.coldest)),
            },
            "damage": self.damage,
        }


def explain(
    recognizer: Recognizer, source: str | os.PathLike[str], label: str | None = None, on: On = "auto"
) -> Explanation:
    """Where and when the recogniser looks for `label` (by default the one it predicts) in a video file.

    `on` says what the heat is on: the ConvGRU's `states`, the encoder's last `maps`, or states where there are any. Of
    several windows of the clip the one where the label scores highest is explained. Raises VideoError where the file
    cannot be read, UsageError for a label or states that the model does not have, and for maps of a single cell.

    >>> from kinegru.recognition.recognizer import example_recognizer
    >>> from kinegru.video.synthetic import example_clip
    >>> found = explain(example_recognizer(), example_clip(), "walk")
    >>> found.look.method, found.heat().shape, found.numbers.tolist()
    ('states', (4, 4, 4), [3, 11, 18, 26])
    """
    labels, preprocessing, model = recognizer.labels, recognizer.preprocessing, recognizer.model
    if on not in get_args(On):
        raise UsageError(f"--on is {on!r}: give one of {', '.join(get_args(On))}")
    if label is not None and label not in labels:
        close = difflib.get_close_matches(label, labels, n=3)
        raise UsageError(f"label {label!r} is none of the model's: {', '.join(close or labels)}")
    if on == "states" and not made_of(model.temporal, MapRecurrence):
        raise UsageError(f"the model has no ConvGRU, so no heat can be on its states: leave it to {METHODS['maps']}")
    maps, scores = [], []
    for window in range(preprocessing.windows):
        images, info = load_images(source, preprocessing, window=window)
        with torch.no_grad():
            maps.append(model.trunk(preprocessing.normalise(images)[None].to(recognizer.device)))
            scores.append(model.head(model.neck(maps[-1]))[0].float().softmax(0).double().cpu())
    table = torch.stack(scores)  # (windows, K)
    mean = table.mean(dim=0)
    predicted = int(mean.argmax())
    index = predicted if label is None else labels.index(label)
    window = int(table[:, index].argmax())
    found = look(model, maps[window], index, on)
    if found.heat[0].size == 1:
        raise UsageError(
            f"{shown(source)}: cannot be explained, at {preprocessing.size} pixels {METHODS[found.method]} "
            "are a single cell; train with a larger --size"
        )
    with Recording(source) as recording:
        stamps = np.array([seconds for seconds, _ in recording.timed()])
    lie, mask = grids(model, preprocessing.size), found.spatial
    return Explanation(
        source=os.fspath(source),
        labels=labels,
        label=labels[index],
        predicted=labels[predicted],
        score=float(mean[index]),
        look=found,
        deletion=deletion(model, maps[window], index, found.heat),
        numbers=preprocessing.sampling(window).indices(info.frames, info.fps),
        stamps=stamps,
        fps=recording.rate,
        heat_grid=_grid(lie, found.heat),
        mask_grid=None if mask is None else _grid(lie, mask),
        rate=preprocessing.rate,
        window=window,
        damage=info.damaged,
    )


# -- steps --------------------------------------------------------------------------------------------------------


def _grid(lie: dict[int, Grid], cells: Floats) -> Grid:
    """Of maps (S, h, w); taken as even where a network hides its layers."""
    return lie.get(cells.shape[-1], Grid.even(cells.shape[-1]))


def _scaled(values: Floats) -> Floats:
    """Divided by the greatest, where it is above 0."""
    greatest = values.max()
    return values / greatest if greatest > 0 else np.zeros_like(values)


def _plain(values: NDArray[Any], decimals: int = 4) -> list[float]:
    return [round(float(value), decimals) for value in values]
