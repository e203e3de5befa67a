"""STAM: where to look in a frame, then which frames to trust. Our reading of a row of table 3 that names no source.

Several papers use the name for a module with spatial and temporal attention (Zhou et al., CISNR 2019, put one into a
3-D ResNet). Here it is a 2-D CNN, frame by frame, whose maps x_t (C, h, w) are pooled twice:

    a_t = σ(conv([mean over C of x_t; max over C of x_t]))      (h, w), the spatial gate of CBAM (Woo et al., ECCV 2018)
    v_t = Σ_ij a_t·x_t / Σ_ij a_t                               (C,), a weighted mean: an even gate is plain pooling
    e_t = wᵀ tanh(W v_t + b);  α = softmax over t of e;  v = Σ_t α_t v_t    soft attention (Bahdanau et al., ICLR 2015)

The order of the frames does not matter: a shuffled clip gives the same v. e has no bias, which a softmax would ignore.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinegru.errors import UsageError
from kinegru.models.state import State, count_frames


class AttentionPooling(nn.Module):
    """Maps (N, T, C, h, w) -> (N, C, 1, 1), for any T >= 1. `hidden_channels` is the width of the frames' score.

    Raises UsageError for an even kernel.

    >>> AttentionPooling(8, hidden_channels=4)(torch.rand(2, 5, 8, 6, 6)).shape
    torch.Size([2, 8, 1, 1])
    """

    def __init__(self, in_channels: int, hidden_channels: int = 256, kernel_size: int = 7) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise UsageError(f"kernel size {kernel_size} is even: give an odd one, so that maps keep their size")
        self.out_channels = in_channels
        self.gate = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)
        self.hidden = nn.Linear(in_channels, hidden_channels)
        self.score = nn.Linear(hidden_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.advance(self.per_frame(x)))

    def advance(self, parts: Tensor, state: State | None = None) -> State:
        """v of the next frames (N, T, C) and the state before -> the state after: the mean so far and its weight."""
        e = self.scores(parts)  # (N, T)
        pooled = torch.einsum("nt,ntc->nc", e.softmax(dim=1), parts)
        weight = e.logsumexp(dim=1)  # (N,), a logarithm
        if state is None:
            return State(count_frames(parts, None), pooled, (weight,))
        total = torch.logaddexp(state.last[0], weight)
        share = (weight - total).exp()[:, None]
        return State(count_frames(parts, state), torch.lerp(state.kept, pooled, share), (total,))

    def read(self, state: State) -> Tensor:
        """The state -> v (N, C, 1, 1)."""
        return state.kept[..., None, None]

    def per_frame(self, x: Tensor) -> Tensor:
        """Maps (N, T, C, h, w) -> v (N, T, C), the mean of every frame weighted by its gate."""
        a = self.mask(x).flatten(3)  # (N, T, 1, h·w)
        return (x.flatten(3) * a).sum(dim=3) / a.sum(dim=3)

    def mask(self, x: Tensor) -> Tensor:
        """Maps (N, T, C, h, w) -> the gate a (N, T, 1, h, w), in (0, 1)."""
        planes = torch.cat([x.mean(dim=2, keepdim=True), x.amax(dim=2, keepdim=True)], dim=2)  # (N, T, 2, h, w)
        return torch.sigmoid(self.gate(planes.flatten(0, 1))).unflatten(0, x.shape[:2])

    def weights(self, v: Tensor) -> Tensor:
        """v (N, T, C) -> α (N, T): how much each frame counts, with sum 1."""
        return self.scores(v).softmax(dim=1)

    def scores(self, v: Tensor) -> Tensor:
        """v (N, T, C) -> e (N, T)."""
        return self.score(torch.tanh(self.hidden(v))).squeeze(2)
