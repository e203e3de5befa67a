"""Ctrl-C and SIGTERM as a wish that the training loop grants at the end of a step."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

from kinegru.errors import KineGRUError

ONE_WISH = 1.0  # seconds; a launcher passes on the Ctrl-C that its processes got themselves


class Interrupted(KineGRUError):
    """The run was asked to stop and has saved its state."""


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C, later than a second after the first, stops at once.

    Outside of the main thread, which alone receives signals, the event is never set.

    >>> with stop_requests() as stop:
    ...     signal.raise_signal(signal.SIGINT)
    ...     stop.is_set()
    True
    """
    stop = threading.Event()
    asked: list[float] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: object) -> None:
        stop.set()
        asked.append(time.monotonic())
        if number == signal.SIGINT and asked[-1] - asked[0] > ONE_WISH:
            raise KeyboardInterrupt

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
