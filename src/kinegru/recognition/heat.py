"""A heat map on the frame it belongs to: exactly where the model saw it, and coloured.

* The network sees a square; a frame is stretched to it, or its middle is cut out, or it is letterboxed
  (`Preprocessing.fit`). `Placement` goes the way back, from the cells of a map (`kinegru.recognition.grid`) to the
  pixels of the whole frame; what the model did not see has no heat and is shown dark.
* Colours are matplotlib's inferno, perceptually even and rising in lightness, so a grey print keeps their order.
  Opacity grows with heat: where there is none the frame is as it was, but paler, so that its colours do not compete.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinegru.recognition.grid import Grid
from kinegru.video.transforms import LUMA, Preprocessing

Image = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

OPAQUE = 0.75  # opacity of the greatest heat
COLOURLESS = 0.6  # how much of the frame's own colour is taken away
UNSEEN = 0.35  # of the light is left where the model did not look
RAISES, LOWERS = (230, 97, 1), (94, 60, 153)  # orange and violet (ColorBrewer's PuOr), apart for colour-blind eyes


class Placement:
    """From cells (h, w) of the network's square to pixels (H, W) of a frame.

    `grid` says where the cells lie; between their middles a cubic curve runs through them, beyond the outer ones they
    go on. Values stay between the least and the greatest cell, and are 0 where the model did not see the frame.

    >>> placement = Placement(Preprocessing(size=64, fit="crop"), 2, 6, (1, 2), Grid.even(2))
    >>> placement(np.array([[0.0, 1.0]])).tolist()
    [[0.0, 0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    """

    def __init__(
        self, preprocessing: Preprocessing, height: int, width: int, cells: tuple[int, ...], grid: Grid
    ) -> None:
        down, across = _positions(preprocessing, height, width)
        self.rows, self.columns = _weights(down, cells[0], grid), _weights(across, cells[1], grid)  # (H, h), (W, w)
        self.seen = np.outer((down >= 0) & (down <= 1), (across >= 0) & (across <= 1))  # (H, W)

    def __call__(self, cells: Floats) -> NDArray[np.float32]:
        """(h, w) -> float32 (H, W)."""
        placed = self.rows @ cells.astype(np.float32) @ self.columns.T
        return np.where(self.seen, placed.clip(cells.min(), cells.max()), 0).astype(np.float32)


def heated(image: Image, heat: Floats, seen: NDArray[np.bool_] | None = None) -> Image:
    """A frame, uint8 (H, W, 3) RGB, with heat (H, W) in 0 .. 1 laid over it.

    >>> grey = np.full((1, 2, 3), 100, np.uint8)
    >>> heated(grey, np.array([[0.0, 1.0]])).tolist()
    [[[100, 100, 100], [214, 216, 148]]]
    """
    colours = _inferno()[(np.clip(heat, 0, 1) * 255).round().astype(np.intp)]  # (H, W, 3)
    return _blend(image, colours, OPAQUE * np.sqrt(np.clip(heat, 0, 1)), seen)


def masked(image: Image, mask: Floats, seen: NDArray[np.bool_] | None = None) -> Image:
    """A frame, uint8 (H, W, 3) RGB, under a mask (H, W) in -1 .. 1: orange above 0, violet below, the frame at 0.

    >>> masked(np.full((1, 2, 3), 100, np.uint8), np.array([[0.0, -1.0]])).tolist()
    [[[100, 100, 100], [96, 70, 140]]]
    """
    colours = np.where((mask >= 0)[..., None], np.array(RAISES, np.float32), np.array(LOWERS, np.float32))
    return _blend(image, colours, OPAQUE * np.abs(np.clip(mask, -1, 1)), seen)


def _blend(image: Image, colours: Floats, opacity: Floats, seen: NDArray[np.bool_] | None) -> Image:
    frame = image.astype(np.float32)
    grey = frame @ np.array(LUMA, np.float32)
    frame += COLOURLESS * (grey[..., None] - frame)
    if seen is not None:
        frame *= np.where(seen, np.float32(1), np.float32(UNSEEN))[..., None]
    frame += opacity[..., None].astype(np.float32) * (colours - frame)
    return frame.round().clip(0, 255).astype(np.uint8)


def _positions(preprocessing: Preprocessing, height: int, width: int) -> tuple[Floats, Floats]:
    """Where the middles of a frame's rows (H,) and columns (W,) lie in the square, 0 .. 1; outside: not seen."""
    top, left, kept_height, kept_width = preprocessing.region(height, width)
    down = (np.arange(height) + 0.5 - top) / kept_height
    across = (np.arange(width) + 0.5 - left) / kept_width
    if preprocessing.fit == "pad":  # as Preprocessing.resize puts it into the square
        size, scale = preprocessing.size, preprocessing.size / max(height, width)
        inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
        down = ((size - inner_height) // 2 + down * inner_height) / size
        across = ((size - inner_width) // 2 + across * inner_width) / size
    return down, across


def _weights(positions: Floats, cells: int, grid: Grid) -> NDArray[np.float32]:
    """Of every cell at every position: (n, cells), rows sum to 1. Catmull and Rom's cubic runs through the cells."""
    at = np.clip((positions - grid.start) / grid.step, 0, cells - 1)
    first = np.floor(at).astype(np.intp)
    t = at - first
    near = [(-t + 2 * t**2 - t**3) / 2, (2 - 5 * t**2 + 3 * t**3) / 2, (t + 4 * t**2 - 3 * t**3) / 2, (t**3 - t**2) / 2]
    weights = np.zeros((len(positions), cells), np.float32)
    for offset, values in enumerate(near, start=-1):
        np.add.at(weights, (np.arange(len(positions)), np.clip(first + offset, 0, cells - 1)), values)
    return weights


@cache
def _inferno() -> NDArray[np.float32]:
    """(256, 3), 0 .. 255."""
    from matplotlib import colormaps

    return (colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.float32)
