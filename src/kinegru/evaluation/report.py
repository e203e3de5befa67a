"""One page that anyone can open: `report.html`, from the predictions table and what is known of the run.

Notable:
* Self-contained: style, script, figures and thumbnails stand inside; nothing is asked from any server, and the page's
  content security policy forbids it. Without JavaScript only the sorting of tables is lost.
* Light or dark by the reader's setting, readable on a phone, printable.
* Every value is escaped; names that are no valid text (odd bytes, control characters) get a replacement sign.
* A leak between training and test is said first, before the number it spoils.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from kinegru import __version__
from kinegru.errors import KineGRUError
from kinegru.evaluation import report_words as words
from kinegru.evaluation.context import RunContext
from kinegru.evaluation.figure_style import inline_svg, save_figure
from kinegru.evaluation.figures import History, draw_figures, read_history
from kinegru.evaluation.metrics import Metrics, PartScore, compute_metrics
from kinegru.evaluation.page import render
from kinegru.evaluation.predictions import Predictions
from kinegru.files import atomic_write

Thumbnails = Callable[[str], Sequence[np.ndarray]]  # a clip's name in the table -> frames, uint8 (H, W, 3) RGB

CONFUSION_ROWS, PART_ROWS = 40, 30  # the most that a table lists
_STRIP_HEIGHT = 120  # pixels of a thumbnail


def write_report(
    target: str | os.PathLike[str],
    predictions: Predictions,
    history: History | None = None,
    context: RunContext | Mapping[str, Any] | None = None,
    thumbnails: Thumbnails | None = None,
    metrics: Metrics | None = None,
) -> Path:
    """Write the report of a result and return its path.

    Args:
        target: a run's folder, which gets `report.html` and `figures/` (each figure as PNG and SVG); or a path that
            ends in `.html`, which gets the page alone.
        predictions: the table; rows without a label are left out of every measure.
        history: `history.csv` or its rows, for the curves.
        context: the circumstances, a `RunContext` or a dict of its fields.
        thumbnails: gives frames of a clip by its name in the table. A clip that raises `KineGRUError` or `OSError`, or
            has no frames, is shown without.
        metrics: of the same predictions, if they have been computed already.

    Raises:
        DataError: if no clip has a label, or the history cannot be read.
        UsageError: if the context has an unknown key.

    >>> import tempfile
    >>> table = Predictions(["run", "walk"], ["a.mp4"], ["run"], [None], [[0.9, 0.1]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(folder, table, context={"siblings": 0}).read_text()
    ...     (page.startswith("<!DOCTYPE html>"), "http" in page.replace("http-equiv", ""))
    (True, False)
    """
    target, context = Path(target), RunContext.of(context)
    metrics = metrics or compute_metrics(predictions)
    figures = draw_figures(metrics, read_history(history), context.best_epoch)
    alone = target.suffix.lower() in (".html", ".htm")
    if not alone:
        for name, figure in figures.items():
            save_figure(figure, target / "figures", name)
    drawn = {name: Markup(inline_svg(figure, name, _ALT[name])) for name, figure in figures.items()}
    view = _view(metrics, predictions, context, drawn)
    page = render("report.html.jinja", **view, clip_rows=_clip_rows(metrics, thumbnails))
    path = target if alone else target / "report.html"
    with atomic_write(path) as file:
        file.write(page)
    return path


_ALT = {
    "loss": "Line chart: training and validation loss by epoch",
    "accuracy": "Line chart: top-1 and top-5 of training and validation clips by epoch",
    "confusion_matrix": "Confusion matrix, true classes in rows; the table of confusions lists the errors",
    "reliability": "Accuracy by confidence; the table of clips by confidence gives the numbers",
    "classes": "Bar chart: recall and precision of each class; the table of classes gives the numbers",
}


def _view(
    metrics: Metrics, predictions: Predictions, context: RunContext, figures: dict[str, Markup]
) -> dict[str, Any]:
    """Everything the template shows, but for the clips' thumbnails."""
    title = context.title or (f"{context.model} on {context.data}" if context.model and context.data else None)
    taken = {row.true: row for row in reversed(metrics.confusions)}  # the most frequent of each class
    parts = _parts(metrics)
    model, training = words.model_facts(context), words.training_facts(context)
    fact_sections = [("model", "Model", model), ("training", "Training", training)]
    fact_sections = [section for section in fact_sections if section[2]]
    leak = None
    if context.siblings:
        total = context.test_clips or metrics.clips
        leak = {"count": context.siblings, "total": total, "share": min(1.0, context.siblings / total)}
    contents = [("protocol", "Protocol"), *((anchor, name) for anchor, name, _ in fact_sections)]
    contents += [("curves", "Curves")] if {"loss", "accuracy"} & figures.keys() else []
    contents += [("confusion", "Confusion matrix"), ("classes", "Classes")]
    contents += [(part["anchor"], part["heading"]) for part in parts]
    contents += [("calibration", "Calibration"), ("clips", "Clips to look at")]
    contents += [("skipped", "Clips skipped")] if context.bad_clips is not None else []
    contents += [("repeat", "How to repeat it")] if context.command else []
    return {
        "m": metrics,
        "figures": figures,
        "title": title or context.model or context.data or "Action recognition",
        "subtitle": [part for part in (context.data, context.model, context.split, context.date) if part],
        "leak": leak,
        "intervals": words.intervals(metrics),
        "tiles": words.tiles(metrics),
        "contents": contents,
        "protocol": words.protocol_words(context, metrics),
        "sizes": words.sizes(context, predictions, metrics),
        "fact_sections": fact_sections,
        "confusion_rows": CONFUSION_ROWS,
        "class_rows": [(row, taken.get(row.label)) for row in metrics.per_class],
        "untested": sum(not row.support for row in metrics.per_class),
        "parts": parts,
        "calibration": words.calibration_words(metrics),
        "clips_words": words.clips_words(metrics),
        "bad_clips": None if context.bad_clips is None else sorted(context.bad_clips.items()),
        "command": context.command,
        "version": __version__,
        "date": context.date,
    }


def _parts(metrics: Metrics) -> list[dict[str, Any]]:
    """The tables by fold and by group, where there is more than one."""
    tables = []
    for anchor, column, rows in (("folds", "Fold", metrics.folds), ("groups", "Group", metrics.groups)):
        same = anchor == "groups" and {row.name for row in rows} == {row.name for row in metrics.folds}
        if len(rows) > 1 and not same:
            cut = f", {PART_ROWS} of {len(rows)}" if len(rows) > PART_ROWS else ""
            order = "lowest accuracy first" if anchor == "groups" else "in order"
            shown: list[PartScore] = rows[:PART_ROWS]
            caption = f"Top-1 by {column.lower()}, {order}{cut}"
            tables.append(
                {"anchor": anchor, "heading": f"{column}s", "column": column, "caption": caption, "rows": shown}
            )
    return tables


def _clip_rows(metrics: Metrics, thumbnails: Thumbnails | None) -> list[tuple[Any, str | None]]:
    """The worst clips, each with its strip of frames as a data: address or None."""
    rows = []
    for row in metrics.worst:
        try:
            frames = list(thumbnails(row.clip)) if thumbnails else []
        except (KineGRUError, OSError):
            frames = []
        rows.append((row, _strip(frames) if frames else None))
    return rows


def _strip(frames: Sequence[np.ndarray], count: int = 4) -> str:
    """Four frames, evenly taken, side by side as one JPEG in a data: address. Frames: uint8 (H, W, 3)."""
    from PIL import Image

    chosen = [frames[int((i + 0.5) * len(frames) / count)] for i in range(count)]
    images = [Image.fromarray(np.ascontiguousarray(frame)).convert("RGB") for frame in chosen]
    images = [im.resize((max(1, round(im.width * _STRIP_HEIGHT / im.height)), _STRIP_HEIGHT)) for im in images]
    strip = Image.new("RGB", (sum(im.width for im in images) + 3 * (count - 1), _STRIP_HEIGHT), (40, 44, 50))
    left = 0
    for image in images:
        strip.paste(image, (left, 0))
        left += image.width + 3
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
