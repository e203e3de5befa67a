"""Folds trained side by side, for a machine that one training does not fill: a big GPU, many cores.

Each fold is trained by one of several processes; features that several need are computed by all of them together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from kinegru.console import console, quieten
from kinegru.training.interrupts import stop_requests
from kinegru.training.settings import TrainSettings

SECONDS_BETWEEN_WISHES = 1.0  # to stop


@contextlib.contextmanager
def fold_pool(processes: int) -> Iterator[tuple[ProcessPoolExecutor, threading.Event]]:
    """A pool whose processes share the cores and say nothing, and an event that Ctrl-C or SIGTERM sets.

    What still runs at the end of the block is asked to stop and saves its state.
    """
    debug = logging.getLogger().isEnabledFor(logging.INFO)
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _set_up, (_share(processes), debug))
    with stop_requests() as stop:
        try:
            yield pool, stop
        finally:
            children = multiprocessing.active_children()
            end = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
            end.start()
            while end.is_alive():  # the first lets a training save its state, one of the next ends the process
                for child in children:
                    child.terminate()
                end.join(SECONDS_BETWEEN_WISHES)


def with_share_of_decoders(settings: TrainSettings, processes: int) -> TrainSettings:
    """The settings of one of several trainings: where each decodes for itself, it has its share of the cores for it.

    >>> with_share_of_decoders(TrainSettings(profile="full"), 10_000).workers
    1
    """
    if settings.workers is None and (settings.profile == "full" or settings.cache == "off"):
        return dataclasses.replace(settings, workers=_share(processes))
    return settings


def _share(processes: int) -> int:
    """Of the cores, at least one."""
    return max(1, (os.cpu_count() or 1) // processes)


def _set_up(threads: int, debug: bool) -> None:
    """Of each process: quiet, with its share of the cores; Ctrl-C is for the first process, which passes it on."""
    import torch

    torch.set_num_threads(threads)
    console.quiet = True
    quieten(debug)
    if not debug:
        logging.getLogger("kinegru").setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Stop when the first process is gone, even if it was killed and could not say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while True:  # the first lets a training save its state, one of the next ends the process
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_BETWEEN_WISHES)
