"""Waiting for what a process writes while it runs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_while_running(process: subprocess.Popen, ready: Callable[[], T]) -> T:
    """What `ready` gives, as soon as it is true; the process has to run until then, five minutes at most."""
    began = time.monotonic()
    while not (found := ready()):
        assert process.poll() is None and time.monotonic() - began < 300
        time.sleep(0.02)
    return found
