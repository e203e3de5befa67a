"""Many folds, one result: the tests of all folds in one table with one report.

* Clips are counted over all folds, accuracies are not averaged. One mean stands beside the count: that over the
  official splits of UCF101 and HMDB51, because it is what publications on them give.
* A clip that stands in several test sets counts as one for the interval (`kinegru.evaluation.pooled`).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kinegru.data.catalog import Catalog
from kinegru.evaluation.context import RunContext
from kinegru.evaluation.metrics import Metrics
from kinegru.evaluation.pooled import pooled_metrics
from kinegru.evaluation.predictions import Predictions
from kinegru.runs.fold import RunResult, finish, stored
from kinegru.runs.reporting import write_run_report
from kinegru.training.settings import TrainSettings


def pool_runs(
    catalog: Catalog, results: Sequence[RunResult], settings: TrainSettings, run: Path, split: str, command: str
) -> RunResult:
    """The tests of all folds as one table, with one report; returns the pooled result.

    For `official` the result's metrics also hold `mean_over_splits`, see there.
    """
    predictions = Predictions.concatenate([Predictions.read(result.run / "predictions.csv") for result in results])
    contexts = [stored(result.run)["context"] for result in results]
    siblings = [result.siblings for result in results]
    bad_clips = {name: why for result in results for name, why in result.bad_clips.items()}
    measured = pooled_metrics(predictions, settings.seed)
    metrics = measured.to_dict()
    notes = [*catalog.notes, f"{len(results)} models, one a fold; sizes of training and validation are means"]
    if split == "official":
        metrics["mean_over_splits"] = mean_over_splits(results)
        notes += mean_in_words(metrics["mean_over_splits"])
        notes.append(
            f"The count at the head pools all {measured.clips:,} tests: it weighs a split by its clips, so it is not "
            "that mean."
        )
    if measured.distinct_clips < measured.clips:
        notes.append(_repeats_in_words(predictions, measured))

    def mean(name: str) -> int | None:
        values = [context[name] for context in contexts]
        return None if None in values else round(statistics.mean(values))

    context = dataclasses.replace(
        RunContext.of(contexts[0]),
        command=command,
        date=time.strftime("%Y-%m-%d %H:%M"),
        notes=tuple(notes),
        split=split,
        dealt=None,
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
    predictions.write(run / "predictions.csv")
    write_run_report(run, predictions, context, catalog, None, measured)
    result = RunResult(run, split, context.siblings, metrics, bad_clips)
    finish(result, context)
    return result


def mean_over_splits(results: Sequence[RunResult]) -> dict[str, Any]:
    """`top1`, `top5` and `mean_class_accuracy`, each the mean of the splits' own, and `splits`: what each gave.

    No interval: the splits share training clips, so their results are not independent. Each split has its own.

    >>> wilson = {"low": 0.0, "high": 1.0}
    >>> shares = {"top5": 1.0, "mean_class_accuracy": 0.5, "wilson": wilson}
    >>> one = RunResult(Path("a"), "official:1", 0, {"right": 1, "clips": 2, "top1": 0.5, **shares})
    >>> two = RunResult(Path("b"), "official:2", 0, {"right": 4, "clips": 4, "top1": 1.0, **shares})
    >>> mean_over_splits([one, two])["top1"]
    0.75
    """
    kept = ("right", "clips", "top1", "top5", "mean_class_accuracy", "wilson")
    shares = ("top1", "top5", "mean_class_accuracy")
    return {name: statistics.fmean(result.metrics[name] for result in results) for name in shares} | {
        "splits": [{"split": result.split, **{name: result.metrics[name] for name in kept}} for result in results]
    }


def mean_in_words(mean: dict[str, Any]) -> list[str]:
    """Two sentences: what each split gave with its interval, and the mean accuracy over them."""
    each = "; ".join(
        f"{split['split']} {split['top1']:.1%} ({split['right']:,} of {split['clips']:,}, 95 % interval "
        f"{split['wilson']['low']:.1%} to {split['wilson']['high']:.1%})"
        for split in mean["splits"]
    )
    return [
        f"Each split by itself, intervals after Wilson: {each}.",
        f"Mean accuracy over the {len(mean['splits'])} official splits: {mean['top1']:.1%}, the figure customary for "
        "this data.",
    ]


def _repeats_in_words(predictions: Predictions, measured: Metrics) -> str:
    repeated = sum(count > 1 for count in Counter(predictions.labelled().clips).values())
    low, high = measured.wilson.low, measured.wilson.high
    stand = "clip stands" if repeated == 1 else "clips stand"
    return (
        f"{repeated:,} {stand} in more than one test set, and tests of one clip are not independent: of the count, "
        f"Wilson's interval for {measured.wilson.units:,} clips is {low:.1%} to {high:.1%}."
    )
