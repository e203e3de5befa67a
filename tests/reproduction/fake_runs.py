"""A data set of empty files and finished runs that nobody trained: what the tables say of them is known beforehand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kinegru.data.catalog import Catalog, Clip, load_catalog
from kinegru.evaluation.context import RunContext
from kinegru.evaluation.predictions import Predictions
from kinegru.reproduction.job import Job

PATTERN = r"/([a-z]+)_"
PEOPLE = ("ann", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida")
SEVEN = ("bend", "jack", "jump", "run", "side", "skip", "walk")

Right = Callable[[Job, str], bool]  # a job and a clip's name -> whether it was recognised


def write_empty_clips(folder: Path, actions: Sequence[str] = SEVEN, people: Sequence[str] = PEOPLE) -> Catalog:
    """FOLDER/ACTION/PERSON_ACTION.mp4 without content, and the catalog of them."""
    for action in actions:
        (folder / action).mkdir(parents=True, exist_ok=True)
        for person in people:
            (folder / action / f"{person}_{action}.mp4").touch()
    return load_catalog(folder, PATTERN)


def write_job(job: Job, catalog: Catalog, right: Right, seconds: float = 60.0) -> None:
    """The job's folder as a finished run leaves it: predictions and metrics of every fold, and of all pooled."""
    job.open()
    tables = []
    for fold in job.folds:
        table = _table(job, catalog, fold.test, fold.name, right)
        _write(job.fold_folder(fold), table, seconds)
        history = "epoch,train_loss,train_top1,train_top5,val_loss,val_top1,val_top5,learning_rate,seconds\n"
        rows = [f"{e},{2 / e},{1 - 1 / e},1,{2.5 / e},{0.9 - 0.8 / e},1,0.001,1\n" for e in range(1, 9)]
        (job.fold_folder(fold) / "history.csv").write_text(history + "".join(rows))
        tables.append(table)
    if len(job.folds) > 1:
        _write(job.folder, Predictions.concatenate(tables), seconds * len(job.folds))


def _table(job: Job, catalog: Catalog, clips: Sequence[Clip], fold: str, right: Right) -> Predictions:
    classes = list(catalog.labels)
    scores = np.full((len(clips), len(classes)), 0.05, np.float32)
    for row, clip in enumerate(clips):
        true = classes.index(clip.label)
        name = catalog.name(clip)
        scores[row, true if right(job, name) else (true + 1) % len(classes)] = 1 - 0.05 * (len(classes) - 1)
    return Predictions(
        classes, [catalog.name(clip) for clip in clips], [clip.label for clip in clips],
        [clip.group for clip in clips], scores, [fold] * len(clips),
    )  # fmt: skip


def _write(folder: Path, table: Predictions, seconds: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table.write(folder / "predictions.csv")
    context = RunContext(seconds=seconds, machine="a machine", siblings=0)
    values = {"run": str(folder), "split": "", "siblings": 0, "metrics": {}, "bad_clips": {}}
    (folder / "metrics.json").write_text(json.dumps({**values, "context": dataclasses.asdict(context)}))
