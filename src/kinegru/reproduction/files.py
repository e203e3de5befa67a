"""Writes what a table leaves: CSV of rows and of comparisons, Markdown, the page, and its figures as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kinegru.evaluation.figure_style import inline_svg, save_figure
from kinegru.files import atomic_write
from kinegru.reproduction.curves import paper_figures
from kinegru.reproduction.job import Job
from kinegru.reproduction.page import PageFigure, page
from kinegru.reproduction.plot import row_plot
from kinegru.reproduction.results import TableResult
from kinegru.reproduction.sheets import markdown, pairs_csv, rows_csv


def write_table(result: TableResult, jobs: Sequence[Job], folder: Path) -> tuple[Path, ...]:
    """Write everything to `folder` (OUT/table1); gives the paths of the page, the texts and the pictures."""
    key = result.table.key
    drawn: list[PageFigure] = []
    pictures: list[tuple[str, str]] = []
    files: list[Path] = []
    if key == "figures":
        for one in paper_figures(jobs):
            files += save_figure(one.figure, folder, one.name)
            drawn.append(PageFigure(one.name, one.heading, inline_svg(one.figure, one.name, one.caption), one.caption))
            pictures.append((f"{one.name}.png", one.caption))
    elif (figure := row_plot(result)) is not None:
        files += save_figure(figure, folder, key)
        alt = "Top-1 of every row with its interval; the table of accuracy gives the numbers"
        drawn.append(PageFigure("plot", "At a glance", inline_svg(figure, "plot", alt)))
        pictures.append((f"{key}.png", alt))
    texts = {
        f"{key}.html": page(result, drawn),
        f"{key}.md": markdown(result, pictures),
        f"{key}.csv": rows_csv(result),
    }
    if result.pairs:
        texts[f"{key}_comparisons.csv"] = pairs_csv(result)
    for name, text in texts.items():
        with atomic_write(folder / name) as handle:
            handle.write(text)
    return (*(folder / name for name in texts), *files)
