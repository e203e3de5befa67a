"""Time as colour: the grey of a frame and of two around it as red, green and blue.

The stacked grayscale three-channel image (SG3I) of Kim & Won, IEEE Access 2020. What stands still is grey, what moves
has coloured edges, the wider the faster: a network that learnt from photographs sees how fast something moves, and
needs no optical flow. Ours: the three are neighbours, `STEP` frames of the source apart, whatever the distance between
the frames sampled from the clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kinegru.video.sampling import Sampling

STEP = 2  # frames of the source; 0.08 s at 25 a second
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what a colourless picture keeps of red, green and blue


def around(indices: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Of each frame its neighbour before, itself, its neighbour after, within the clip: int64 (T,) -> (T, 3).

    >>> around(np.array([0, 5, 9]), 10).tolist()
    [[0, 0, 2], [3, 5, 7], [7, 9, 9]]
    """
    return np.clip(np.asarray(indices, np.int64)[:, None] + np.array([-STEP, 0, STEP]), 0, length - 1)


@dataclass(frozen=True)
class SamplingAround:
    """The frames of a `Sampling` with their neighbours: for each of `frames` frames three, one after the other.

    >>> SamplingAround(Sampling(2)).indices(20)
    array([ 3,  5,  7, 13, 15, 17])
    """

    sampling: Sampling

    @property
    def frames(self) -> int:
        """How many frames are sampled, without their neighbours."""
        return self.sampling.frames

    def indices(self, length: int, fps: float = 0.0) -> NDArray[np.int64]:
        """Frame numbers int64 (3 T,) in a clip of `length` frames, `fps` of them a second (0: unknown)."""
        return around(self.sampling.indices(length, fps), length).reshape(-1)


def stacked_grey(images: torch.Tensor) -> torch.Tensor:
    """RGB pictures of frames and their neighbours, uint8 (3 T, H, W, 3) -> time as colour, uint8 (T, H, W, 3).

    >>> images = torch.tensor([10, 20, 30], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 1, 3)
    >>> stacked_grey(images).flatten().tolist()
    [10, 20, 30]
    """
    luma = torch.tensor(LUMA)
    grey = torch.empty(images.shape[:3], dtype=torch.uint8)  # (3 T, H, W)
    for picture, shade in zip(images, grey, strict=True):  # one at a time: small enough for the processor's cache
        shade.copy_((picture.to(torch.float32) @ luma).round_())
    return grey.unflatten(0, (-1, 3)).permute(0, 2, 3, 1)  # (T, H, W, 3)
