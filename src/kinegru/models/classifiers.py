"""From the temporal model's read-out to logits: FC1 and FC2 as 1×1 convolutions, joined, pooled, one linear layer.

Paper §1.4. "Two fully connected layers connected by AFF" is AFF's short-skip case (X the identity, Y the residual).

* The layers work on maps by default: MCAM's kernels of 3, 5 and 7 mean something only there, on a 1×1 vector only their
  centre taps are ever used. `on="vectors"` pools first, to compare.
* The ablation keeps FC1, FC2 and the output and changes only the join: `mlp` (Z = Y), `add` (Z = X + Y, our control),
  `aff` (MS-CAM), `mcam_aff` (the paper's). `linear` (pool, linear) is table 1's "Softmax layer".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from kinegru.errors import UsageError
from kinegru.models.fusion import AFF, MCAM, MSCAM, GlobalBranch

Join = Literal["linear", "mlp", "add", "aff", "mcam_aff"]


def fuse_scores(logits: Tensor, log_shares: Tensor | float) -> Tensor:
    """Logits of several classifiers (N, M, K) -> the logarithm of the mean of their softmaxes (N, K), float32 or wider.

    `log_shares`, (M, 1) or one for all, are the logarithms of their weights, which add up to 1.

    >>> import math
    >>> fuse_scores(torch.tensor([[[0.0, 0.0], [9.0, -9.0]]]), -math.log(2)).exp()
    tensor([[0.7500, 0.2500]])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.logsumexp(logits.log_softmax(dim=2) + log_shares, dim=1)


class LinearClassifier(nn.Module):
    """Pool, dropout, linear: (N, C, h, w) -> logits (N, K).

    >>> LinearClassifier(40, 6)(torch.rand(2, 40, 5, 5)).shape
    torch.Size([2, 6])
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.dropout(x.mean(dim=(2, 3))))


class JoinedClassifier(nn.Module):
    """X = Drop(ReLU(FC1(P))), Y = Drop(ReLU(FC2(X))), Z = join(X, Y), logits = Linear(Drop(mean of Z over h, w)).

    (N, C, h, w) -> logits (N, K). `join` is mlp, add, aff or mcam_aff; `on` is maps or vectors.

    >>> JoinedClassifier(40, 6, width=32)(torch.rand(2, 40, 5, 5)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        join: Join = "mcam_aff",
        width: int = 256,
        dropout: float = 0.5,
        on: Literal["maps", "vectors"] = "maps",
        reduction: int = 4,
        kernels: Sequence[int] = (3, 5, 7),
        global_branch: GlobalBranch = "pooled_local",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if join not in get_args(Join)[1:]:
            raise UsageError(f"join {join!r} is unknown: give one of {', '.join(get_args(Join)[1:])}")
        if on not in ("maps", "vectors"):
            raise UsageError(f"a classifier on {on!r} is unknown: give maps or vectors")
        self.join, self.on = join, on
        self.fc1 = nn.Conv2d(in_channels, width, 1)
        self.fc2 = nn.Conv2d(width, width, 1)
        # He et al., ICCV 2015. torch's default shrinks the signal, and training from scratch stands still for long.
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fusion: AFF | None = None
        if join == "aff":
            self.fusion = AFF(MSCAM(width, reduction), scale)
        elif join == "mcam_aff":
            self.fusion = AFF(MCAM(width, reduction, kernels, global_branch), scale)
        self.output = nn.Linear(width, num_classes)

    def forward(self, p: Tensor) -> Tensor:
        if self.on == "vectors":
            p = p.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
        x = self.dropout(self.relu(self.fc1(p)))  # (N, D, h, w)
        y = self.dropout(self.relu(self.fc2(x)))  # (N, D, h, w)
        if self.fusion is not None:
            z = self.fusion(x, y)
        elif self.join == "add":
            z = x + y
        else:
            z = y
        return self.output(self.dropout(z.mean(dim=(2, 3))))  # (N, K)
