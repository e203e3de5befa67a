"""What stands still, taken away: for a camera that does not move, only what moves is left.

Where few people are seen before few walls, a network learns the walls. Less the median over the clip, what is left is
who moves and how, and where in the picture: speed stays visible. Of somebody who stays on one spot it is the limbs that
move. Before a moving camera nothing stands still, and the median is a blur.
"""

from __future__ import annotations

import torch

GREY = 127  # next to zero after normalisation with mean 0.5
STRENGTH = 1.5  # differences are fainter than pictures


def without_background(images: torch.Tensor) -> torch.Tensor:
    """Frames of one clip, uint8 (T, ...), less the median over the clip: 1.5 times as strong, about a grey of 127.

    Of an even number of frames the median is the lower one of the middle two. Each clip, each window of a recording
    has a background of its own.

    >>> images = torch.tensor([10, 10, 90, 10], dtype=torch.uint8).reshape(4, 1, 1, 1)
    >>> without_background(images).flatten().tolist()
    [127, 127, 247, 127]
    """
    still = images.median(dim=0).values.to(torch.int16)
    moved = images.to(torch.int16).sub_(still)
    return moved.mul_(3).div_(2, rounding_mode="trunc").add_(GREY).clamp_(0, 255).to(torch.uint8)
