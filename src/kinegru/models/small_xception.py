"""A small Xception for demos and tests, trained from scratch in minutes: the large one at a tenth of its width.

Registered with timm as `xception_small`, so that it is a backbone like any other. As in Xception (Chollet, CVPR 2017)
two plain convolutions are followed by residual blocks of separable convolutions; `block12` is the last that halves the
maps, which is where SC-Xception's excitation goes.
"""

from __future__ import annotations

from typing import Any

import kinegru.models.torchvision_ops  # noqa: F401  isort: skip  (before timm)
from timm.models import register_model
from timm.models.xception import Block, SeparableConv2d
from torch import Tensor, nn


class SmallXception(nn.Module):
    """Frames (M, 3, S, S) -> maps (M, 160, S/16, S/16); 0.1 million parameters.

    >>> import torch
    >>> SmallXception().forward_features(torch.rand(2, 3, 96, 96)).shape
    torch.Size([2, 160, 6, 6])
    """

    num_features = 160

    def __init__(self, **options: Any) -> None:
        super().__init__()
        if options.get("pad_type"):
            raise ValueError("xception_small has one padding")
        mean_and_std = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        self.pretrained_cfg = {"input_size": (3, 96, 96), "interpolation": "bilinear", **mean_and_std}
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)  # S/2
        self.bn1 = nn.BatchNorm2d(16)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)  # S/4
        self.bn2 = nn.BatchNorm2d(32)
        self.act2 = nn.ReLU(inplace=True)
        self.block1 = Block(32, 64, 2, 1, start_with_relu=False)
        self.block2 = Block(64, 96, 2, 2)  # S/8
        self.block3 = Block(96, 96, 2, 1)
        self.block12 = Block(96, 128, 2, 2, grow_first=False)  # S/16
        self.conv3 = SeparableConv2d(128, self.num_features, 3, 1, 1)
        self.bn3 = nn.BatchNorm2d(self.num_features)
        self.act3 = nn.ReLU(inplace=True)

    def forward_features(self, frames: Tensor) -> Tensor:
        """Frames (M, 3, S, S) -> maps (M, 160, S/16, S/16)."""
        for module in self.children():
            frames = module(frames)
        return frames


@register_model
def xception_small(pretrained: bool = False, **options: Any) -> SmallXception:
    """timm's entry point; there are no weights to download."""
    if pretrained:
        raise ValueError("xception_small has no ImageNet weights: train it from scratch with --backbone-weights none")
    return SmallXception(**options)
