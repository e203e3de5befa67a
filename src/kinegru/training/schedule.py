"""The course of the learning rate: a linear warm-up, then constant or half a cosine down to zero."""

from __future__ import annotations

import math

from kinegru.training.settings import TrainSettings


def learning_rate(settings: TrainSettings, step: int, steps_an_epoch: int) -> float:
    """Step size of optimiser step `step` (0 is the first) of the run.

    The warm-up ends with the full rate; the cosine would reach zero one step after the last.

    >>> settings = TrainSettings(epochs=2, learning_rate=1.0, schedule="cosine", warmup_epochs=1)
    >>> [round(learning_rate(settings, step, steps_an_epoch=2), 2) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warmup = settings.warmup_epochs * steps_an_epoch  # in steps
    if step < warmup:
        return settings.learning_rate * min(1.0, (step + 1) / warmup)
    if settings.schedule == "constant":
        return settings.learning_rate
    part = (step - warmup) / (settings.epochs * steps_an_epoch - warmup)  # 0 to 1
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * part))
