"""What a temporal model carries from frame to frame, and how it is carried on. Notable:

* Every tensor has the clips on its first axis: a stream's windows share a state, though they began at different times.
* The read-out over all frames so far is carried, not the states themselves: a state has one size for any T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Readout = Literal["last", "mean", "max"]


class State(NamedTuple):
    """What a temporal model knows of the frames so far of N clips; their axis is the first of every tensor."""

    frames: Tensor  # how many, int64 (N,): clips that began at different times may share a state
    kept: Tensor  # the read-out over them; a sum where that is a mean
    last: tuple[Tensor, ...] = ()  # the recurrence's state
    previous: Tensor | None = None  # the last frame's part that the next frame's difference needs

    def flat(self) -> list[Tensor]:
        """All tensors."""
        return [self.frames, self.kept, *self.last, *(() if self.previous is None else (self.previous,))]

    def like(self, tensors: Sequence[Tensor]) -> State:
        """One of other tensors, in the order of `flat`."""
        frames, kept, *others = tensors
        previous = None if self.previous is None else others.pop()
        return State(frames, kept, tuple(others), previous)


def keep(states: Tensor, readout: Readout, before: State | None) -> Tensor:
    """The read-out over the states (N, T, ...) and all before them."""
    if readout == "last":
        return states[:, -1]
    if readout == "mean":
        total = states.sum(dim=1)
        return total if before is None else before.kept + total
    highest = states.amax(dim=1)
    return highest if before is None else torch.maximum(before.kept, highest)


def steps(x: Tensor, state: State | None) -> Tensor:
    """x_t - x_(t-1) for (N, T, ...), zero at a clip's first frame; the frame before these is `state.previous`."""
    before = x[:, :1] if state is None or state.previous is None else state.previous[:, None]
    return x - torch.cat([before, x[:, :-1]], dim=1)


def count_frames(parts: Tensor, before: State | None) -> Tensor:
    """How many frames there are with these, (N, T, ...): int64 (N,)."""
    if before is not None:
        return before.frames + parts.shape[1]
    return torch.full(parts.shape[:1], parts.shape[1], dtype=torch.int64, device=parts.device)


def mean_over_frames(state: State) -> Tensor:
    """Where `kept` is a sum over frames, (N, C, ...)."""
    return state.kept / state.frames.view(-1, *[1] * (state.kept.dim() - 1))
