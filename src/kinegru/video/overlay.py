"""A line of text at the bottom of a frame: on a dark band, as large as the frame allows.

The font is DejaVu Sans, which matplotlib brings, or the first font of this machine that has all characters of a text.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinegru.fonts import known_fonts

BAND = 0.11  # of the frame's height
LEAST = 12  # pixels of the band
DARK = 0.3  # of the light that the band lets through
INK = (255, 255, 255)


def caption(image: NDArray[np.uint8], left: str, right: str = "") -> NDArray[np.uint8]:
    """A copy of an RGB frame, uint8 (H, W, 3), with text at its lower left and right.

    >>> frame = np.full((72, 96, 3), 200, np.uint8)
    >>> drawn = caption(frame, "walk 93 %", "0:05")
    >>> (drawn[:60] == frame[:60]).all(), int(drawn[60:].max())
    (np.True_, 255)
    """
    from PIL import Image, ImageDraw

    height, width = image.shape[:2]
    band = min(height, max(LEAST, round(height * BAND)))
    drawn = image.copy()
    strip = Image.fromarray((drawn[-band:] * DARK).astype(np.uint8))
    pen = ImageDraw.Draw(strip)
    margin = max(1, band // 5)
    left, right = (" ".join(text.split()) for text in (left, right))
    size = max(1, band - 2 * margin)
    wanted = _width(left, size) + _width(right, size) + 2 * margin + (size if left and right else 0)
    size = max(5, min(size, int(size * width / max(1, wanted))))
    for text, place, anchor in ((left, margin, "lm"), (right, width - margin, "rm")):
        if text:
            pen.text((place, band / 2), text, INK, _font(_file_for(text), size), anchor=anchor)
    drawn[-band:] = np.asarray(strip)
    return drawn


def _width(text: str, size: int) -> float:
    return _font(_file_for(text), size).getlength(text) if text else 0.0


@functools.lru_cache(maxsize=64)
def _font(file: str, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(file, size)


def _file_for(text: str) -> str:
    if all(ord(c) < 0x250 for c in text):  # Latin
        return _file_with("")
    return _file_with("".join(sorted({c for c in text if not c.isspace()})))


@functools.lru_cache(maxsize=256)
def _file_with(characters: str) -> str:
    """The font file that has these characters; the usual one where none has them all."""
    import matplotlib

    usual = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    if not characters or _has(usual, characters):
        return usual
    others = sorted({font.fname for font in known_fonts() if "Last Resort" not in font.name})
    return next((file for file in others if _has(file, characters)), usual)


@functools.lru_cache(maxsize=4096)
def _has(file: str, characters: str) -> bool:
    from matplotlib.ft2font import FT2Font

    try:
        known = FT2Font(file).get_charmap()
        _font(file, 12)
    except (OSError, RuntimeError):  # gone, damaged, or without outlines
        return False
    return all(ord(c) in known for c in characters)
