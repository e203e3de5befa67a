"""Excitation over space-time and over channels: the only part of the encoder that mixes frames (t-1, t, t+1).

Paper §1.2, equations 1-9, after ACTION-Net (Wang, She, Smolic, CVPR 2021). Each mask M lies in (0, 1) and excites as
Y = X + X·M. Notable:

* Joined in parallel by default, X·(2 + M_s + M_c), and rescaled so that M = 0.5 is the identity (/3 parallel,
  /2.25 serial, /1.5 single): a pretrained tail then sees at step 0 what it was trained on.
* The last layer of each mask starts tiny, not zero: M ≈ 0.5 everywhere and gradients still reach every parameter.
* T is not baked in: any T ≥ 1 works; beyond the clip's ends the convolutions see zeros.
* `serial` looks two frames to each side (the channel mask reads maps that already mixed three frames), all others one.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from kinegru.errors import UsageError

ExcitationMode = Literal["parallel", "serial", "ste", "ce", "none"]

INITIAL_STD = 1e-3  # of the layer before each sigmoid
IDENTITY_SCALE = {"parallel": 3.0, "serial": 2.25, "ste": 1.5, "ce": 1.5, "none": 1.0}  # the factor at M = 0.5


class SpatioTemporalExcitation(nn.Module):
    """STE (equations 1-4): one mask over space and time, shared by all channels. 27 parameters.

    `forward`: (N, T, C, h, w) -> the same shape, X + X·M; `mask`: -> M, (N, T, 1, h, w), values in (0, 1).

    >>> ste = SpatioTemporalExcitation()
    >>> ste.mask(torch.ones(2, 5, 8, 4, 4)).shape
    torch.Size([2, 5, 1, 4, 4])
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, kernel_size=3, padding=1, bias=False)
        nn.init.normal_(self.conv.weight, std=INITIAL_STD)

    def mask(self, x: Tensor) -> Tensor:
        # Averaged over channels, of single frames: OpenVINO takes ten times as long over an axis in the middle of five.
        mean = x.flatten(0, 1).mean(dim=1).unflatten(0, x.shape[:2])  # (N, T, h, w)
        return torch.sigmoid(self.conv(mean.unsqueeze(1))).transpose(1, 2)  # (N, T, 1, h, w)

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.mask(x))


class ChannelExcitation(nn.Module):
    """CE (equations 5-9): one mask over channels and time, shared by all positions.

    `channels // reduction` channels inside (at least 1; 728 -> 45). `relu=False` gives the printed equation, which
    lacks the ReLU of ACTION-Net's published form. `forward`: (N, T, C, h, w) -> the same shape, X + X·M;
    `mask`: -> M, (N, T, C, 1, 1), values in (0, 1).

    >>> ce = ChannelExcitation(728)
    >>> ce.mask(torch.ones(2, 5, 728, 4, 4)).shape, sum(p.numel() for p in ce.parameters())
    (torch.Size([2, 5, 728, 1, 1]), 71595)
    """

    def __init__(self, channels: int, reduction: int = 16, relu: bool = True) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.squeeze = nn.Conv1d(channels, inner, kernel_size=1, bias=False)
        self.temporal = nn.Conv1d(inner, inner, kernel_size=3, padding=1, bias=False)
        self.activation = nn.ReLU() if relu else nn.Identity()
        self.expand = nn.Conv1d(inner, channels, kernel_size=1, bias=False)
        nn.init.normal_(self.expand.weight, std=INITIAL_STD)
        with torch.no_grad():  # channels in pairs of opposite sign: whatever comes in, ReLU lets one of the two live
            self.temporal.weight[1::2] = -self.temporal.weight[: inner - inner % 2 : 2]

    def mask(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(3, 4)).transpose(1, 2)  # (N, C, T)
        inner = self.activation(self.temporal(self.squeeze(pooled)))  # (N, C//reduction, T)
        return torch.sigmoid(self.expand(inner)).transpose(1, 2)[..., None, None]  # (N, T, C, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.mask(x))


class Excitation(nn.Module):
    """STE and CE joined: `parallel` X·(2 + M_s + M_c), `serial` CE(STE(X)), one alone, or `none` (the identity).

    `rescale=True` divides by the factor that M = 0.5 gives, `rescale=False` is the printed form.
    (N, T, C, h, w) -> the same shape and dtype; with `keep` only the frames of that slice, the others serve their
    neighbours' masks. `radius` is the number of frames it looks to each side.

    >>> x = torch.rand(1, 3, 32, 4, 4)
    >>> excitation = Excitation(32)
    >>> torch.allclose(excitation(x), x, rtol=0.01), excitation.radius
    (True, 1)
    """

    def __init__(
        self,
        channels: int,
        mode: ExcitationMode = "parallel",
        rescale: bool = True,
        reduction: int = 16,
        relu: bool = True,
    ) -> None:
        super().__init__()
        if mode not in get_args(ExcitationMode):
            raise UsageError(f"excitation {mode!r} is unknown: give one of {', '.join(get_args(ExcitationMode))}")
        self.mode = mode
        self.scale = 1 / IDENTITY_SCALE[mode] if rescale else 1.0
        self.radius = {"none": 0, "serial": 2}.get(mode, 1)
        self.ste = SpatioTemporalExcitation() if mode in ("parallel", "serial", "ste") else None
        self.ce = ChannelExcitation(channels, reduction, relu) if mode in ("parallel", "serial", "ce") else None

    def forward(self, x: Tensor, keep: slice = slice(None)) -> Tensor:
        # The masks are small and the maps are not: the factors are joined, and cut, before they meet the maps.
        if self.ste is not None and self.ce is not None:
            if self.mode == "serial":
                x = x * (1 + self.ste.mask(x))
                return x[:, keep] * ((1 + self.ce.mask(x)) * self.scale)[:, keep]
            kept = x[:, keep]
            excited = kept * ((2 + self.ce.mask(x)) * self.scale)[:, keep].to(x.dtype)
            return excited.addcmul_(kept, (self.ste.mask(x) * self.scale)[:, keep].to(x.dtype))
        if self.ste is not None:
            return x[:, keep] * ((1 + self.ste.mask(x)) * self.scale)[:, keep]
        if self.ce is not None:
            return x[:, keep] * ((1 + self.ce.mask(x)) * self.scale)[:, keep]
        return x[:, keep]

    def masks(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """M_s (N, T, 1, h, w) and M_c (N, T, C, 1, 1) as `forward` applies them, None for what the mode lacks."""
        spatial = None if self.ste is None else self.ste.mask(x)
        if self.ce is None:
            return spatial, None
        return spatial, self.ce.mask(x * (1 + spatial) if self.mode == "serial" and spatial is not None else x)

    def extra_repr(self) -> str:
        return f"mode={self.mode}, scale={self.scale:.3f}"
