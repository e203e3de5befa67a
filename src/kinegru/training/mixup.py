"""Mix-up (Zhang et al., ICLR 2018): training on blends of two clips and their labels.

A clip is blended with one of its micro-batch at random (now and then itself), frame by frame (or map by map, from the
cache, which before a linear layer is the same thing). The share comes from Beta(alpha, alpha), once a micro-batch, and
is that of the clip itself: it is never below one half, so training accuracy still counts the clip's own label.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mix_clips(inputs: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Inputs (n, ...) of any float type and targets (n,) -> blended inputs, the other clips' targets, the own share.

    The loss is share * loss(targets) + (1 - share) * loss(others). With `alpha` 0, or one clip, nothing is mixed and
    no random number drawn. The numbers are those of torch's CPU generator, so a run that resumes draws the same.

    >>> mixed, others, share = mix_clips(torch.eye(2), torch.tensor([0, 1]), alpha=0.4)
    >>> mixed.shape, 0.5 <= share <= 1
    (torch.Size([2, 2]), True)
    """
    if not alpha or len(inputs) < 2:
        return inputs, targets, 1.0
    drawn = float(torch.distributions.Beta(alpha, alpha).sample())
    share = max(drawn, 1 - drawn)
    order = torch.randperm(len(inputs)).to(inputs.device)
    return torch.lerp(inputs[order], inputs, share), targets[order], share
