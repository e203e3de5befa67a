"""Figures 9 to 11 of the paper, from the runs of one model: loss, accuracy, confusion matrix.

Over several folds and seeds a curve is the mean of the runs' curves, epoch by epoch; the confusion matrix counts every
test of every seed.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kinegru.errors import DataError
from kinegru.evaluation.figures import accuracy_curves, confusion_matrix, loss_curve, read_history
from kinegru.evaluation.metrics import compute_metrics
from kinegru.evaluation.predictions import Predictions
from kinegru.reproduction.job import Job
from kinegru.reproduction.runner import read_predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PaperFigure:
    """A figure, under which name it is written, and what stands below it."""

    name: str
    heading: str
    caption: str
    figure: Figure


def paper_figures(jobs: Sequence[Job]) -> list[PaperFigure]:
    """Figures 9, 10 and 11 from the finished jobs; nothing where none is finished."""
    tables = [table for job in jobs if (table := read_predictions(job)) is not None]
    if not tables:
        return []
    finished = [job for job in jobs if job.state() == "finished"]
    runs = [job.fold_folder(fold) for job in finished for fold in job.folds]
    history = mean_history([run / "history.csv" for run in runs])
    validated = any("val_loss" in row for row in history)
    of = "one run" if len(runs) == 1 else f"the mean of {len(runs)} runs ({_parts(finished)})"
    part = "training and validation clips" if validated else "training clips (no validation part was kept)"
    pooled = compute_metrics(Predictions.concatenate(tables), bootstrap=1)
    tested = f"{pooled.distinct_clips} clips" + (f", each with {len(tables)} seeds" if len(tables) > 1 else "")
    return [
        PaperFigure(
            "fig9_loss", "Figure 9: loss", f"Fig. 9 of the paper: loss by epoch on {part}; {of}.", loss_curve(history)
        ),
        PaperFigure(
            "fig10_accuracy", "Figure 10: accuracy",
            f"Fig. 10 of the paper: top-1 and top-5 by epoch on {part}; {of}.", accuracy_curves(history),
        ),
        PaperFigure(
            "fig11_confusion_matrix", "Figure 11: confusion matrix",
            f"Fig. 11 of the paper: true classes in rows, what the model said in columns; {tested}, "
            f"{pooled.right} of {pooled.clips} tests right.", confusion_matrix(pooled),
        ),
    ]  # fmt: skip


def mean_history(files: Sequence[Path]) -> list[dict[str, float]]:
    """The mean of several histories, epoch by epoch over the runs that reached it.

    Raises:
        DataError: if a history is missing or is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = [Path(folder) / name for name in ("a.csv", "b.csv")]
    ...     for file, loss in zip(files, (1.0, 2.0)):
    ...         _ = file.write_text(f"epoch,train_loss,val_loss\\n1,{loss},\\n")
    ...     mean_history(files)
    [{'epoch': 1.0, 'train_loss': 1.5}]
    """
    if not files:
        raise DataError("no training history to draw")
    values: dict[float, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        for row in read_history(file):
            for name, value in row.items():
                values[row["epoch"]][name].append(value)
    return [{name: statistics.fmean(found) for name, found in columns.items()} for _, columns in sorted(values.items())]


def _parts(jobs: Sequence[Job]) -> str:
    folds, seeds = len(jobs[0].folds), len(jobs)
    words = [f"{folds} folds"] if folds > 1 else []
    return " × ".join(words + ([f"{seeds} seeds"] if seeds > 1 else []))
