"""Times that can be believed: sides take turns in one run, medians with quartiles, and arithmetic and bytes counted.

* The sides of a comparison alternate within each round, in an order that rotates: what else the machine does meets all.
* The ratio of two sides is the median over rounds of the ratio within a round, for neighbours in time share a load.
* On a CPU a lap has processor seconds beside wall seconds: other programs disturb them little. On a GPU the wall
  seconds are those between two CUDA events.
* A side that fails (out of memory, does not compile) is a line in the result, and the others go on.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kinegru.errors import KineGRUError

Call = Callable[[], Any]


@dataclass
class Side:
    """What was measured of one side; `error` is a line where it could not be."""

    seconds: list[float] = field(default_factory=list)  # of the wall clock, or between CUDA events
    processor: list[float] = field(default_factory=list)  # of all threads of this process
    warm_up: float = 0.0  # seconds of the calls before, compilation included
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Medians, quartiles and how many laps, or the error.

        >>> Side([1.0, 3.0, 2.0], [0.5, 0.5, 0.5]).to_dict()
        {'seconds': 2.0, 'quartiles': [1.5, 2.5], 'processor seconds': 0.5, 'laps': 3, 'warm-up seconds': 0.0}
        """
        if self.error is not None:
            return {"error": self.error}
        return {
            "seconds": statistics.median(self.seconds),
            "quartiles": quartiles(self.seconds),
            "processor seconds": statistics.median(self.processor),
            "laps": len(self.seconds),
            "warm-up seconds": round(self.warm_up, 2),
        }


@dataclass(frozen=True)
class Ratio:
    """How many times as long another side takes: the median over rounds, and its quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g}x ({self.low:.3g} to {self.high:.3g})"


def quartiles(values: list[float]) -> list[float]:
    """The first and the third quartile.

    >>> quartiles([4.0, 1.0, 3.0, 2.0, 5.0])
    [2.0, 4.0]
    """
    if len(values) == 1:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]


def ratio(slow: list[float], fast: list[float]) -> Ratio:
    """Of two sides that took turns: slow / fast in each round, then the median.

    >>> str(ratio([4.0, 9.0, 2.0], [2.0, 3.0, 1.0]))
    '2x (2 to 2.5)'
    """
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    low, high = quartiles(ratios)
    return Ratio(statistics.median(ratios), low, high)


def lap(call: Call, cuda: bool = False) -> tuple[float, float]:
    """Seconds and processor seconds of one call; with `cuda` the seconds are between two events on the card."""
    busy = time.process_time()
    if cuda:
        import torch

        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        call()
        ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1e3, time.process_time() - busy
    start = time.perf_counter()
    call()
    return time.perf_counter() - start, time.process_time() - busy


def interleave(
    sides: Mapping[str, Call], rounds: int = 7, seconds: float = 60.0, warm_up: int = 1, cuda: bool = False
) -> dict[str, Side]:
    """Let the sides take turns for so many rounds; after 3 they end early where `seconds` are over.

    >>> found = interleave({"sum": lambda: sum(range(1000)), "broken": lambda: 1 / 0}, rounds=3)
    >>> len(found["sum"].seconds), found["broken"].error
    (3, 'ZeroDivisionError: division by zero')
    """
    found = {name: Side() for name in sides}
    for name, call in sides.items():
        begun = time.perf_counter()
        _attempt(found[name], lambda call=call: [lap(call, cuda) for _ in range(warm_up)])  # type: ignore[misc]
        found[name].warm_up = time.perf_counter() - begun
    begun = time.perf_counter()
    names = [name for name in sides if found[name].error is None]
    for turn in range(rounds if names else 0):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if found[name].error is None and (taken := _attempt(found[name], lambda n=name: lap(sides[n], cuda))):  # type: ignore[misc]
                found[name].seconds.append(taken[0])
                found[name].processor.append(taken[1])
        if turn >= 2 and time.perf_counter() - begun > seconds:
            break
    return found


def _attempt(side: Side, call: Call) -> Any:
    try:
        return call()
    except Exception as error:
        side.error = one_line(error)
        return None


def one_line(error: BaseException, most: int = 200) -> str:
    """An exception as a line.

    >>> one_line(ValueError("no maps\\n  at all"))
    'ValueError: no maps at all'
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass(frozen=True)
class ProcessRun:
    """What a process took from its start to its end."""

    seconds: float
    processor: float  # seconds, of all its threads
    peak: int  # bytes of memory at its highest


def run_process(command: Sequence[str]) -> ProcessRun:
    """Run a command as a fresh process. Raises KineGRUError with its last line where it fails.

    >>> run_process([sys.executable, "-c", "pass"]).peak > 1_000_000
    True
    """
    launched = [sys.executable, "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launched, capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
    if done.returncode:
        raise KineGRUError(f"{' '.join(command)}: cannot be run ({last})")
    seconds, processor, peak, status = json.loads(done.stdout)
    if status:
        raise KineGRUError(f"{' '.join(command)}: ended with status {status} ({last})")
    return ProcessRun(seconds, processor, 1024 * peak)


# A process begins with the peak of the one that started it: a small one in between, or every peak would be ours.
_LAUNCHER = """
import json, os, subprocess, sys, time
begun = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - begun
processor = usage.ru_utime + usage.ru_stime
print(json.dumps([seconds, processor, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""
