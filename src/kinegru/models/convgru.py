"""ConvGRU, a gated recurrent unit whose state is maps. Paper §1.3, equations 10-13. Notable:

* The printed equations are those of Shi et al. (NeurIPS 2017), not of Ballas et al. (ICLR 2016): the reset gate acts on
  the *result* of the hidden convolution, so the three hidden convolutions are one, and a large Z *keeps* the old state.
  (H′ of equation 13 is H̃.) `variant="reset_before"` gives Ballas' candidate, to compare.
* The input convolution runs once for all T frames and all three gates; a step costs one small convolution.
* The state is float32 also under autocast: forty steps of rounding would otherwise add up.
* At T = 1 it is one step from a zero state: the hidden weights have no say.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinegru.errors import UsageError

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
        if variant not in get_args(Variant):
            raise UsageError(f"variant {variant!r} is unknown: give one of {', '.join(get_args(Variant))}")
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
        return self.advance(each_frame(self.input_conv, x), h)

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


def each_frame(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer for (M, C, h, w) on each frame of (N, T, C, h, w)."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
