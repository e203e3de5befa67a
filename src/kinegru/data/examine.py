"""Decode many files in worker processes, whatever is wrong with them: a crash is an answer too.

* One decoder thread a worker. A codec that takes its process down breaks the whole pool: the files that were under way
  are then tried one by one in processes of their own, so that the culprit is known, and a new pool goes on.
* Nothing but frames is wanted, so nothing is converted to RGB.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from kinegru.errors import UsageError, VideoError
from kinegru.files import digest_of_file
from kinegru.video.container import shown
from kinegru.video.reader import VideoInfo, probe


class Examination(NamedTuple):
    """What decoding one file gave: `info` where at least a frame came out, else `error`."""

    info: VideoInfo | None
    bytes: int = 0
    digest: str | None = None  # BLAKE2b of the file
    error: tuple[str, str] | None = None  # kind ("empty", "missing", "mis_cased", "unreadable"), message


Work = Callable[[Path], Examination]


def examine(path: Path) -> Examination:
    """Hash and decode one file; whatever is wrong with it is in the answer.

    >>> examine(Path("nowhere.mp4")).error
    ('missing', 'no such file')
    """
    return attempt(path, probe, hashed=True)


def attempt(path: Path, work: Callable[[Path], VideoInfo | None], hashed: bool = False) -> Examination:
    """What `work` finds out of a file that is there and not empty; whatever it raises is in the answer.

    >>> attempt(Path("nowhere.mp4"), probe).error
    ('missing', 'no such file')
    """
    size, digest = 0, None
    try:
        if path.exists() and not path.is_file():
            return Examination(None, error=("unreadable", "is no file"))
        size = path.stat().st_size
        if size == 0:
            return Examination(None, error=("empty", "0 bytes"))
        digest = digest_of_file(path) if hashed else None
        return Examination(work(path), size, digest)
    except FileNotFoundError:
        other = _other_case(path)
        error = ("missing", "no such file") if other is None else ("mis_cased", f"on disk it is {other}")
    except VideoError as failure:  # "<path>: <cause>"
        error = ("unreadable", str(failure).removeprefix(f"{shown(path)}: "))
    except OSError as failure:
        error = ("unreadable", (failure.strerror or type(failure).__name__).lower())
    except Exception as failure:  # a file that the reader does not foresee is named like the others
        error = ("unreadable", f"{type(failure).__name__}: {failure}".partition("\n")[0])
    return Examination(None, size, digest, error)


def examine_all(
    paths: Sequence[Path],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    work: Work = examine,
) -> list[Examination]:
    """Examine every path, in `workers` processes (None: one a core, 0: in this process); answers in the paths' order.

    `progress(done, total)` is called after each. Raises UsageError where worker processes cannot start.

    >>> [examination.error[0] for examination in examine_all([Path("a.mp4"), Path("b.mp4")], workers=0)]
    ['missing', 'missing']
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 0:
        raise UsageError(f"workers is {workers}; it must be 0 or more")
    if workers and paths:
        answers = _in_processes(paths, min(workers, len(paths)), work)
    else:
        answers = ((i, work(path)) for i, path in enumerate(paths))
    found: dict[int, Examination] = {}
    for i, examination in answers:
        found[i] = examination
        if progress is not None:
            progress(len(found), len(paths))
    return [found[i] for i in range(len(paths))]


def _in_processes(paths: Sequence[Path], workers: int, work: Work) -> Iterator[tuple[int, Examination]]:
    """Answers as they come, each with the number of its path."""
    waiting = deque(range(len(paths)))
    running: dict[Future[Examination], int] = {}
    pool = _new_pool(workers)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        message = "worker processes cannot start; call this under `if __name__ == '__main__':`, or with workers=0"
        raise UsageError(message) from None
    try:
        while waiting or running:
            try:
                while waiting and len(running) < 2 * workers:
                    running[pool.submit(work, paths[waiting[0]])] = waiting[0]
                    waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    answer = future.result()
                    yield running.pop(future), answer
            except BrokenProcessPool:
                pool.shutdown(wait=True)
                for future, i in running.items():
                    yield i, _alone(paths[i], work) if future.exception() else future.result()
                running.clear()
                pool = _new_pool(workers)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(path: Path, work: Work) -> Examination:
    """Examine a file in a process of its own; one that takes it down is unreadable."""
    with _new_pool(1) as pool:
        try:
            return pool.submit(work, path).result()
        except BrokenProcessPool:
            return Examination(None, path.stat().st_size, error=("unreadable", "crashes the decoder"))


def _new_pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads
    return ProcessPoolExecutor(workers, context, initializer=_ignore_interrupt)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked


def _other_case(path: Path) -> str | None:
    """The path that is there and differs from `path` in upper and lower case only."""
    base = Path(path.anchor)
    for part in path.relative_to(base).parts:
        if not os.path.lexists(base / part):
            try:
                names = sorted(inner.name for inner in base.iterdir())
            except OSError:
                return None
            part = next((name for name in names if name.casefold() == part.casefold()), "")
            if not part:
                return None
        base /= part
    return base.as_posix() if base != path else None  # the same: a link to nowhere
