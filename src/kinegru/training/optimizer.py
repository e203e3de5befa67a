"""Adam over the trained parameters, the encoder's at a rate of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kinegru.training.settings import TrainSettings


def make_optimizer(recognizer: nn.Module, settings: TrainSettings) -> torch.optim.Adam:
    """Adam, or AdamW where there is a weight decay.

    A group's `factor` is what the rate of a step is multiplied by: 1, or `encoder_rate` for the encoder's parameters.

    >>> model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "classifier": nn.Linear(2, 2)})
    >>> [group["factor"] for group in make_optimizer(model, TrainSettings(encoder_rate=0.1)).param_groups]
    [0.1, 1.0]
    """
    groups: dict[float, list[nn.Parameter]] = {settings.encoder_rate: [], 1.0: []}
    for name, parameter in recognizer.named_parameters():
        if parameter.requires_grad:
            groups[settings.encoder_rate if name.startswith("encoder.") else 1.0].append(parameter)
    found: list[dict[str, Any]] = [{"params": group, "factor": factor} for factor, group in groups.items() if group]
    kind = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
    return kind(found, lr=settings.learning_rate, weight_decay=settings.weight_decay)
