"""The fonts of this machine, also those that were installed after matplotlib last made its list of them."""

from __future__ import annotations

import contextlib
import functools
from typing import Any


@functools.cache
def known_fonts() -> list[Any]:
    """matplotlib's entries (`.name` of the family, `.fname` of the file) for every font file there is.

    matplotlib keeps its list in a file for months; what that file lacks is added for this process.

    >>> "DejaVu Sans" in {font.name for font in known_fonts()}
    True
    """
    from matplotlib import font_manager

    manager = font_manager.fontManager
    listed = {font.fname for font in manager.ttflist}
    for file in sorted(set(font_manager.findSystemFonts()) - listed):
        with contextlib.suppress(Exception):  # a damaged font, or pictures: matplotlib leaves them out as well
            manager.addfont(file)
    return manager.ttflist
