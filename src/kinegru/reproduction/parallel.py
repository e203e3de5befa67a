"""Runs jobs side by side, for a machine that one training does not fill: a big GPU, many cores.

Each fold is trained by one of several processes, in the order of the jobs; what they promise is what `run_jobs`
promises, but for the order in which rows are finished. Features are computed by one process while the others wait.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from kinegru.console import Track, console, say
from kinegru.data.catalog import Catalog
from kinegru.reproduction.plan import Job, Protocol
from kinegru.reproduction.runner import AfterJob, Failed, SecondsLeft, note_failure, pool_job, train_fold
from kinegru.training.interrupts import Interrupted, stop_requests
from kinegru.verbs.run import RunResult, finished_run

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
            say(f"{job.folder}: run again, because {'; '.join(job.changes())}")
        job.open()
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (_share(processes),))
    with stop_requests() as stop:
        try:
            progress = _Progress(pool, processes, todo, protocol, catalog, keep_models)
            return progress.run(track, left, after_job, sum(len(job.folds) for job in jobs), stop)
        finally:
            for child in multiprocessing.active_children():  # after a stop they save their state
                child.terminate()
            pool.shutdown(cancel_futures=True)


class _Progress:
    def __init__(
        self, pool: ProcessPoolExecutor, processes: int, jobs: Sequence[Job], protocol: Protocol, catalog: Catalog,
        keep_models: bool,
    ) -> None:  # fmt: skip
        self.pool, self.processes, self.protocol, self.catalog = pool, processes, protocol, catalog
        self.failed: Failed = {}
        self.folds: dict[Future[RunResult], tuple[Job, int]] = {}
        self.pooled: dict[Future[None], Job] = {}
        self.left = {job.folder: len(job.folds) for job in jobs}
        for job in jobs:
            settings = job.settings
            if settings.workers is None and (settings.profile == "full" or settings.cache == "off"):
                settings = dataclasses.replace(
                    settings, workers=_share(processes)
                )  # each decodes
            for place, fold in enumerate(job.folds):
                if finished_run(job.fold_folder(fold)) is None:
                    future = pool.submit(train_fold, job, place, protocol, keep_models, settings)
                    self.folds[future] = (job, place)
                else:
                    self._folds_done(job)

    def run(self, track: Track, left: SecondsLeft, after_job: AfterJob, total: int, stop: threading.Event) -> Failed:
        shown = 0.0
        while self.folds or self.pooled:
            running: list[Future] = [*self.folds, *self.pooled]
            done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            if stop.is_set():
                raise Interrupted("stopped; what is finished is kept, the same command goes on from there")
            for future in done:
                self._take(future)
            if done:
                seconds = sum(s for folder, s in left().items() if folder not in self.failed)
                track(total - len(self.folds), total, left=seconds / self.processes)
            if done and time.monotonic() - shown > SECONDS_BETWEEN_TABLES:
                after_job(self.failed)
                shown = time.monotonic()
        after_job(self.failed)
        track(total, total, left=0.0)
        return self.failed

    def _take(self, future: Future) -> None:
        if future in self.pooled:
            self._outcome(self.pooled.pop(future), future)
            return
        if future not in self.folds:  # cancelled with another fold of its job
            return
        job, place = self.folds.pop(future)
        if self._outcome(job, future):
            m = future.result().metrics
            title = f"{job.planned.row.name}, seed {job.seed}, {job.folds[place].name}"
            say(f"{title}: {m['right']} of {m['clips']} right")
            self._folds_done(job)

    def _folds_done(self, job: Job) -> None:
        self.left[job.folder] -= 1
        if not self.left[job.folder]:
            self.pooled[self.pool.submit(pool_job, job, self.protocol, self.catalog)] = job

    def _outcome(self, job: Job, future: Future) -> bool:
        """Whether it went well; if not, the other folds of the job are not begun."""
        error = future.exception()
        if error is None:
            return True
        if not isinstance(error, Exception):
            raise error
        if job.folder not in self.failed:
            self.failed[job.folder] = note_failure(job, error)
            say(f"{job.planned.row.name}, seed {job.seed}: failed: {self.failed[job.folder]}")
        for other in [f for f, (mine, _) in self.folds.items() if mine is job and f.cancel()]:
            del self.folds[other]
        return False


def _share(processes: int) -> int:
    """Of the cores, at least one."""
    return max(1, (os.cpu_count() or 1) // processes)


def _begin(threads: int) -> None:
    """Of each process: quiet, with its share of the cores; Ctrl-C is for the first process, which passes it on."""
    import torch

    torch.set_num_threads(threads)
    console.quiet = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Stop when the first process is gone, even if it was killed and could not say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
