"""The report of a run, with thumbnails of the clips it names; `evaluation` itself opens no video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kinegru.data.catalog import Catalog
from kinegru.errors import VideoError
from kinegru.evaluation.context import RunContext
from kinegru.evaluation.metrics import Metrics
from kinegru.evaluation.predictions import Predictions
from kinegru.evaluation.report import write_report
from kinegru.video.reader import read_clip


def write_run_report(
    run: Path,
    predictions: Predictions,
    context: RunContext,
    catalog: Catalog,
    history: Path | None,
    metrics: Metrics | None = None,
) -> Path:
    """Write `report.html` and `figures/` to `run`; gives the report's path. `metrics` are those of the predictions."""
    paths = {catalog.name(clip): clip.path for clip in catalog.clips}

    def thumbnails(name: str) -> list[np.ndarray]:
        try:
            return list(read_clip(paths[name], 4)[0])
        except (KeyError, VideoError):
            return []

    return write_report(run, predictions, history, context, thumbnails, metrics)
