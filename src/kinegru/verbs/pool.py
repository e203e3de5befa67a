"""Many folds, one result: the tests of all folds in one table with one report."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from kinegru.data.catalog import Catalog
from kinegru.evaluation.context import RunContext
from kinegru.evaluation.metrics import compute_metrics
from kinegru.evaluation.predictions import Predictions
from kinegru.training.settings import TrainSettings
from kinegru.verbs.reporting import write_run_report
from kinegru.verbs.run import RunResult, finish, stored


def pool_runs(
    catalog: Catalog, results: Sequence[RunResult], settings: TrainSettings, run: Path, split: str, command: str
) -> RunResult:
    """The tests of all folds as one table, with one report; returns the pooled result."""
    predictions = Predictions.concatenate([Predictions.read(result.run / "predictions.csv") for result in results])
    contexts = [stored(result.run)["context"] for result in results]
    siblings = [result.siblings for result in results]
    bad_clips = {name: why for result in results for name, why in result.bad_clips.items()}

    def mean(name: str) -> int:
        return round(statistics.mean(context[name] or 0 for context in contexts))

    context = dataclasses.replace(
        RunContext.of(contexts[0]),
        command=command,
        date=time.strftime("%Y-%m-%d %H:%M"),
        notes=(*catalog.notes, f"{len(results)} models, one a fold; sizes of training and validation are means"),
        split=split,
        siblings=None if None in siblings else sum(s for s in siblings if s is not None),
        train_clips=mean("train_clips"),
        validation_clips=mean("validation_clips"),
        train_groups=mean("train_groups"),
        validation_groups=mean("validation_groups"),
        test_groups=None,
        epochs=mean("epochs"),
        best_epoch=None,
        seconds=sum(context["seconds"] or 0 for context in contexts),
        bad_clips=bad_clips,
    )
    metrics = compute_metrics(predictions, seed=settings.seed).to_dict()
    predictions.write(run / "predictions.csv")
    write_run_report(run, predictions, context, catalog, None)
    result = RunResult(run, split, context.siblings, metrics, bad_clips)
    finish(result, context)
    return result
