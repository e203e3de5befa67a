"""What an explanation looks like: a sheet of frames, curves over time, and the video itself under its heat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kinegru.console import Track, clock
from kinegru.evaluation.figure_style import BLUE, INK, MUTED, ORANGE, new_figure, short, style, titled
from kinegru.recognition.attribution import METHODS
from kinegru.recognition.explain import Explanation, Scale
from kinegru.recognition.heat import LOWERS, RAISES, Placement, heated, masked
from kinegru.video.overlay import caption
from kinegru.video.pacing import Recording
from kinegru.video.reader import frames_at
from kinegru.video.transforms import Preprocessing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]

COLUMNS = 8  # of the sheet, at most
TILE = 1.25  # inches wide, or high where a frame is taller than wide


def overlay(found: Explanation, preprocessing: Preprocessing, scale: Scale, track: Track) -> Iterator[Image]:
    """The frames of the file under their heat, with the label, the score so far and the time, uint8 (H, W, 3).

    They come at the file's nominal rate, a frame that is shown for long several times: time runs as in the file.
    """
    heat, score = found.heat(scale), found.over_time
    placement: Placement | None = None
    with Recording(found.source) as recording:
        for frame in recording.frames(longest_gap=float("inf")):
            image, place = frame.image, frame.place
            if placement is None:
                placement = Placement(preprocessing, image.shape[0], image.shape[1], heat.shape[1:], found.heat_grid)
            text, drawn = "not looked at", image
            if found.saw(place):
                text = f"{found.label} {found.at(place, score):.0%}"
                drawn = heated(image, placement(found.at(place, heat)), placement.seen)
            yield caption(drawn, text, clock(frame.number / found.fps))
            track(min(place + 1, found.length), found.length)


def sheet(found: Explanation, preprocessing: Preprocessing, scale: Scale) -> Figure:
    """Frames of the clip, the excitation's mask on them, and their heat, one below the other; the hottest is there."""
    heat, mask = found.heat(scale), found.look.spatial
    steps = _spread(len(heat), COLUMNS, int(found.strength.argmax()))
    frames = frames_at(found.source, [min(found.length - 1, round(float(found.places[step]))) for step in steps])
    height, width = frames.shape[1:3]
    pairs = list(zip(frames, steps, strict=True))
    rows = [("frame", list(frames))]
    greatest = None
    if mask is not None and found.mask_grid is not None:
        cool = Placement(preprocessing, height, width, mask.shape[1:], found.mask_grid)
        greatest = float(np.abs(mask).max()) or 1.0
        rows.append(("STE mask", [masked(frame, cool(mask[step] / greatest), cool.seen) for frame, step in pairs]))
    warm = Placement(preprocessing, height, width, heat.shape[1:], found.heat_grid)
    name = f"Grad-CAM\n({found.look.method})"
    rows.append((name, [heated(frame, warm(heat[step]), warm.seen) for frame, step in pairs]))
    heads = [f"{found.times[step]:.1f} s · {found.over_time[step]:.0%}" for step in steps]
    return _tiles(rows, heads, _title(found), "most" if scale == "clip" else "most of\na frame", greatest)


def _tiles(
    rows: list[tuple[str, list[Image]]], heads: list[str], title: str, most: str, greatest: float | None
) -> Figure:
    """`greatest` is what the ends of the mask's colours stand for, in the second row."""
    height, width = rows[0][1][0].shape[:2]
    wide = min(TILE, TILE * width / height)
    high = max(0.3, wide * height / width)
    wide = max(wide, 0.65)
    columns = len(heads)
    with style():
        figure, axes = new_figure(
            max(5.0, 1.06 * wide * columns + 1.3), 1.04 * high * len(rows) + 0.6, len(rows), columns + 1,
            squeeze=False, width_ratios=[1.0] * columns + [0.08],
        )  # fmt: skip
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        for line, (name, tiles) in zip(axes, rows, strict=True):
            for place, tile in zip(line, tiles, strict=False):
                place.imshow(tile, interpolation="antialiased")
                place.set_xticks([])
                place.set_yticks([])
                place.spines[:].set_visible(False)
            line[0].set_ylabel(name, fontsize=8.5)
        for place, head in zip(axes[0], heads, strict=False):
            place.set_title(head, fontsize=8, color=MUTED, pad=3)
        axes[0, -1].axis("off")
        _bar(figure, axes[-1, -1], "inferno", (0, 1), ["none", most])
        if greatest is not None:
            from matplotlib.colors import LinearSegmentedColormap

            colours = [tuple(c / 255 for c in colour) for colour in (LOWERS, (245, 245, 245), RAISES)]
            ends = [f"−{greatest:.2g}", "0", f"+{greatest:.2g}"]
            _bar(figure, axes[1, -1], LinearSegmentedColormap.from_list("mask", colours), (-1, 0, 1), ends)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def over_time(found: Explanation) -> Figure:
    """Score, heat, masks and gates over time, and what remains of the score as frames are replaced."""
    look, times = found.look, found.times
    panels = ["score", "heat"]
    panels += ["masks"] * (look.spatial is not None or look.channels is not None) + ["gates"] * (look.gates is not None)
    with style():
        figure, axes = new_figure(7.2, 1.75 * (len(panels) + 1) + 0.4, len(panels) + 1, 1)
        by_name = dict(zip(panels, axes, strict=False))
        _score(by_name["score"], found)
        _lines(by_name["heat"], times, [("", found.strength, BLUE)])
        titled(by_name["heat"], "Heat over time", f"mean of a frame, 1: the most; Grad-CAM on {METHODS[look.method]}")
        by_name["heat"].set_ylim(0, 1.05)
        if "masks" in by_name:
            curves = []
            seconds = found.seconds(found.numbers)
            if look.spatial is not None:
                curves.append(("spatio-temporal (STE)", np.abs(look.spatial).mean(axis=(1, 2)), BLUE))
            if look.channels is not None:
                curves.append(("channels (CE)", look.channels, ORANGE))
            _lines(by_name["masks"], seconds, curves)
            by_name["masks"].set_ylim(bottom=0)
            titled(
                by_name["masks"], "The excitation's masks", "mean distance of a mask from 0.5, where it changes nothing"
            )
        if look.gates is not None:
            gates = look.gates
            curves = [("update z: kept", gates.update, BLUE), ("reset r: let in", gates.reset, ORANGE),
                      ("change of the state", gates.change, MUTED)]  # fmt: skip
            _lines(by_name["gates"], times, curves)
            by_name["gates"].set_ylim(0, max(1.0, 1.05 * float(gates.change.max())))
            titled(by_name["gates"], "The ConvGRU's gates", "means over the state")
        for name, axis in by_name.items():
            axis.set_xlim(0, found.stamps[-1] + 1 / found.fps)
            if name == panels[-1]:
                axis.set_xlabel("seconds")
        _deletion(axes[-1], found)
        figure.suptitle(_title(found), x=0.01, ha="left", fontsize=11)
    return figure


def _score(axes: Axes, found: Explanation) -> None:
    curves = [(found.label, found.over_time, BLUE)]
    last = found.look.scores[-1]
    others = [k for k in np.argsort(-last, kind="stable") if found.labels[k] != found.label]
    if others:
        curves.append((found.labels[others[0]], found.look.scores[:, others[0]], ORANGE))
    _lines(axes, found.times, curves)
    axes.set_ylim(0, 1.02)
    titled(axes, "Score over time", "probability, read out after each frame that the model saw")


def _lines(axes: Axes, times: NDArray[Any], curves: list[tuple[str, NDArray[Any], str]]) -> None:
    for name, values, colour in curves:
        axes.plot(times, values, color=colour, marker="o", markersize=3, label=short(name), clip_on=False)
    if any(name for name, _, _ in curves):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _deletion(axes: Axes, found: Explanation) -> None:
    shares = [100 * share for share in found.deletion.shares]
    for name, scores, colour, marker in (("hottest first", found.deletion.hottest, BLUE, "o"),
                                         ("coldest first", found.deletion.coldest, ORANGE, "s")):  # fmt: skip
        axes.plot(shares, scores, color=colour, marker=marker, markersize=4, label=name, clip_on=False)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, 100)
    axes.set_xlabel("frames replaced by the clip's mean (%)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    titled(axes, "Deletion check", f"probability of {short(found.label)}: the blue line should fall first")


def _bar(figure: Figure, axes: Axes, colours: Any, ticks: tuple[float, ...], names: list[str]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(ticks[0], ticks[-1]), colours), cax=axes, ticks=ticks)
    bar.ax.set_yticklabels(names, fontsize=7.5)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0, colors=INK)


def _title(found: Explanation) -> str:
    said = "" if found.label == found.predicted else f" (predicted: {short(found.predicted)})"
    return f"{short(found.label)} {found.score:.0%}{said} · {short(Path(found.source).name, 40)}"


def _spread(length: int, most: int, wanted: int) -> list[int]:
    """At most `most` of `length` places, evenly spread, first and last among them, and `wanted` for the one next to it.

    >>> _spread(40, 4, 15), _spread(2, 8, 0)
    ([0, 15, 26, 39], [0, 1])
    """
    places = np.linspace(0, length - 1, min(length, most)).round().astype(int)
    if len(places) > 2 and wanted not in places:
        inner = 1 + np.abs(places[1:-1] - wanted).argmin()
        places[inner] = wanted
    return places.tolist()
