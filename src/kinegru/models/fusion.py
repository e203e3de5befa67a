"""Attentional feature fusion: how two maps X and Y are joined by a learned weight for every position and channel.

Paper §1.4, equations 14-20, after AFF (Dai et al., WACV 2021). Notable:

* An attention maps features to weights M in (0, 1), never to X·M: equation 20 needs the weights, and the σ missing from
  equation 19 is there.
* MCAM, the paper's own, replaces MS-CAM's local branch by parallel kernels of 3, 5 and 7. Its global branch is the
  pooled local one as printed (equation 18); `global_branch="separate"` gives MS-CAM's, with weights of its own.
* A batch norm that meets a single value a channel (one clip, 1×1 maps) uses its running statistics: training with one
  clip a step works.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinegru.errors import UsageError

GlobalBranch = Literal["pooled_local", "separate"]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that falls back on its running statistics where a batch holds one value a channel.

    >>> BatchNorm(4).train()(torch.rand(1, 4, 1, 1)).shape
    torch.Size([1, 4, 1, 1])
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def bottleneck(channels: int, inner: int) -> nn.Sequential:
    """1×1 (C -> inner), BN, ReLU, 1×1 (inner -> C), BN: one branch of MS-CAM. (N, C, h, w) -> the same shape."""
    return nn.Sequential(
        nn.Conv2d(channels, inner, 1),
        BatchNorm(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, channels, 1),
        BatchNorm(channels),
    )


class MSCAM(nn.Module):
    """Multi-scale channel attention of AFF (equation 14): M = σ(local + global). (N, C, h, w) -> M, the same shape.

    >>> sum(p.numel() for p in MSCAM(256).parameters())
    67456
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.local_branch = bottleneck(channels, inner)
        self.global_branch = bottleneck(channels, inner)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.local_branch(x) + self.global_branch(x.mean(dim=(2, 3), keepdim=True)))


class MCAM(nn.Module):
    """The paper's multi-kernel channel attention (equations 15-19). (N, C, h, w) -> M in (0, 1), the same shape.

    X0 = reduce(X); Xi = ReLU(BN(conv k×k (X0))) for each kernel, in parallel; L = local(cat(X0, X1, ...));
    M = σ(L + mean of L over h, w).

    >>> sum(p.numel() for p in MCAM(256).parameters())
    390208
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        kernels: Sequence[int] = (3, 5, 7),
        global_branch: GlobalBranch = "pooled_local",
    ) -> None:
        super().__init__()
        if global_branch not in get_args(GlobalBranch):
            raise UsageError(f"global branch {global_branch!r} is unknown: give pooled_local or separate")
        if any(k < 1 or k % 2 == 0 for k in kernels):
            raise UsageError(f"kernels of MCAM are {tuple(kernels)}: give odd numbers")
        inner = max(1, channels // reduction)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inner, inner, k, padding=k // 2, bias=False), BatchNorm(inner), nn.ReLU(inplace=True)
            )
            for k in kernels
        )
        self.local_branch = nn.Sequential(
            nn.Conv2d((1 + len(self.branches)) * inner, inner, 1, bias=False),
            BatchNorm(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1, bias=False),
            BatchNorm(channels),
        )
        self.global_branch = bottleneck(channels, inner) if global_branch == "separate" else None

    def forward(self, x: Tensor) -> Tensor:
        x0 = self.reduce(x)  # (N, m, h, w)
        x4 = torch.cat([x0, *(branch(x0) for branch in self.branches)], dim=1)  # (N, 4m, h, w)
        local = self.local_branch(x4)  # (N, C, h, w)
        if self.global_branch is None:
            pooled = local.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
        else:
            pooled = self.global_branch(x.mean(dim=(2, 3), keepdim=True))
        return torch.sigmoid(local + pooled)


class AFF(nn.Module):
    """Attentional fusion (equation 20): Z = M(X + Y)·X + (1 - M(X + Y))·Y. Three maps of one shape, (N, C, h, w).

    `attention` is an MSCAM or an MCAM; `scale=2` is the doubled form of the authors' public code.

    >>> AFF(MCAM(8))(torch.rand(2, 8, 5, 5), torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(self, attention: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.attention = attention
        self.scale = scale

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = torch.lerp(y, x, self.attention(x + y).to(y.dtype))  # y + M·(x - y)
        return z if self.scale == 1 else z * self.scale
