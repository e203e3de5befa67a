"""Small models and backbone weights for the model tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from kinegru.models import ActionRecognizer, create_model
from kinegru.models.backbones import build_backbone


def small_model(name: str = "mobilenet_convgru_mcam_aff", classes: int = 4, **options: Any) -> ActionRecognizer:
    """Any named model at a size that runs in milliseconds."""
    small = {"backbone": "mobilenetv2_050", "hidden_channels": 6, "width": 8, "dropout": 0.0}
    torch.manual_seed(0)
    return create_model(name, classes, **(small | options))


@pytest.fixture(scope="session")
def small() -> Callable[..., ActionRecognizer]:
    return small_model


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete MobileNetV2-0.5 weights file with lived-in batch norm statistics."""
    torch.manual_seed(11)
    net = build_backbone("mobilenetv2_050").net
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.safetensors"
    save_file(net.state_dict(), path)
    return path
