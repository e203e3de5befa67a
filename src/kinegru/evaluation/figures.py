"""The figures of a result: loss (paper, fig. 9), top-1 and top-5 (fig. 10), confusion matrix (fig. 11), and more.

Notable:
* Blue is right, or the first curve; orange is wrong, or the second. Training is dashed and validation solid, so nothing
  hangs on colour alone.
* In the confusion matrix each cell bears its count; its strength is the share of the true class's clips.
* Each function draws one figure from `Metrics` or from a training history; `figure_style.save_figure` writes it.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from kinegru.errors import DataError
from kinegru.evaluation.figure_style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    ON_CELL,
    ORANGE,
    RIGHT,
    WRONG,
    new_figure,
    short,
    style,
    titled,
)
from kinegru.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Union[
    str, "os.PathLike[str]", Sequence[Mapping[str, Any]]
]  # history.csv, or its rows; top-k as shares in [0, 1]


def read_history(history: History | None) -> list[dict[str, float]]:
    """The rows of a training history as numbers; blank fields, and those that are no finite number, are left out.

    Columns: epoch, train_loss, train_top1, train_top5, val_loss, val_top1, val_top5, learning_rate, seconds; any but
    epoch may be missing. Top-k are shares in [0, 1].

    Raises:
        DataError: if the file cannot be read or has no column `epoch`.

    >>> read_history([{"epoch": 1, "train_loss": "0.5", "val_loss": ""}])
    [{'epoch': 1.0, 'train_loss': 0.5}]
    """
    if history is None:
        return []
    rows: list[Mapping[str, Any]]
    if isinstance(history, (str, os.PathLike)):
        try:
            with Path(history).open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or "is no CSV"
            raise DataError(f"{os.fspath(history)}: the training history cannot be read ({reason})") from None
        where = f"{os.fspath(history)}: "
    else:
        rows, where = list(history), ""
    numbers = []
    for row in rows:
        values = {}
        for name, value in row.items():
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if math.isfinite(number):
                values[name] = number
        if "epoch" not in values:
            raise DataError(f"{where}a training history needs a number in column 'epoch' of every row")
        numbers.append(values)
    return numbers


def loss_curve(history: History, best_epoch: int | None = None) -> Figure:
    """Training and validation loss by epoch (paper, fig. 9). `best_epoch` is marked: the epoch whose weights are kept.

    >>> figure = loss_curve([{"epoch": 1, "train_loss": 1.2}, {"epoch": 2, "train_loss": 0.7}])
    >>> figure.axes[0].get_ylabel()
    'Cross-entropy loss (nats)'
    """
    rows = read_history(history)
    with style():
        figure, axes = new_figure(5.6, 3.5)
        _curve(axes, rows, "val_loss", "validation", ORANGE, "-")
        _curve(axes, rows, "train_loss", "training", BLUE, "--")
        axes.set_ylabel("Cross-entropy loss (nats)")
        axes.set_ylim(bottom=0)
        _finish_curves(axes, rows, "Loss", best_epoch)
    return figure


def accuracy_curves(history: History, best_epoch: int | None = None) -> Figure:
    """Top-1 and top-5 of training and validation clips by epoch, in per cent (paper, fig. 10).

    >>> figure = accuracy_curves([{"epoch": 1, "train_top1": 0.5, "train_top5": 0.9}])
    >>> figure.axes[0].get_ylabel()
    'Clips recognised (%)'
    """
    rows = read_history(history)
    with style():
        figure, axes = new_figure(5.6, 3.5)
        for part, name, dashes in (("val", "validation", "-"), ("train", "training", "--")):
            _curve(axes, rows, f"{part}_top5", f"top-5, {name}", ORANGE, dashes, 100)
            _curve(axes, rows, f"{part}_top1", f"top-1, {name}", BLUE, dashes, 100)
        axes.set_ylabel("Clips recognised (%)")
        axes.set_ylim(0, 102)
        _finish_curves(axes, rows, "Top-1 and top-5", best_epoch)
    return figure


def _tested_in_words(metrics: Metrics) -> str:
    """How many clips were tested, and how often, where that is not once each.

    >>> from types import SimpleNamespace
    >>> _tested_in_words(SimpleNamespace(clips=1, distinct_clips=1))
    '1 clip'
    >>> _tested_in_words(SimpleNamespace(clips=270, distinct_clips=90))
    '270 tests of 90 clips'
    """
    clips = f"{metrics.distinct_clips:,} clip{'s' if metrics.distinct_clips != 1 else ''}"
    return clips if metrics.clips == metrics.distinct_clips else f"{metrics.clips:,} tests of {clips}"


def confusion_matrix(metrics: Metrics) -> Figure:
    """True classes by predicted classes, counts in the cells, strength by the share of the true class (paper, fig. 11).

    >>> from kinegru.evaluation.metrics import compute_metrics
    >>> from kinegru.evaluation.predictions import Predictions
    >>> table = Predictions(["run", "walk"], list("ab"), ["run", "walk"], [None] * 2, [[0.9, 0.1], [0.2, 0.8]])
    >>> [text.get_text() for text in confusion_matrix(compute_metrics(table)).axes[0].get_xticklabels()]
    ['run', 'walk']
    """
    labels = [short(name) for name in metrics.classes]
    classes = len(labels)
    cell = max(0.17, min(1.05, 5.2 / classes))  # inches
    font = max(5.0, min(9.5, cell * 24))  # points
    margin = 0.5 + max(map(len, labels)) * font * 0.0087  # inches for the names
    with style():
        figure, axes = new_figure(max(3.6, classes * cell + margin + 0.3), max(2.9, classes * cell + margin + 0.75))
        axes.set_aspect("equal")
        axes.set_xlim(-0.5, classes - 0.5)
        axes.set_ylim(classes - 0.5, -0.5)
        _cells(axes, metrics.confusion_matrix, font)
        axes.set_xticks(range(classes), labels, rotation=90 if classes > 4 else 0, fontsize=font)
        axes.set_yticks(range(classes), labels, fontsize=font)
        axes.tick_params(length=0, pad=3)
        edges = [k - 0.5 for k in range(classes + 1)]
        hair = {"colors": GRID, "linewidth": 0.4 if classes > 30 else 0.7, "zorder": 0.5}
        axes.hlines(edges, -0.5, classes - 0.5, **hair)
        axes.vlines(edges, -0.5, classes - 0.5, **hair)
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(True)
            side.set_color(GRID)
        axes.set_xlabel("Predicted class", labelpad=6)
        axes.set_ylabel("True class", labelpad=6)
        titled(axes, "Confusion matrix", f"{_tested_in_words(metrics)}; blue right, orange wrong")
    return figure


def reliability_diagram(metrics: Metrics) -> Figure:
    """How often the model was right, by how sure it was; below, how many clips were that sure.

    >>> from kinegru.evaluation.metrics import compute_metrics
    >>> from kinegru.evaluation.predictions import Predictions
    >>> table = Predictions(["run", "walk"], ["a"], ["run"], [None], [[0.9, 0.1]])
    >>> reliability_diagram(compute_metrics(table)).axes[0].get_ylabel()
    'Clips recognised (%)'
    """
    bins = metrics.reliability
    left, width = [100 * b.low for b in bins], [100 * (b.high - b.low) for b in bins]
    with style():
        from matplotlib.ticker import MaxNLocator

        figure, (upper, lower) = new_figure(4.8, 4.8, rows=2, height_ratios=[3.2, 1], sharex=True)
        upper.bar(left, [100 * b.accuracy for b in bins], width, align="edge", color=BLUE, alpha=0.28, linewidth=0)
        upper.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=":", label="perfectly calibrated")
        sure, right = [100 * b.confidence for b in bins], [100 * b.accuracy for b in bins]
        upper.plot(sure, right, color=BLUE, marker="o", markersize=4.5, label="this model", clip_on=False)
        upper.set_ylabel("Clips recognised (%)")
        upper.set_ylim(0, 102)
        upper.set_xlim(0, 100)
        upper.legend(loc="upper left")
        titled(
            upper, "Calibration", f"expected calibration error {100 * metrics.calibration_error:.1f} points, 15 bins"
        )
        lower.bar(left, [b.count for b in bins], [0.92 * w for w in width], align="edge", color=MUTED, linewidth=0)
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        lower.set_ylabel("Clips")
        lower.set_xlabel("Confidence: score of the predicted class (%)")
        figure.align_ylabels()
    return figure


def class_bars(metrics: Metrics) -> Figure:
    """Recall (bar) and precision (dot) of each class that was tested, best first; several columns if there are many.

    >>> from kinegru.evaluation.metrics import compute_metrics
    >>> from kinegru.evaluation.predictions import Predictions
    >>> table = Predictions(["run", "walk"], ["a"], ["run"], [None], [[0.9, 0.1]])
    >>> [text.get_text() for text in class_bars(compute_metrics(table)).axes[0].get_yticklabels()]
    ['run']
    """
    tested = sorted(
        (row for row in metrics.per_class if row.support), key=lambda row: (-row.recall, -row.f1, row.label)
    )
    columns = math.ceil(len(tested) / 36)
    deep = math.ceil(len(tested) / columns)
    names = max(len(short(row.label)) for row in tested)
    pitch = 0.17 if deep > 14 else 0.26  # inches a class
    with style():
        width = max(6.4, columns * (2.4 + 0.07 * names))
        figure, panels = new_figure(width, 1.15 + deep * pitch, columns=columns, squeeze=False, sharex=True)
        for column, axes in enumerate(panels[0]):
            rows = tested[column * deep : (column + 1) * deep]
            places = range(len(rows))
            axes.barh(places, [100 * row.recall for row in rows], 0.58, color=BLUE, linewidth=0)
            shown = [(100 * row.precision, place) for place, row in enumerate(rows) if row.predicted]
            edge = {"color": ORANGE, "edgecolors": ON_CELL, "linewidths": 0.9}
            axes.scatter([x for x, _ in shown], [y for _, y in shown], 30, marker="D", clip_on=False, zorder=4, **edge)
            axes.set_yticks(places, [short(row.label) for row in rows], fontsize=7.5 if deep > 14 else 9)
            axes.set_ylim(deep - 0.4, -0.6)
            axes.set_xlim(0, 100)
            axes.tick_params(axis="y", length=0)
            axes.grid(False, axis="y")
            axes.set_xlabel("Per cent")
        titled(panels[0][0], "Classes", "bar: recall, diamond: precision")
    return figure


def draw_figures(metrics: Metrics, history: History | None = None, best_epoch: int | None = None) -> dict[str, Figure]:
    """All figures there is material for, by file name: loss, accuracy, confusion_matrix, reliability, classes."""
    rows = read_history(history)
    figures = {}
    if any({"train_loss", "val_loss"} & row.keys() for row in rows):
        figures["loss"] = loss_curve(rows, best_epoch)
    if any({"train_top1", "val_top1", "train_top5", "val_top5"} & row.keys() for row in rows):
        figures["accuracy"] = accuracy_curves(rows, best_epoch)
    figures["confusion_matrix"] = confusion_matrix(metrics)
    figures["reliability"] = reliability_diagram(metrics)
    figures["classes"] = class_bars(metrics)
    return figures


def _curve(axes: Axes, rows: list, column: str, label: str, colour: str, dashes: str, scale: float = 1) -> None:
    """One line of the history over the epochs that have it; nothing if none has."""
    points = [(row["epoch"], scale * row[column]) for row in rows if column in row]
    if points:
        marker = "o" if len(points) < 8 else ""
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=colour,
            linestyle=dashes,
            label=label,
            marker=marker,
            markersize=4,
        )


def _finish_curves(axes: Axes, rows: list, title: str, best_epoch: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    if best_epoch is not None:
        axes.axvline(best_epoch, color=MUTED, linewidth=1, linestyle=":", zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("Epoch")
    epochs = f"{len(rows)} epoch" + ("s" if len(rows) != 1 else "")
    titled(
        axes,
        title,
        epochs + (f"; dotted: epoch {best_epoch}, whose weights are kept" if best_epoch is not None else ""),
    )
    if axes.lines:
        axes.legend(loc="best")


def _cells(axes: Axes, matrix: list[list[int]], font: float) -> None:
    """A square and its count for each cell that is not 0; with few classes also the share of the true class."""
    from matplotlib.patches import Rectangle

    classes = len(matrix)
    for true, row in enumerate(matrix):
        for predicted, count in enumerate(row):
            if not count:
                continue
            share = count / sum(row)
            strength = 0.12 + 0.88 * share
            colour, light_from = (RIGHT, 0.66) if true == predicted else (WRONG, 0.78)  # where white reads better
            place = (predicted - 0.5, true - 0.5)
            axes.add_patch(Rectangle(place, 1, 1, facecolor=colour, alpha=strength, linewidth=0))
            ink = ON_CELL if strength > light_from else INK
            if classes <= 120:  # beyond, the numbers would be too small to read
                text = f"{count}\n{100 * share:.0f} %" if classes <= 6 else f"{count}"
                axes.text(predicted, true, text, ha="center", va="center", color=ink, fontsize=font)
