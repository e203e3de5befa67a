"""An engine for tests of what is built on engines: its scores can be told by looking at the frames."""

from __future__ import annotations

import time

import torch


class ColourEngine:
    """Knows red (class 0) from blue (class 1) by the mean of a window, takes its time, and cannot tell grey."""

    name = "colours"
    radius = 0
    length = None

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def trunk(self, frames):
        time.sleep(self.seconds)
        return (frames[:, 0] - frames[:, 2]).mean(dim=(1, 2))  # (n,) red less blue

    def parts(self, maps, keep):
        return maps[keep]

    def advance(self, parts, state=None):
        more = torch.stack([parts.sum(), torch.tensor(float(len(parts)))])
        return more[None] if state is None else state + more  # (windows, 2): sum and number

    def join(self, states):
        return torch.cat(states)

    def take(self, state, windows):
        return state[windows]

    def logits(self, state):
        mean = state[:, 0] / state[:, 1]
        return torch.stack([mean, -mean], dim=1) * 3

    def clip(self, frames):
        return torch.cat([self.logits(self.advance(self.trunk(clip))) for clip in frames])
