"""A caption fits any frame, and shows every script that this machine has a font for."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from kinegru.video.overlay import caption

RARE = "𛄲"  # U+1B132, a small kana that hardly any font has
DRAW = f"""
import numpy as np
from kinegru.evaluation.figure_style import style
from kinegru.video.overlay import caption
with style():
    pass
drawn = caption(np.zeros((120, 160, 3), np.uint8), "{RARE}{RARE}")
print((drawn[-13:, :40] > 200).mean())
"""


@pytest.mark.parametrize(
    "text", ["walk 93%", "", "a label far too long for so small a frame", "two\nlines", "挥手 80%"]
)
@pytest.mark.parametrize("size", [(120, 160), (32, 48), (8, 8), (1080, 64)])
def test_a_caption_fits_any_frame_and_leaves_the_rest_alone(text, size):
    frame = np.full((*size, 3), 128, np.uint8)
    drawn = caption(frame, text, "0:01.5")
    assert drawn.shape == frame.shape and drawn.dtype == np.uint8 and (frame == 128).all()
    band = (drawn != 128).any(axis=(1, 2)).nonzero()[0]
    assert len(band) and band.min() >= size[0] - max(12, round(size[0] * 0.11)) and drawn.max() > 150


@pytest.mark.parametrize("size", [(1, 1), (2, 400), (400, 1), (3, 3)])
def test_a_caption_on_next_to_nothing_is_no_error(size):
    frame = np.full((*size, 3), 128, np.uint8)
    assert caption(frame, "walk 93%", "0:01.5").shape == frame.shape


def test_a_font_that_was_installed_after_matplotlib_made_its_list_is_used(tmp_path):
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "lists"), "XDG_DATA_HOME": str(tmp_path / "data")}

    def white() -> float:
        ran = subprocess.run([sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True, check=True)
        return float(ran.stdout)

    before = white()  # the box of a character that is missing, or its strokes: little ink
    fonts = tmp_path / "data" / "fonts"
    fonts.mkdir(parents=True)
    solid_font(RARE).save(fonts / "solid.ttf")
    assert before < 0.1 and white() > before + 0.2


def solid_font(character: str) -> FontBuilder:
    """A font with one character, as solid as a wall."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, -200))
    for corner in ((0, 800), (1000, 800), (1000, -200)):
        pen.lineTo(corner)
    pen.closePath()
    glyphs = {".notdef": TTGlyphPen(None).glyph(), "wall": pen.glyph()}
    font = FontBuilder(1000)
    font.setupGlyphOrder(list(glyphs))
    font.setupCharacterMap({ord(character): "wall"})
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Solid", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    return font
