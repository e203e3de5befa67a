"""Small models whose parts all matter, and frames for them."""

from __future__ import annotations

import numpy as np
import torch

from kinegru.models.zoo import create_model
from kinegru.video.reader import iter_frames
from kinegru.video.synthetic import example_clip

SMALL = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}
LABELS = ("a", "b", "c")


def small_model(name: str = "sc_xception_convgru_mcam_aff", **options):
    torch.manual_seed(0)
    model = create_model(name, len(LABELS), **(SMALL | options))
    for parameter in model.parameters():  # masks that differ from one half, states that differ from zero
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return model.eval()


def example_frames(count: int) -> np.ndarray:
    frames = list(iter_frames(example_clip()))
    return np.stack([frames[i % len(frames)] for i in range(count)])
