"""Calls to be measured: made at their first use, or captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kinegru.measuring import Call


def lazily(make: Callable[[], Call]) -> Call:
    """A call that is made at its first use: then building, compiling and capturing belong to the warm-up.

    >>> double = lazily(lambda: lambda: 2)
    >>> double(), double()
    (2, 2)
    """
    made: list[Call] = []

    def call() -> Any:
        if not made:
            made.append(make())
        return made[0]()

    return call


def graphed(call: Call, warm_up: int = 3) -> Call:
    """`call` captured as a CUDA graph; the result's tensors are the same ones at every replay."""
    import torch

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(warm_up):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay() -> Any:
        graph.replay()
        return out

    return replay
