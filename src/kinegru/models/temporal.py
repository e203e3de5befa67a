"""From the maps of T frames to one read-out: the paper's ConvGRU and the models it is compared with.

Paper §1.3, equations 10-13. Notable:

* The printed equations are those of Shi et al. (NeurIPS 2017), not of Ballas et al. (ICLR 2016): the reset gate acts on
  the *result* of the hidden convolution, so the three hidden convolutions are one, and a large Z *keeps* the old state.
  (H′ of equation 13 is H̃.) `variant="reset_before"` gives Ballas' candidate, to compare.
* The input convolution runs once for all T frames and all three gates; a step costs one small convolution.
* The state is float32 also under autocast: forty steps of rounding would otherwise add up.
* `differences=True` puts x_t - x_(t-1) beside x_t at the recurrence's input (zeros at the first frame), so that motion
  reaches it also where the encoder sees single frames. It belongs to the recurrence: cached maps do not hold it.
* At T = 1 a recurrence is one step from a zero state: the hidden weights and the differences have no say.
* Every temporal model is three steps, and `forward` is nothing else: `per_frame` (all that is dear, each frame by
  itself), `advance` (frame after frame, from a state that may come from earlier frames), `read`. A live stream keeps
  what `per_frame` gave and runs the other two; that is why it gives what the clip model gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinegru.errors import UsageError

Readout = Literal["last", "mean", "max"]
Variant = Literal["reset_after", "reset_before"]


class ConvGRU(nn.Module):
    """Convolutional gated recurrent unit (equations 10-13), gate order z, r, n:

        z = σ(gx_z + gh_z);  r = σ(gx_r + gh_r);  n = tanh(gx_n + r · gh_n);  h = (1 - z)·n + z·h;  h_0 = 0

    with gx the input convolution (with bias) and gh the hidden one (without). `update_bias_init` +1…+2 lengthens
    memory: at Z = 0.5 the state halves each step. Raises UsageError for an even kernel or an unknown variant.

    `forward`: x (N, T, C, h, w), optional state (N, hidden, h, w) -> states (N, T, hidden, h, w) and the last one
    (N, hidden, h, w), float32 or wider. `step`: x_t (N, C, h, w), state -> the next state; T steps equal one `forward`.

    >>> gru = ConvGRU(8, 4)
    >>> states, last = gru(torch.rand(2, 5, 8, 6, 6))
    >>> states.shape, last.shape
    (torch.Size([2, 5, 4, 6, 6]), torch.Size([2, 4, 6, 6]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int = 3,
        variant: Variant = "reset_after",
        update_bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        _check("variant", variant, get_args(Variant))
        if kernel_size % 2 == 0:
            raise UsageError(f"kernel size {kernel_size} is even: give an odd one, so that maps keep their size")
        self.in_channels, self.hidden_channels, self.variant = in_channels, hidden_channels, variant
        gates, padding = 3 * hidden_channels, kernel_size // 2
        self.input_conv = nn.Conv2d(in_channels, gates, kernel_size, padding=padding)
        self.hidden_conv = nn.Conv2d(hidden_channels, gates, kernel_size, padding=padding, bias=False)
        for gate in self.input_conv.weight.chunk(3):
            nn.init.xavier_uniform_(gate)
        for gate in self.hidden_conv.weight.chunk(3):
            nn.init.orthogonal_(gate)
        assert self.input_conv.bias is not None
        with torch.no_grad():
            self.input_conv.bias.zero_()[:hidden_channels] = update_bias_init

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.advance(_each(self.input_conv, x), h)

    def advance(self, gx: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the input convolution gave, (N, T, 3·hidden, h, w) -> as `forward`."""
        states = []
        for gx_t in gx.unbind(1):
            h = self._advance(gx_t, h)  # (N, hidden, h, w)
            states.append(h)
        assert h is not None, "a clip has at least one frame"
        return torch.stack(states, dim=1), h

    def step(self, x: Tensor, h: Tensor | None) -> Tensor:
        """One frame's maps (N, C, h, w) and the state so far (None: zeros) -> the next state (N, hidden, h, w)."""
        return self._advance(self.input_conv(x), h)

    def _advance(self, gx: Tensor, h: Tensor | None) -> Tensor:
        z, _, n, h = self.gates(gx, h)
        return torch.lerp(n, h, z)  # (1 - z)·n + z·h

    def gates(self, gx: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One frame of what the input convolution gave, (N, 3·hidden, h, w), and the state so far -> z, r, n and that
        state (zeros for None), each (N, hidden, h, w), float32 or wider.
        """
        gx = gx.to(torch.promote_types(gx.dtype, torch.float32))
        gx_zr, gx_n = gx.split((2 * self.hidden_channels, self.hidden_channels), dim=1)
        if h is None:
            h = torch.zeros_like(gx_n)
        if self.variant == "reset_after":
            gh = self._convolve(h, self.hidden_conv.weight).to(gx.dtype)  # (N, 3·hidden, h, w)
            gh_zr, gh_n = gh.split((2 * self.hidden_channels, self.hidden_channels), dim=1)
            z, r = torch.sigmoid(gx_zr + gh_zr).chunk(2, dim=1)
            n = torch.tanh(gx_n + r * gh_n)
        else:  # Ballas et al.: the candidate's convolution sees r · h
            weight_zr, weight_n = self.hidden_conv.weight.split((2 * self.hidden_channels, self.hidden_channels))
            z, r = torch.sigmoid(gx_zr + self._convolve(h, weight_zr).to(gx.dtype)).chunk(2, dim=1)
            n = torch.tanh(gx_n + self._convolve(r * h, weight_n).to(gx.dtype))
        return z, r, n, h

    def _convolve(self, h: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(h.to(weight.dtype), weight, padding=self.hidden_conv.padding)

    def extra_repr(self) -> str:
        return f"variant={self.variant}"


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


def _keep(states: Tensor, readout: Readout, before: State | None) -> Tensor:
    """The read-out over the states (N, T, ...) and all before them."""
    if readout == "last":
        return states[:, -1]
    if readout == "mean":
        total = states.sum(dim=1)
        return total if before is None else before.kept + total
    highest = states.amax(dim=1)
    return highest if before is None else torch.maximum(before.kept, highest)


def _steps(x: Tensor, state: State | None) -> Tensor:
    """x_t - x_(t-1) for (N, T, ...), zero at a clip's first frame; the frame before these is `state.previous`."""
    before = x[:, :1] if state is None or state.previous is None else state.previous[:, None]
    return x - torch.cat([before, x[:, :-1]], dim=1)


def count_frames(parts: Tensor, before: State | None) -> Tensor:
    """How many frames there are with these, (N, T, ...): int64 (N,)."""
    if before is not None:
        return before.frames + parts.shape[1]
    return torch.full(parts.shape[:1], parts.shape[1], dtype=torch.int64, device=parts.device)


def _mean(state: State) -> Tensor:
    """Where `kept` is a sum over frames, (N, C, ...)."""
    return state.kept / state.frames.view(-1, *[1] * (state.kept.dim() - 1))


def _each(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer for (M, C, h, w) on each frame of (N, T, C, h, w)."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


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
            x = _each(self.projection, x)  # (N, T, projection, h, w)
        conv = self.convgru.input_conv
        if not self.differences:
            return _each(conv, x)
        assert conv.bias is not None
        weight = torch.cat(conv.weight.chunk(2, dim=1))  # (2·3·hidden, C, k, k)
        bias = torch.cat([conv.bias, torch.zeros_like(conv.bias)])
        return F.conv2d(x.flatten(0, 1), weight, bias, padding=conv.padding).unflatten(0, x.shape[:2])

    def advance(self, parts: Tensor, state: State | None = None) -> State:
        """What `per_frame` gave for the next frames, (N, T, ..., h, w), and the state before -> the state after."""
        gx, previous = self._inputs(parts, state)
        states, last = self.convgru.advance(gx, None if state is None else state.last[0])  # (N, T, hidden, h, w)
        return State(count_frames(parts, state), _keep(states, self.readout, state), (last,), previous)

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
        return own + _steps(moved, state), moved[:, -1]

    def read(self, state: State) -> Tensor:
        """The state -> the read-out (N, hidden, h, w)."""
        return _mean(state) if self.readout == "mean" else state.kept


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
            x = torch.cat([parts, _steps(parts, state)], dim=2)  # (N, T, 2C)
        if state is not None:
            last = tuple(h.transpose(0, 1).contiguous() for h in state.last)  # each (1, N, hidden)
            last = last if isinstance(self.rnn, nn.LSTM) else last[0]  # type: ignore[assignment]
        states, last = self.rnn(x, last)  # (N, T, hidden)
        last = tuple(h.transpose(0, 1) for h in (last if isinstance(last, tuple) else (last,)))
        return State(count_frames(parts, state), _keep(states, self.readout, state), last, parts[:, -1])

    def read(self, state: State) -> Tensor:
        """The state -> the read-out (N, hidden, 1, 1)."""
        return (_mean(state) if self.readout == "mean" else state.kept)[..., None, None]


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
        return State(count_frames(parts, state), _keep(parts, "mean", state))

    def read(self, state: State) -> Tensor:
        """The state -> the mean (N, C, h, w)."""
        return _mean(state)


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{what} {value!r} is unknown: give one of {', '.join(known)}")
