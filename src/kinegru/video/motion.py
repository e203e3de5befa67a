"""Flow, saliency and energy as images: cut, resized and mirrored with their frames, then made network input.

* The channels of a frame are those of its modalities, one after the other: `rgb` 3, `flow` 20, `saliency` 1,
  `energy` 3, `sg3i` 3 (`kinegru.video.stacked`).
* A mirrored clip moves the other way: where fields are mirrored, their x component changes its sign. Colour changes are
  for pictures alone. Saliency and energy are computed before anything is cut off.
* Flow becomes motion / 20 pixels, in -1 .. 1, less the mean of each plane: the camera's motion, which two-stream
  (Simonyan & Zisserman, NeurIPS 2014, §3.1) takes away. Saliency becomes -1 .. 1; energy of E pixels becomes
  0.8 · E - 1: a dark picture, in which what moves stands out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from kinegru.video.flow import BOUND, FIELDS, ZERO, Fields, contrast, energy, saliency

CHANNELS = {"rgb": 3, "flow": 2 * FIELDS, "saliency": 1, "energy": 3, "sg3i": 3}
GAIN = 0.8  # of energy, per pixel

Resize = Callable[[NDArray[np.uint8], int], torch.Tensor]  # images (n, h, w, C) and a fill value -> (n, S, S, C)


def motion_images(
    fields: Fields, stacks: NDArray[np.int64], modalities: Sequence[str], resize: Resize, flip: bool = False
) -> dict[str, torch.Tensor]:
    """Flow, saliency and energy of T frames, where `modalities` ask for them: uint8 (T, S, S, C), C as in CHANNELS.

    `fields` are uint8 (n, h, w, 2); `stacks` (T, FIELDS) says which of them belong to each frame.

    >>> fields = np.full((12, 24, 32, 2), ZERO, np.uint8)
    >>> stacks = np.arange(10) + np.array([[0], [2]])
    >>> images = motion_images(fields, stacks, ["flow", "saliency"], lambda images, fill: torch.from_numpy(images))
    >>> [tuple(image.shape) for image in images.values()]
    [(2, 24, 32, 20), (2, 24, 32, 1)]
    """
    images: dict[str, torch.Tensor] = {}
    if "flow" in modalities:
        small = resize(fields, ZERO)  # (n, S, S, 2)
        if flip:
            small = mirrored(small)
        images["flow"] = small[torch.from_numpy(stacks)].permute(0, 2, 3, 1, 4).flatten(3)
    of_contrasts = {"saliency": lambda c: saliency(c)[..., None], "energy": energy}
    if wanted := [modality for modality in of_contrasts if modality in modalities]:
        contrasts = np.stack([contrast(field) for field in fields])  # (n, h, w)
        for modality in wanted:
            maps = resize(np.stack([of_contrasts[modality](contrasts[stack]) for stack in stacks]), 0)
            images[modality] = maps.flip(2) if flip else maps
    return images


def mirrored(fields: torch.Tensor) -> torch.Tensor:
    """Fields of a mirrored clip: uint8 (n, h, w, 2) -> the same shape.

    >>> mirrored(torch.tensor([[[[130, 140], [128, 141]]]], dtype=torch.uint8)).tolist()
    [[[[128, 141], [126, 140]]]]
    """
    turned = fields.flip(2).clone()
    turned[..., 0] = (2 * ZERO - turned[..., 0].int()).clamp(max=255).to(torch.uint8)
    return turned


def normalise_flow(planes: torch.Tensor) -> None:
    """Stored values (T, 20, S, S), float -> motion / 20 pixels less its mean over the plane, in place."""
    planes.sub_(ZERO).div_(ZERO - 1)
    planes.sub_(planes.mean(dim=(2, 3), keepdim=True))


def normalise_saliency(planes: torch.Tensor) -> None:
    """Stored values (T, 1, S, S), float -> -1 .. 1, in place.

    >>> planes = torch.tensor([0.0, 255.0])
    >>> normalise_saliency(planes)
    >>> planes
    tensor([-1.,  1.])
    """
    planes.div_(127.5).sub_(1)


def normalise_energy(planes: torch.Tensor) -> None:
    """Stored values (T, 3, S, S), float -> GAIN · pixels - 1, in place.

    >>> planes = torch.tensor([0.0, 255.0])
    >>> normalise_energy(planes)
    >>> planes
    tensor([-1., 15.])
    """
    planes.mul_(GAIN * BOUND / 255).sub_(1)


NORMALISE = {"flow": normalise_flow, "saliency": normalise_saliency, "energy": normalise_energy}
