"""What people see while they wait: messages and progress bars with time left, all on stderr.

stdout belongs to results. Where stderr is no terminal (a log file, a scheduler), a bar becomes a line now and then.
A bar that is opened while another is shown joins it below, and goes when it is done.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
SECONDS_BETWEEN_LINES = 20.0


class Track(Protocol):
    """Tells how far work is: `track(done, total)` or `track(done, total, text)`; `left` is in seconds, where known."""

    def __call__(self, done: int, total: int, text: str = "", left: float | None = None) -> None: ...


def say(message: str) -> None:
    """A line for people, on stderr; shown as it is, without markup."""
    console.print(message, markup=False)


def quieten(debug: bool) -> None:
    """Of the libraries' messages only those that people need, in this process; with `debug` nearly all."""
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("kinegru").setLevel(logging.INFO)
    if not debug:
        warnings.filterwarnings("ignore")
        for name in ("accelerate", "torch.distributed", "matplotlib", "timm", "huggingface_hub"):
            logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def errors_only(name: str) -> Iterator[None]:
    """Of the logger with this name only errors, for the length of the block.

    >>> with errors_only("kinegru"):
    ...     logging.getLogger("kinegru.models").isEnabledFor(logging.WARNING)
    False
    """
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def progress_bar(title: str, quiet: bool = False) -> Iterator[Track]:
    """A progress bar with time left for the length of the block; `quiet` shows nothing.

    >>> with progress_bar("reading", quiet=True) as track:
    ...     track(1, 2, "a.avi")
    """
    if quiet:
        yield lambda done, total, text="", left=None: None
    elif console.is_terminal:
        with _bars() as bars:
            task = bars.add_task(title, total=None, text="", ready_at=None)

            def track(done: int, total: int, text: str = "", left: float | None = None) -> None:
                ready_at = None if left is None else time.monotonic() + left
                bars.update(task, completed=done, total=total, text=text, ready_at=ready_at)

            yield track
            if len(bars.tasks) > 1:
                bars.remove_task(task)
    else:
        yield _Lines(title)


_shown: list[Progress] = []  # the bars on the terminal: at most one group


@contextmanager
def _bars() -> Iterator[Progress]:
    """The group of bars that is shown, else a new one for the length of the block."""
    if _shown:
        yield _shown[0]
        return
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), _TimeLeft(), TextColumn("{task.fields[text]}", markup=False),
        console=console, transient=False,
    ) as bars:  # fmt: skip
        _shown.append(bars)
        try:
            yield bars
        finally:
            _shown.clear()


class _TimeLeft(TimeRemainingColumn):
    """What the work itself says of the time left, else what its speed so far says."""

    def render(self, task: Task) -> Text:
        ready_at = task.fields.get("ready_at")
        if ready_at is None or task.finished:
            return super().render(task)
        return Text(duration(max(0.0, ready_at - time.monotonic())), style="progress.remaining")


class _Lines:
    """The same as plain lines, not more often than people read a log."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.began = self.printed = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int, text: str = "", left: float | None = None) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = max(0, done - 1)  # work that a resumed run did before does not count towards the speed
        if left is None and done < total and now - self.printed < SECONDS_BETWEEN_LINES:
            return
        self.printed = now
        if left is None and done > self.first:
            left = (now - self.began) / (done - self.first) * (total - done)
        time_left = "" if left is None else f", {duration(left)} left"
        say(f"{self.title}: {done}/{total}{time_left} {text}".rstrip())


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


def counted(number: int, noun: str) -> str:
    """So many of something.

    >>> counted(1, "frame"), counted(2, "frame")
    ('1 frame', '2 frames')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """Seconds as a player shows them.

    >>> clock(5.04), clock(59.96), clock(3725.5)
    ('0:05.0', '1:00.0', '1:02:05.5')
    """
    whole, tenth = divmod(round(seconds * 10), 10)
    hours, minutes, seconds = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return f"{text}.{tenth}"
