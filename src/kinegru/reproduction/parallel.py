"""Runs jobs with several folds side by side, in the order of the jobs.

What `run_jobs` promises holds here too, but for the order in which rows are finished.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from kinegru.console import Track, say
from kinegru.data.catalog import Catalog
from kinegru.errors import KineGRUError
from kinegru.reproduction.job import Job
from kinegru.reproduction.protocol import Protocol
from kinegru.reproduction.runner import AfterJob, Failed, SecondsLeft, note_failure, pool_job, train_fold
from kinegru.runs.fold import RunResult
from kinegru.training.interrupts import Interrupted
from kinegru.training.side_by_side import fold_pool, with_share_of_decoders

SECONDS_BETWEEN_TABLES = 60.0  # drawing a table takes seconds, in which no result is taken in


def run_side_by_side(
    jobs: Sequence[Job],
    protocol: Protocol,
    catalog: Catalog,
    track: Track,
    left: SecondsLeft,
    after_job: AfterJob,
    processes: int,
    keep_models: bool = False,
) -> Failed:
    """As `run_jobs`, with `processes` folds at a time."""
    todo = [job for job in jobs if job.state() != "finished"]
    for job in todo:
        if job.state() == "changed":
            say(f"{job.folder}: {job.why_again()}")
        job.open()
    with fold_pool(processes) as (pool, stop):
        progress = _Progress(pool, processes, todo, protocol, catalog, keep_models)
        return progress.run(track, left, after_job, sum(len(job.folds) for job in jobs), stop)


class _Progress:
    """Tasks wait here and not in the pool, so that a finished job is pooled before another one is begun."""

    def __init__(
        self, pool: ProcessPoolExecutor, processes: int, jobs: Sequence[Job], protocol: Protocol, catalog: Catalog,
        keep_models: bool,
    ) -> None:  # fmt: skip
        self.pool, self.processes = pool, processes
        self.protocol, self.catalog, self.keep_models = protocol, catalog, keep_models
        self.failed: Failed = {}
        self.waiting: deque[tuple[Job, int | None]] = deque()  # a job and its fold, None: all are there, pool them
        self.running: dict[Future[RunResult | None], tuple[Job, int | None]] = {}
        self.left = {job.folder: 0 for job in jobs}  # folds to train
        for job in jobs:
            finished = job.finished_folds()
            places = [place for place, fold in enumerate(job.folds) if fold not in finished]
            self.left[job.folder] = len(places)
            self.waiting += [(job, place) for place in places] or [(job, None)]

    def run(self, track: Track, left: SecondsLeft, after_job: AfterJob, total: int, stop: threading.Event) -> Failed:
        shown = 0.0
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.processes:
                self._begin(*self.waiting.popleft())
            done, _ = wait(self.running, timeout=1.0, return_when=FIRST_COMPLETED)
            if stop.is_set():
                raise Interrupted("stopped; what is finished is kept, the same command goes on from there")
            for future in done:
                self._take(*self.running.pop(future), future)
            if done:
                seconds = sum(s for folder, s in left().items() if folder not in self.failed)
                track(total - sum(self.left.values()), total, left=seconds / self.processes)
            if done and time.monotonic() - shown > SECONDS_BETWEEN_TABLES:
                after_job(self.failed)
                shown = time.monotonic()
        after_job(self.failed)
        track(total, total, left=0.0)
        return self.failed

    def _begin(self, job: Job, place: int | None) -> None:
        future: Future
        if place is None:
            future = self.pool.submit(pool_job, job, self.protocol, self.catalog)
        else:
            settings = with_share_of_decoders(job.settings, self.processes)
            future = self.pool.submit(train_fold, job, place, self.protocol, self.keep_models, settings)
        self.running[future] = (job, place)

    def _take(self, job: Job, place: int | None, future: Future) -> None:
        title = f"{job.planned.row.name}, seed {job.seed}"
        try:
            result = future.result()
        except BrokenProcessPool:
            raise KineGRUError(
                f"a process ended in {title} or beside it, perhaps for want of memory; what is finished is kept, the "
                "same command goes on from there, with fewer --processes if it happens again"
            ) from None
        except Exception as error:  # the other rows can still be run, the rest of this one is not
            if job.folder not in self.failed:
                self.failed[job.folder] = note_failure(job, error)
                say(f"{title}: failed: {self.failed[job.folder]}")
            self.waiting = deque(task for task in self.waiting if task[0] is not job)
            self.left[job.folder] = 0
            return
        if place is not None and job.folder not in self.failed:
            m = result.metrics
            say(f"{title}, {job.folds[place].name}: {m['right']} of {m['clips']} right")
            self.left[job.folder] -= 1
            if not self.left[job.folder]:
                self.waiting.appendleft((job, None))
