"""Runs jobs one after the other: finished ones are passed over, begun ones go on, a failed one does not stop the rest.

One unit of work is a fold: one call of `kinegru train`'s function. A job's folds are then pooled as that verb does.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from kinegru.console import Track, say
from kinegru.data.catalog import Catalog
from kinegru.errors import KineGRUError
from kinegru.evaluation.predictions import Predictions
from kinegru.files import atomic_write
from kinegru.reproduction.job import Job
from kinegru.reproduction.protocol import Protocol
from kinegru.runs.fold import RunResult, finished_run
from kinegru.runs.pool import pool_runs
from kinegru.runs.train import train
from kinegru.training.interrupts import Interrupted
from kinegru.training.settings import TrainSettings

SecondsLeft = Callable[[], dict[Path, float]]  # a job's folder -> seconds that its unfinished folds will take
Failed = dict[Path, str]  # a job's folder -> why it failed
AfterJob = Callable[[Failed], object]


def run_jobs(
    jobs: Sequence[Job],
    protocol: Protocol,
    catalog: Catalog,
    track: Track,
    left: SecondsLeft,
    after_job: AfterJob,
    keep_models: bool = False,
) -> Failed:
    """Run what is not finished; gives the folders of the jobs that failed, each with the reason.

    `after_job` is called with those so far whenever a job was run, so that a table can be looked at while it grows.
    Raises `Interrupted` after Ctrl-C or SIGTERM: the same call goes on from there.
    """
    failed: Failed = {}
    total = sum(len(job.folds) for job in jobs)
    passed = 0
    for number, job in enumerate(jobs, start=1):
        title = f"{job.planned.row.name}, seed {job.seed}"
        if job.state() == "finished":
            passed += len(job.folds)
            continue
        if job.state() == "changed":
            say(f"{job.folder}: {job.why_again()}")
        try:
            for done in range(len(job.folds)):
                track(passed + done, total, title, left=_sum_left(left(), jobs, failed))
                _run_fold(job, done, protocol, keep_models, f"{title} (job {number} of {len(jobs)})")
            pool_job(job, protocol, catalog)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(
                f"stopped in {title}; what is finished is kept, the same command goes on from there"
            ) from None
        except Exception as error:  # a package that is missing, memory that ran out: the other rows can still be run
            failed[job.folder] = note_failure(job, error)
            say(f"{title}: failed: {failed[job.folder]}")
        else:
            (job.folder / "failure.txt").unlink(missing_ok=True)
        passed += len(job.folds)
        after_job(failed)
    track(total, total, left=0.0)
    return failed


def _run_fold(job: Job, place: int, protocol: Protocol, keep_models: bool, title: str) -> None:
    job.open()
    fold = job.folds[place]
    if finished_run(job.fold_folder(fold)) is not None:
        return
    say(f"{title}: {fold.name}" + (f", fold {place + 1} of {len(job.folds)}" if len(job.folds) > 1 else ""))
    began = time.monotonic()
    m = train_fold(job, place, protocol, keep_models).metrics
    say(f"  {m['right']} of {m['clips']} right, {time.monotonic() - began:.0f} s")


def train_fold(
    job: Job, place: int, protocol: Protocol, keep_models: bool, settings: TrainSettings | None = None
) -> RunResult:
    """Train and test one fold of an opened job, or go on with it; its result lies in the fold's folder."""
    fold = job.folds[place]
    folder = job.fold_folder(fold)
    result = train(
        protocol.data,
        out=str(folder),
        split=fold.name,
        group_pattern=protocol.group_pattern,
        lists=protocol.lists,
        resume=True,
        report=len(job.folds) == 1,
        settings=settings or job.settings,
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # a finished run never goes on
    if not keep_models:
        (folder / "model.safetensors").unlink(missing_ok=True)
    return result.folds[0]


def pool_job(job: Job, protocol: Protocol, catalog: Catalog) -> None:
    """The folds' tests as one result in the job's folder; of a single fold that is there already."""
    if len(job.folds) > 1 and job.state() != "finished":
        results = [_finished(job.fold_folder(fold)) for fold in job.folds]
        own = protocol.of(job.planned.row)
        command = own.command(job.settings, f"runs/{job.planned.slug}-seed-{job.seed}")
        pool_runs(catalog, results, job.settings, job.folder, own.split, command)


def _finished(folder: Path) -> RunResult:
    result = finished_run(folder)
    assert result is not None, folder
    return result


def _sum_left(by_job: dict[Path, float], jobs: Sequence[Job], failed: Failed) -> float:
    return sum(by_job.get(job.folder, 0.0) for job in jobs if job.folder not in failed)


def note_failure(job: Job, error: Exception) -> str:
    """Why a job failed, in one line; where it is no failure that a user can meet, the traceback goes to a file."""
    if isinstance(error, KineGRUError):
        return str(error)
    with atomic_write(job.folder / "failure.txt") as file:
        file.write("".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def read_predictions(job: Job) -> Predictions | None:
    """The table of a finished job, None where it is not finished."""
    return Predictions.read(job.folder / "predictions.csv") if job.state() == "finished" else None
