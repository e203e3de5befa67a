"""What people see while they wait: messages and progress bars with time left, all on stderr.

stdout belongs to results. Where stderr is no terminal (a log file, a scheduler), a bar becomes a line now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
SECONDS_BETWEEN_LINES = 20.0


class Track(Protocol):
    """Tells how far work is: `track(done, total)` or `track(done, total, text)`."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


def say(message: str) -> None:
    """A line for people, on stderr; shown as it is, without markup."""
    console.print(message, markup=False)


@contextmanager
def progress_bar(title: str, quiet: bool = False) -> Iterator[Track]:
    """A progress bar with time left for the length of the block; `quiet` shows nothing.

    >>> with progress_bar("reading", quiet=True) as track:
    ...     track(1, 2, "a.avi")
    """
    if quiet:
        yield lambda done, total, text="": None
    elif console.is_terminal:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[text]}"),
            console=console, transient=False,
        ) as bars:  # fmt: skip
            task = bars.add_task(title, total=None, text="")
            yield lambda done, total, text="": bars.update(task, completed=done, total=total, text=text)
    else:
        yield _Lines(title)


class _Lines:
    """The same as plain lines, not more often than people read a log."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.began = self.printed = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done - 1  # work that a resumed run did before does not count towards the speed
        if done < total and now - self.printed < SECONDS_BETWEEN_LINES:
            return
        self.printed = now
        left = (now - self.began) / max(1, done - self.first) * (total - done)
        say(f"{self.title}: {done}/{total}, {duration(left)} left {text}".rstrip())


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(42), duration(250), duration(7300)
    ('42 s', '4 min 10 s', '2 h 1 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
