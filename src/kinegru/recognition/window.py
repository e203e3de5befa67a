"""Windows of models that do not see frame by frame, and what of them is kept from one window to the next.

* Optical flow, saliency, energy and time as colour (`Moving`) are of neighbouring frames of the source: a window holds
  all of them, and the network looks at some, evenly spread, as it does in a clip file. Each field is computed once.
  Where windows follow each other at a multiple of the distance between the frames looked at, these are the same frames,
  and their trunk maps are kept as well; only those whose neighbours would lie beyond the window are its own.
* What mixes frames in another way (3-D networks, the background taken away) is run anew for every window (`Anew`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinegru.recognition.engines import Engine
from kinegru.video.flow import Numbers, RunningFlow, windows
from kinegru.video.loading import input_at
from kinegru.video.sampling import uniform_indices
from kinegru.video.transforms import Preprocessing

Prepare = Callable[[NDArray[np.uint8]], Tensor]  # frames uint8 (n, H, W, 3) -> network input (T, C, S, S) float32


class Window(Protocol):
    """The last frames of a stream, all of one size."""

    keeps: bool  # anything that is dear
    every_frame: bool  # whether a frame that is left out would change what is seen of the others

    def push(self, frame: NDArray[np.uint8]) -> None:
        """The next frame, uint8 (H, W, 3); the caller may fill the same array again."""

    def logits(self) -> Tensor:
        """What the clip model gives for the window that ends now: (K,)."""


class Anew:
    """All frames, and nothing of what was computed."""

    keeps = every_frame = False

    def __init__(self, engine: Engine, prepare: Prepare, length: int) -> None:
        self.engine, self.prepare = engine, prepare
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=length)

    def push(self, frame: NDArray[np.uint8]) -> None:
        """See `Window`."""
        self._frames.append(frame.copy())

    def logits(self) -> Tensor:
        """See `Window`."""
        return self.engine.clip(self.prepare(np.stack(self._frames))[None])[0]


class Moving:
    """The frames of a window, the fields between them, either where a model sees it, and the trunk maps of those looked
    at.

    Raises UsageError where OpenCV is needed and not installed.
    """

    every_frame = True

    def __init__(self, engine: Engine, preprocessing: Preprocessing, length: int) -> None:
        self.engine, self.preprocessing, self.length = engine, preprocessing, length
        self._by_frame = engine.radius is not None and preprocessing.background == "keep"
        self.keeps = self._by_frame or preprocessing.needs_flow
        self._flow = RunningFlow() if preprocessing.needs_flow else None
        self._fields: deque[NDArray[np.uint8]] = deque(maxlen=length - 1)
        self._frames: deque[NDArray[np.uint8]] = deque(maxlen=length if preprocessing.needs_pictures else 0)
        self._maps: dict[tuple[int, ...], Tensor] = {}  # by the numbers of what they were computed from
        self._count = 0

    def push(self, frame: NDArray[np.uint8]) -> None:
        """See `Window`."""
        field = self._flow.next(frame) if self._flow else None
        if field is not None:
            self._fields.append(field)
        if self._frames.maxlen:
            self._frames.append(frame.copy())
        self._count += 1

    def logits(self) -> Tensor:
        """See `Window`."""
        indices = uniform_indices(self.length, self.preprocessing.frames)
        if not self._by_frame:
            return self.engine.clip(self._input(indices)[None])[0]
        first = self._count - self.length
        sources = []  # (T, n) each, numbers of what is seen of a frame
        if self._flow:
            sources.append(windows(indices, self.length))
        if self.preprocessing.needs_pictures:
            sources.append(self.preprocessing.pictured(indices, self.length))
        keys = [tuple(row) for row in (first + np.concatenate(sources, axis=1)).tolist()]
        missing = {key: index for key, index in zip(keys, indices, strict=True) if key not in self._maps}
        if missing:
            maps = self.engine.trunk(self._input(np.array(list(missing.values()))))
            self._maps |= zip(missing, maps, strict=True)
        parts = self.engine.parts(torch.stack([self._maps[key] for key in keys]), slice(None))
        self._maps = {k: maps for k, maps in self._maps.items() if min(k) >= first}  # no later window has the rest
        return self.engine.logits(self.engine.advance(parts))[0]

    def _input(self, indices: NDArray[np.int64]) -> Tensor:
        """Of the frames with these numbers in the window: (n, C, S, S)."""

        def pictures(numbers: Numbers) -> NDArray[np.uint8]:
            return np.stack([self._frames[int(number)] for number in numbers])

        def flow(numbers: Numbers) -> NDArray[np.uint8]:
            assert self._flow
            return np.stack([self._fields[int(n)] if self._fields else self._flow.zero() for n in numbers])

        return input_at(indices, self.length, self.preprocessing, pictures, flow)
