"""A table at a glance: one line a row, a dot for top-1, its 95 % interval, a small ring for every seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinegru.evaluation.figure_style import BLUE, INK, MUTED, ORANGE, new_figure, short, style, titled
from kinegru.reproduction.results import RowResult, TableResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def row_plot(result: TableResult) -> Figure | None:
    """Top-1 of every finished row; None where there is none. On UCF101 and HMDB51 the paper's figures as diamonds."""
    rows = [row for row in result.rows if row.score is not None]
    if not rows:
        return None
    with style():
        figure, axes = new_figure(5.4, 1.25 + 0.32 * len(rows))
        for place, row in enumerate(rows):
            score = row.score
            assert score is not None
            colour = MUTED if row.planned.row.control else BLUE
            axes.plot([100 * score.wilson.low, 100 * score.wilson.high], [place, place], color=colour, linewidth=5,
                      alpha=0.3, solid_capstyle="butt")  # fmt: skip
            if len(score.seeds) > 1:
                seeds = [100 * seed.top1 for seed in score.seeds]
                axes.scatter(
                    seeds, [place] * len(seeds), 26, facecolors="none", edgecolors=colour, linewidths=1, clip_on=False
                )
            axes.scatter([100 * score.top1], [place], 34, color=colour, zorder=4, clip_on=False)
            axes.annotate(f"{100 * score.top1:.1f}", (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0),
                          textcoords="offset points", va="center", color=INK)  # fmt: skip
            if (printed := _printed(row, result.kind)) is not None:
                axes.scatter([printed], [place], 34, marker="D", color=ORANGE, zorder=5, clip_on=False)
        axes.set_yticks(range(len(rows)), [short(row.planned.row.name, 40) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        low = min(100 * row.score.wilson.low for row in rows if row.score is not None)
        axes.set_xlim(max(0.0, 10 * (low // 10)), 100)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        grey = "; grey: our controls" if any(row.planned.row.control for row in rows) else ""
        axes.set_xlabel(f"Top-1 (%){grey}")
        rings = ", ring: a seed" if len(result.seeds) > 1 else ""
        paper = ", diamond: paper" if any(_printed(row, result.kind) is not None for row in rows) else ""
        titled(axes, "Top-1 by row", f"dot: mean{rings}{paper}, bar: 95 %")
    return figure


def _printed(row: RowResult, kind: str) -> float | None:
    return {"ucf101": row.reported.ucf101, "hmdb51": row.reported.hmdb51}.get(kind)
