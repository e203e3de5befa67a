"""The order of clips: a permutation an epoch, batches of nearly equal size, each divided over processes.

The order depends on the seed and the epoch only. Batches of an epoch differ by at most one clip, and so do the
micro-batches of a batch, so no batch norm sees a stray small one. All processes take the same number of micro-batches,
because they meet in every one of them; where clips do not go round one is empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Step:
    """One optimiser step of one process: micro-batches of (index, view), and the clips of all processes together.

    A clip that turns out to be unreadable still counts among them: it weighs as much as any other, with a loss of 0.
    """

    micro_batches: list[list[tuple[int, int]]]
    clips: int


def plan_epoch(
    clips: int,
    batch: int,
    *,
    epoch: int,
    seed: int,
    views: int = 0,
    augmented: bool = True,
    micro_batch: int | None = None,
    rank: int = 0,
    world: int = 1,
) -> list[Step]:
    """The optimiser steps of an epoch (0 is the first) for one of `world` processes.

    With `views` > 0 the augmented views 1..views are taken in turn, each clip starting at another; with 0 every epoch
    has its own. Not `augmented` means view 0.

    >>> steps = plan_epoch(5, 2, epoch=0, seed=0, augmented=False)
    >>> sorted(index for step in steps for micro in step.micro_batches for index, view in micro)
    [0, 1, 2, 3, 4]
    >>> [step.clips for step in steps]
    [2, 2, 1]
    """
    order = np.random.default_rng([seed, epoch]).permutation(clips)
    batches = np.array_split(order, math.ceil(clips / batch)) if clips else []
    steps = []
    for members in batches:
        largest = math.ceil(len(members) / world)  # share of a process
        pieces = math.ceil(largest / (micro_batch or largest))
        micro_batches = [
            [(int(i), _view(int(i), epoch, views) if augmented else 0) for i in piece]
            for piece in np.array_split(members[rank::world], pieces)
        ]
        steps.append(Step(micro_batches, len(members)))
    return steps


def _view(index: int, epoch: int, views: int) -> int:
    return 1 + (index + epoch) % views if views else 1 + epoch
