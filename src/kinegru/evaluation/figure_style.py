"""The one look of all figures, and how they leave: as PNG and SVG files, or as SVG inside the report.

Notable:
* Two hues say everything and stay apart for colour-blind eyes: blue is right, or the first curve; orange is wrong, or
  the second. Strength is opacity, so the same drawing reads on white and on black.
* `inline_svg` gives a figure whose colours are the report's CSS variables, light or dark by the reader's setting.
* Text stays text in an SVG: any script the viewer has fonts for is shown, searched and copied. A PNG shows only the
  scripts that a font on this machine has.
* matplotlib is imported when a figure is drawn, without pyplot and without any global state left changed.
"""

from __future__ import annotations

import io
import os
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinegru.console import errors_only
from kinegru.files import atomic_write
from kinegru.fonts import known_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1f24", "#59636e", "#d8dee4"
BLUE, ORANGE = "#0a6ebd", "#c2500a"  # lines and bars
RIGHT, WRONG, ON_CELL = "#084a80", "#b23c00", "#fefefe"  # cells of the confusion matrix, and numbers on strong ones
CSS_COLOURS = {INK: "--ink", MUTED: "--muted", GRID: "--grid", BLUE: "--blue", ORANGE: "--orange"}
CSS_COLOURS |= {RIGHT: "--cell-right", WRONG: "--cell-wrong", ON_CELL: "--on-cell"}

_CJK_FONTS = [
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("PingFang SC", "Microsoft YaHei", "SimHei", "Droid Sans Fallback"),
]
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}  # the same figure is the same file
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"


@contextmanager
def style() -> Iterator[None]:
    """The one look of all figures; also needed while saving, when text is laid out."""
    from matplotlib import rc_context

    known = {font.name for font in known_fonts()}
    rc: dict[Any, Any] = {
        "font.family": ["DejaVu Sans", *(name for name in _CJK_FONTS if name in known)],
        "font.size": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": "kinegru",
        "text.parse_math": False,  # a label may hold a dollar sign
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
    # the font manager warns of a font that has no bold
    with rc_context(rc), warnings.catch_warnings(), errors_only("matplotlib.font_manager"):
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def titled(axes: Axes, title: str, detail: str) -> None:
    """What is shown, in bold, and on a second line what one needs to read it."""
    axes.set_title(detail, loc="left", fontsize=8.5, color=MUTED, pad=7)
    axes.annotate(
        title,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 21),
        textcoords="offset points",
        fontsize=11,
        fontweight="bold",
    )


def save_figure(figure: Figure, folder: str | os.PathLike[str], name: str) -> tuple[Path, Path]:
    """Write `name`.png (150 dots an inch) and `name`.svg on white into a folder; returns both paths.

    >>> import tempfile
    >>> from kinegru.evaluation.figures import loss_curve
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     figure = loss_curve([{"epoch": 1, "train_loss": 1.2}])
    ...     [path.name for path in save_figure(figure, folder, "loss")]
    ['loss.png', 'loss.svg']
    """
    png, svg = Path(folder) / f"{name}.png", Path(folder) / f"{name}.svg"
    _settle(figure)
    for path, options in ((png, {"dpi": 150}), (svg, {"metadata": _NO_METADATA})):
        with style(), atomic_write(path, "wb") as file:
            figure.savefig(file, format=path.suffix[1:], facecolor="white", **options)
    return png, svg


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element to stand inside an HTML page, and `description` for those who cannot see it.

    It has no background, CSS variables for colours, and ids that start with `name` so that figures can share a page.

    >>> from kinegru.evaluation.figures import loss_curve
    >>> svg = inline_svg(loss_curve([{"epoch": 1, "train_loss": 1.2}]), "loss", "Loss by epoch")
    >>> svg.startswith("<svg"), "http" in svg, "var(--ink)" in svg
    (True, False, True)
    """
    buffer = io.BytesIO()
    _settle(figure)
    with style():
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in [child for child in parent if child.tag in (f"{_SVG}style", f"{_SVG}metadata")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.replace(_SVG, "")
        if _XLINK in element.attrib:
            element.set("href", "#" + name + "-" + element.attrib.pop(_XLINK)[1:])
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key in ("style", "clip-path", "fill", "stroke"):
                value = re.sub(r"url\(#", f"url(#{name}-", value)
                value = re.sub(r"#[0-9a-f]{6}", lambda hit: _css(hit.group()), value)
                element.set(key, re.sub(r"'DejaVu Sans'.*?sans-serif", "var(--sans)", value))
    width, height = (float(root.attrib.pop(side).removesuffix("pt")) for side in ("width", "height"))
    root.attrib.update({"role": "img", "aria-label": description, "style": f"--w:{width:.0f};--h:{height:.0f}"})
    return ElementTree.tostring(root, encoding="unicode")


def _css(colour: str) -> str:
    return f"var({CSS_COLOURS[colour]})" if colour in CSS_COLOURS else colour


def short(label: str, limit: int = 26) -> str:
    """A label as an axis can bear it: one line, no control characters, cut if long.

    >>> short("a\\nb" + "c" * 40)
    'a bcccccccccccccccccccccc…'
    """
    text = "".join(c if c.isprintable() else " " for c in label)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _settle(figure: Figure) -> None:
    """Lay the figure out once, not again for each file; for a hundred classes that is what takes the time."""
    if figure.get_layout_engine() is not None:
        with style():
            figure.draw_without_rendering()
        figure.set_layout_engine(None)  # "none" would leave a placeholder, and every file be drawn twice
