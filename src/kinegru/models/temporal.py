"""From the maps of T frames to one read-out: ConvGRU, LSTM, GRU or a plain mean (paper §1.3; convgru.py is the cell).

* Every temporal model is three steps, and `forward` is nothing else: `per_frame` (all that is dear, each frame by
  itself), `advance` (frame after frame, from a state that may come from earlier frames), `read`. A live stream keeps
  what `per_frame` gave and runs the other two; that is why it gives what the clip model gives.
* `differences=True` puts x_t - x_(t-1) beside x_t at the recurrence's input (zeros at the first frame), so that motion
  reaches it also where the encoder sees single frames. It belongs to the recurrence: cached maps do not hold it.
* At T = 1 a recurrence is one step from a zero state: the hidden weights and the differences have no say.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinegru.errors import UsageError
from kinegru.models.convgru import ConvGRU, Variant, each_frame
from kinegru.models.state import Readout, State, count_frames, keep, mean_over_frames, steps


class MapRecurrence(nn.Module):
    """ConvGRU over maps and a read-out: (N, T, C, h, w) -> (N, hidden, h, w).

    `projection` puts a 1×1 convolution to that many channels before it: with 2048 channels in, most of a ConvGRU's
    weights and time go into its input convolution, and few clips cannot train it.

    >>> MapRecurrence(8, hidden_channels=4, differences=True)(torch.rand(2, 5, 8, 6, 6)).shape
    torch.Size([2, 4, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 40,
        kernel_size: int = 3,
        readout: Readout = "max",
        variant: Variant = "reset_after",
        update_bias_init: float = 0.0,
        differences: bool = False,
        projection: int = 0,
    ) -> None:
        super().__init__()
        _check("readout", readout, get_args(Readout))
        self.readout, self.differences = readout, differences
        self.out_channels = hidden_channels
        self.projection = nn.Conv2d(in_channels, projection, 1) if projection else None
        in_channels = projection or in_channels
        self.convgru = ConvGRU(
            in_channels * (2 if differences else 1), hidden_channels, kernel_size, variant, update_bias_init
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.advance(self.per_frame(x)))

    def per_frame(self, x: Tensor) -> Tensor:
        """Maps (N, T, C, h, w) -> the input convolution's result (N, T, 3·hidden, h, w).

        With differences 6·hidden: it is linear, so W [x_t; x_t - x_(t-1)] = A x_t + B x_t - B x_(t-1), and A x and B x
        are of one frame.
        """
        if self.projection is not None:
            x = each_frame(self.projection, x)  # (N, T, projection, h, w)
        conv = self.convgru.input_conv
        if not self.differences:
            return each_frame(conv, x)
        assert conv.bias is not None
        weight = torch.cat(conv.weight.chunk(2, dim=1))  # (2·3·hidden, C, k, k)
        bias = torch.cat([conv.bias, torch.zeros_like(conv.bias)])
        return F.conv2d(x.flatten(0, 1), weight, bias, padding=conv.padding).unflatten(0, x.shape[:2])

    def advance(self, parts: Tensor, state: State | None = None) -> State:
        """What `per_frame` gave for the next frames, (N, T, ..., h, w), and the state before -> the state after."""
        gx, previous = self._inputs(parts, state)
        states, last = self.convgru.advance(gx, None if state is None else state.last[0])  # (N, T, hidden, h, w)
        return State(count_frames(parts, state), keep(states, self.readout, state), (last,), previous)

    def gates(self, part: Tensor, state: State | None = None) -> tuple[Tensor, Tensor]:
        """What `per_frame` gave for the next frame, (N, 1, ..., h, w), and the state before -> z and r of that step.

        Each (N, hidden, h, w), in (0, 1): the share of the state that is kept, and how far it enters the new candidate.
        """
        gx, _ = self._inputs(part, state)
        z, r, _, _ = self.convgru.gates(gx[:, 0], None if state is None else state.last[0])
        return z, r

    def _inputs(self, parts: Tensor, state: State | None) -> tuple[Tensor, Tensor | None]:
        """(N, T, 3·hidden, h, w) for the recurrence, and what the next frame's difference needs of the last one."""
        if not self.differences:
            return parts, None
        own, moved = parts.to(torch.promote_types(parts.dtype, torch.float32)).chunk(2, dim=2)
        return own + steps(moved, state), moved[:, -1]

    def read(self, state: State) -> Tensor:
        """The state -> the read-out (N, hidden, h, w)."""
        return mean_over_frames(state) if self.readout == "mean" else state.kept


class VectorRecurrence(nn.Module):
    """LSTM or GRU over pooled maps and a read-out: (N, T, C, h, w) -> (N, hidden, 1, 1).

    >>> VectorRecurrence("lstm", 8, hidden_channels=4)(torch.rand(2, 5, 8, 6, 6)).shape
    torch.Size([2, 4, 1, 1])
    """

    def __init__(
        self,
        kind: Literal["lstm", "gru"],
        in_channels: int,
        hidden_channels: int = 256,
        readout: Readout = "max",
        differences: bool = False,
    ) -> None:
        super().__init__()
        _check("kind", kind, ("lstm", "gru"))
        _check("readout", readout, get_args(Readout))
        self.readout, self.differences = readout, differences
        self.out_channels = hidden_channels
        recurrence = nn.LSTM if kind == "lstm" else nn.GRU
        self.rnn = recurrence(in_channels * (2 if differences else 1), hidden_channels, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.advance(self.per_frame(x)))

    def per_frame(self, x: Tensor) -> Tensor:
        """Maps (N, T, C, h, w) -> vectors (N, T, C)."""
        return x.mean(dim=(3, 4))

    def advance(self, parts: Tensor, state: State | None = None) -> State:
        """Vectors of the next frames (N, T, C) and the state before -> the state after."""
        x, last = parts, None
        if self.differences:
            x = torch.cat([parts, steps(parts, state)], dim=2)  # (N, T, 2C)
        if state is not None:
            last = tuple(h.transpose(0, 1).contiguous() for h in state.last)  # each (1, N, hidden)
            last = last if isinstance(self.rnn, nn.LSTM) else last[0]  # type: ignore[assignment]
        states, last = self.rnn(x, last)  # (N, T, hidden)
        last = tuple(h.transpose(0, 1) for h in (last if isinstance(last, tuple) else (last,)))
        return State(count_frames(parts, state), keep(states, self.readout, state), last, parts[:, -1])

    def read(self, state: State) -> Tensor:
        """The state -> the read-out (N, hidden, 1, 1)."""
        return (mean_over_frames(state) if self.readout == "mean" else state.kept)[..., None, None]


class FrameMean(nn.Module):
    """No recurrence: the mean over time, (N, T, C, h, w) -> (N, C, h, w).

    Before a linear classifier this is the mean of frame logits, TSN's consensus (Wang et al., ECCV 2016): the control
    for everything that looks at order.

    >>> FrameMean(8)(torch.rand(2, 5, 8, 6, 6)).shape
    torch.Size([2, 8, 6, 6])
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.advance(self.per_frame(x)))

    def per_frame(self, x: Tensor) -> Tensor:
        """The maps themselves."""
        return x

    def advance(self, parts: Tensor, state: State | None = None) -> State:
        """Maps of the next frames (N, T, C, h, w) and the state before -> the state after."""
        return State(count_frames(parts, state), keep(parts, "mean", state))

    def read(self, state: State) -> Tensor:
        """The state -> the mean (N, C, h, w)."""
        return mean_over_frames(state)


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{what} {value!r} is unknown: give one of {', '.join(known)}")
