"""Frame by frame, exactly: what the clip model gives for every window, at about one encoder pass a frame.

Only the excitation mixes time inside the encoder, by `radius` frames to each side, and the rest is a recurrence. So a
frame's trunk maps, and what the recurrence needs of it, are computed once and kept:

    frame t comes:   trunk(t)                                        the dear part, once a frame
                     part(t - radius)                                now its neighbours on both sides are known
                     one step of the recurrence for all open windows, in one batch
    window a .. t:   part of a .. a+radius-1 and t-radius+1 .. t     as at the ends of a clip: zeros beyond
                     the classifier

At the window's first and last frames the clip model pads with zeros where the recording has a neighbour; those few
frames are computed anew for each window, and that is what makes the result the clip model's and not nearly so. Every
window has a state of its own: a stride of s frames has window/s of them open at any time.
Without a window the state is carried for ever, and the result is that of the clip from the first frame on.
What a frame alone does not show (motion, a clip's background) is for kinegru.recognition.window.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinegru.errors import UsageError
from kinegru.recognition.engines import Engine
from kinegru.recognition.prediction import Prediction
from kinegru.recognition.window import Anew, Prepare, Window
from kinegru.video.loading import require_frames

logger = logging.getLogger(__name__)


class Stream:
    """The recogniser fed with single frames.

    `window` frames make a prediction, `stride` frames later they make the next; `window=None` carries the state for
    ever and predicts every `stride` frames. `together` makes what holds a window of a model that cannot see one frame
    by itself; a 3-D network has `Anew`, unless another is given. `exact` is False where nothing can be kept and
    every window is run anew, which is the same result at many times the cost.

    A frame that is refused, or fails on its way through the trunk, leaves the stream as it was. Raises UsageError for a
    window or stride that is no whole number of 1 or more.
    """

    def __init__(
        self,
        engine: Engine,
        prepare: Prepare,
        labels: Sequence[str],
        window: int | None,
        stride: int = 1,
        together: Callable[[int], Window] | None = None,
    ) -> None:
        if window is not None and not _whole_number(window):
            raise UsageError(f"window is {window}: give a number of frames, or none to carry the state for ever")
        if not _whole_number(stride):
            raise UsageError(f"stride is {stride}: give a number of frames, at least 1")
        self.engine, self.prepare, self.labels = engine, prepare, tuple(labels)
        self.window, self.stride = window, stride
        if together is None and engine.radius is None:
            together = functools.partial(Anew, engine, prepare)
        if together is not None and window is None:
            raise UsageError("this model keeps no state that could be carried; give a window")
        self._make = together
        self.radius = engine.radius or 0
        self.reset()
        self.exact = self.together is None or self.together.keeps
        if not self.exact:
            logger.warning("this model cannot reuse what it computed: every window is run anew")

    def reset(self) -> None:
        """Forget all frames."""
        reach = 2 * self.radius + 1
        self.count = 0  # frames so far
        self.together = None if self._make is None or self.window is None else self._make(self.window)
        self._shape: tuple[int, ...] | None = None  # of the frames
        self._maps: deque[Tensor] = deque(maxlen=reach)
        self._state: Any = None  # over the frames whose neighbours are all known: of all open windows, oldest first
        self._open = 0  # windows

    def step(self, frame: np.ndarray, predict: bool = True) -> Prediction | None:
        """One frame, uint8 (H, W, 3) RGB of any size -> the prediction for the window that ends with it, or None.

        The prediction's source tells the window's first and last frame, counted from 0 since the start or `reset`. With
        `predict=False` a prediction that is due is left out, where it is what costs: where there is `together`. Raises
        UsageError for another kind of array, and where there is `together` for a frame of another size than those
        before.
        """
        require_frames(frame, single=True)
        maps = None
        if self.together is None:
            maps = self.engine.trunk(self.prepare(frame[None]))[0]
        elif self._shape not in (None, frame.shape):
            (h, w, _), now = self._shape, frame.shape
            raise UsageError(f"frames were {w}x{h} and this one is {now[1]}x{now[0]}: reset the stream first")
        self._shape = frame.shape
        try:
            logits = self._step(frame, maps, predict)
        except BaseException:  # half a step was taken
            self.reset()
            raise
        if logits is None:
            return None
        first = 0 if self.window is None else self.count - self.window
        scores = logits.softmax(dim=0).double().cpu().numpy()
        return Prediction(f"frames {first} to {self.count - 1}", self.labels, scores)

    def _step(self, frame: np.ndarray, maps: Tensor | None, predict: bool) -> Tensor | None:
        self.count += 1
        due = self.count >= (self.window or 1) and (self.count - (self.window or 1)) % self.stride == 0
        if self.together is not None:
            self.together.push(frame)
            return self.together.logits() if due and predict else None
        assert maps is not None
        self._maps.append(maps)
        return self._forever(due) if self.window is None else self._windowed(self.window, due)

    def _windowed(self, window: int, due: bool) -> Tensor | None:
        r, engine = self.radius, self.engine
        if window <= 2 * r:  # every frame lies at one of the window's ends
            return self._whole(window) if due else None
        near = _stack(self._maps, len(self._maps))
        if self._open or not r:
            parts = engine.parts(near, slice(r, None if due else r + 1))
            complete, ends = parts[:1], parts[1:]  # of frame count-1-r, and if due of the r frames behind it
            if self._open:
                self._state = engine.advance(complete, self._state)
        first = self.count - max(2 * r, 1)  # of the window whose frames at its beginning are known now
        if first >= 0 and first % self.stride == 0:
            begun = engine.advance(engine.parts(near[-2 * r :], slice(0, r)) if r else complete)
            self._state = engine.join([self._state, begun]) if self._open else begun
            self._open += 1
        if not due:
            return None
        oldest, self._state = engine.take(self._state, slice(0, 1)), engine.take(self._state, slice(1, None))
        self._open -= 1
        return engine.logits(engine.advance(ends, oldest) if r else oldest)[0]

    def _whole(self, frames: int) -> Tensor:
        """The last frames as a clip of their own."""
        return self.engine.logits(self.engine.advance(self.engine.parts(_stack(self._maps, frames), slice(None))))[0]

    def _forever(self, due: bool) -> Tensor | None:
        r = self.radius
        before = min(r, self.count - 1 - r)  # frames in front of the one that is now complete; below 0: none is
        behind = r if due else 0
        state = self._state
        if before >= 0:
            near = _stack(self._maps, before + 1 + r)
            parts = self.engine.parts(near, slice(before, before + 1 + behind))
            self._state = state = self.engine.advance(parts[:1], state)
            rest = parts[1:]
        elif due:
            rest = self.engine.parts(_stack(self._maps, self.count), slice(0, self.count))
        if not due:
            return None
        return self.engine.logits(self.engine.advance(rest, state) if len(rest) else state)[0]


def _whole_number(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 1)


def _stack(maps: deque[Tensor], last: int) -> Tensor:
    """The last maps as (last, C0, h0, w0)."""
    return torch.stack([maps[i] for i in range(-last, 0)])
