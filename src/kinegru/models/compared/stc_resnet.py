"""STC-ResNet (Diba et al., ECCV 2018): a 3-D ResNet whose residual branches end with a channel-correlation block.

The STC block weighs channels by what two branches see of the clip, each a bottleneck of two fully connected layers:

    temporal branch (TCB): z = mean over space and time, (C,);      m = σ(W2 ReLU(W1 z)), one mask for the clip
    spatial branch (SCB):  z_t = mean over space, (C,) a step;      m_t = σ(W2 ReLU(W1 z_t)), one mask a time step
    x · (m + m_t) / 2, before the residual sum

* Our reading: the branches are averaged after their sigmoids, the spatial one shares its weights over time (so that any
  T works), both have biases, and the reduction is 16.
* The 3-D ResNet is torchvision's (stem without pooling, 3×3×3 kernels, strides of 2 in time from the second stage on);
  the blocks are appended to its residual branches, so that its weights files (r3d_18) fit by name.
* It looks at all frames at once: no part of it is constant over the frames of a clip, so nothing is cached short of the
  whole network (profile `head`), and it has no radius, which is what live use asks for.
* The paper starts from 2-D networks by transfer or from Kinetics; here it starts from scratch or from a local file.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from kinegru.errors import KineGRUError, UsageError
from kinegru.models.backbones import WeightsReport, load_weights, read_weights

DEPTHS: dict[str, tuple[str, list[int]]] = {  # blocks in the four stages
    "stc_resnet18": ("BasicBlock", [2, 2, 2, 2]),
    "stc_resnet101": ("Bottleneck", [3, 4, 23, 3]),
}
KINETICS: dict[str, Any] = {  # what torchvision's weights expect; 112 pixels and 16 frames are also the paper's
    "size": 112,
    "mean": [0.43216, 0.394666, 0.37645],
    "std": [0.22803, 0.22145, 0.216989],
    "interpolation": "bilinear",
}


class STCBlock(nn.Module):
    """Spatio-temporal channel correlation: x · mask, (N, C, T, h, w) -> the same shape.

    >>> STCBlock(32)(torch.rand(2, 32, 4, 7, 7)).shape
    torch.Size([2, 32, 4, 7, 7])
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.temporal = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(inplace=True), nn.Linear(inner, channels))
        self.spatial = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(inplace=True), nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask(x)

    def mask(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, h, w) -> weights in (0, 1), (N, C, T, 1, 1)."""
        steps = x.mean(dim=(3, 4)).transpose(1, 2)  # (N, T, C)
        whole = steps.mean(dim=1, keepdim=True)  # (N, 1, C)
        mask = (torch.sigmoid(self.temporal(whole)) + torch.sigmoid(self.spatial(steps))) / 2  # (N, T, C)
        return mask.transpose(1, 2)[..., None, None]


class STCNeck(nn.Module):
    """The 3-D network: frames (N, T, 3, S, S) -> maps (N, T', C, S/16, S/16), T' = ⌈T/8⌉."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        return self.net(frames.transpose(1, 2)).transpose(1, 2)


class STCResNet(nn.Module):
    """STC-ResNet as an encoder: `trunk` hands frames on, `neck` (N, T, 3, S, S) -> (N, T', C, h, w) is the network.

    `name` is stc_resnet18 (C = 512) or stc_resnet101 (C = 2048); `weights` is `none` or a local file whose keys are
    torchvision's. Attributes as of `FrameEncoder`. Raises UsageError for another name, KineGRUError where weights do
    not fit or ImageNet's are asked for.

    >>> encoder = STCResNet("stc_resnet18")
    >>> encoder.neck(torch.rand(1, 9, 3, 32, 32)).shape
    torch.Size([1, 2, 512, 2, 2])
    """

    in_channels = 3
    radius = None

    def __init__(self, name: str, weights: str = "none", keep_statistics: list[str] | None = None) -> None:
        super().__init__()
        if name not in DEPTHS:
            raise UsageError(f"3-D network {name!r} is unknown: give {' or '.join(DEPTHS)}")
        if weights == "imagenet":
            raise KineGRUError(
                f"{name}: a 3-D network has no ImageNet weights; give --backbone-weights none, or a file (such as "
                "torchvision's r3d_18)"
            )
        net, self.out_channels = _build(name)
        self.report = WeightsReport("none")
        self.preprocessing_defaults = dict(KINETICS)
        if weights != "none":
            self.report = load_weights(net, read_weights(weights)[0], weights, name, "torchvision")
        self.trunk = nn.Identity()
        self.neck = STCNeck(net)
        self.backbone, self.trunk_channels = name, 3
        if keep_statistics is None:
            keep_statistics = list(self.items()) if weights != "none" else []
        self.keep_statistics = tuple(keep_statistics)
        self.resolved: dict[str, Any] = {"tail_start": "auto", "tail_end": "auto", "excitation_place": "auto"}

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, T, 3, S, S), normalised -> maps (N, T', C, h, w)."""
        return self.neck(frames)

    def items(self) -> dict[str, nn.Module]:
        """The network's stages by name, in order."""
        return dict(self.neck.net.named_children())


def _build(name: str) -> tuple[nn.Sequential, int]:
    """Torchvision's 3-D ResNet without its classifier, with an STC block at the end of every residual branch."""
    import kinegru.models.torchvision_ops  # noqa: F401  isort: skip  (before torchvision)
    from torchvision.models.video import resnet

    kind, layers = DEPTHS[name]
    block = getattr(resnet, kind)
    net = resnet.VideoResNet(block, [resnet.Conv3DSimple] * 4, layers, resnet.BasicStem, num_classes=1)
    channels = net.fc.in_features
    stages = OrderedDict((part, module) for part, module in net.named_children() if part not in ("avgpool", "fc"))
    for stage in list(stages.values())[1:]:
        for residual in stage:
            branch = residual.conv3 if kind == "Bottleneck" else residual.conv2  # ends with a batch norm
            branch.append(STCBlock(branch[1].num_features))
    return nn.Sequential(stages), channels
