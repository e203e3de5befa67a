"""Frames to maps: a frozen `trunk` that sees single frames, and a `neck` with the excitation and the trained tail.

Paper §1.1-1.2 and table 1. SC-Xception is timm's `legacy_xception` cut before block12, with the excitation there.

* The cut: the tail begins with the last block that halves the maps (Xception: block12), in any timm CNN that is a chain
  of modules. That it is one is not assumed: the chain is run against `forward_features` once. A CNN that is none is
  trunk as a whole, as the Inception rows are.
* The tail ends with the network, or at the last module that the weights file has weights for (Xception without conv3
  and conv4: block12, 1024 channels, no ReLU after the sum).
* `branch` (default where the first tail block is Xception's): excited maps enter its residual branch only and the skip
  convolution sees the plain ones; `block`: both see the excited ones.
* The trunk's output is cacheable because nothing in it looks at another frame; the neck looks at t-1, t, t+1.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from kinegru.errors import UsageError
from kinegru.models.backbones import Backbone, build_backbone
from kinegru.models.excitation import Excitation, ExcitationMode

logger = logging.getLogger(__name__)

PROBE_SIZE = 96  # pixels of the random frame that finds the cut
LAST_OF = {"conv4": "act4"}  # a tail that ends "at conv4" keeps its batch norm and its ReLU


class Neck(nn.Module):
    """Excitation and tail: (N, T, C0, h0, w0) -> (N, T, C, h, w). Never changes its input in place."""

    def __init__(self, excitation: Excitation, tail: nn.Sequential, place: str) -> None:
        super().__init__()
        self.excitation = excitation
        self.tail = tail
        self.place = place

    def forward(self, maps: Tensor, keep: slice = slice(None)) -> Tensor:
        """`keep`: the frames that are wanted; the others only serve their neighbours' excitation."""
        excited, maps = self.excitation(maps, keep), maps[:, keep]
        shape = maps.shape[:2]
        if len(self.tail) == 0:
            return excited
        first, *others = self.tail
        if self.place == "branch" and self.excitation.mode != "none":
            plain = first.skipbn(first.skip(_per_frame(maps)))  # type: ignore[operator]
            x = first.rep(_per_frame(excited)) + plain  # type: ignore[operator]
        else:
            x = first(_per_frame(excited))
        for module in others:
            x = module(x)
        return x.contiguous().unflatten(0, shape)

    def extra_repr(self) -> str:
        return f"place={self.place}"


class FrameEncoder(nn.Module):
    """A backbone cut in two: `trunk` (M, 3, S, S) -> (M, C0, h0, w0), `neck` (N, T, C0, h0, w0) -> (N, T, C, h, w).

    `excitation` is parallel, serial, ste, ce or none; `tail_start` and `tail_end` name modules of the backbone (`auto`:
    see above; `none`: no tail, the trunk is everything). `keep_statistics` names the modules whose batch norms have
    pretrained statistics; None finds them. `in_channels` is 3, or what the first convolution is changed to. Attributes:
    `names` of the modules kept; `radius`, how many frames the neck looks to each side; `report`, how the weights
    fitted; `preprocessing_defaults`, size, mean, std and interpolation as a plain dict; `resolved`, what every `auto`
    came to. Raises UsageError for a backbone, module or place that does not exist.

    >>> encoder = FrameEncoder("mobilenetv2_050", excitation="parallel")
    >>> maps = encoder.trunk(torch.rand(6, 3, 96, 96))
    >>> maps.shape, encoder.neck(maps.unflatten(0, (2, 3))).shape
    (torch.Size([6, 48, 6, 6]), torch.Size([2, 3, 1280, 3, 3]))
    """

    def __init__(
        self,
        backbone: str = "legacy_xception",
        weights: str = "none",
        excitation: ExcitationMode = "none",
        place: str = "auto",
        rescale: bool = True,
        reduction: int = 16,
        relu: bool = True,
        tail_start: str = "auto",
        tail_end: str = "auto",
        pad_type: str | None = None,
        keep_statistics: list[str] | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        built = build_backbone(backbone, weights, pad_type, in_channels)
        chain, sizes = _chain(built)
        end = _tail_end(chain, tail_end, built)
        start = _tail_start(chain, sizes, tail_start, built)
        if start >= end and tail_start not in ("auto", "none"):
            raise UsageError(f"the tail begins with {tail_start}, which lies behind its end: begin earlier")
        start = min(start, end)
        names = list(chain)
        self.names = names[:end]
        self.trunk = _sequence(chain, names[:start])
        tail = _sequence(chain, names[start:end])
        if len(tail):
            _not_in_place(tail[0])
        self.in_channels = in_channels
        self.trunk_channels, self.out_channels = sizes[start - 1][0], sizes[end - 1][0]
        place = _place(place, tail)
        mixing = Excitation(self.trunk_channels, excitation, rescale, reduction, relu)
        self.neck = Neck(mixing, tail, place)
        self.radius = mixing.radius
        self.backbone, self.report, self.preprocessing_defaults = backbone, built.report, built.preprocessing
        if keep_statistics is None:
            keep_statistics = [name for name in names[:end] if _has_statistics(name, chain[name], built)]
        self.keep_statistics = tuple(keep_statistics)
        ends = {full: short for short, full in LAST_OF.items()}
        self.resolved: dict[str, Any] = {
            "tail_start": names[start] if start < end else "none",
            "tail_end": ends.get(names[end - 1], names[end - 1]) if names != ["backbone"] else "auto",
            "excitation_place": place,
            "pad_type": built.pad_type,
        }
        if tail_end == "auto" and end < len(names):
            logger.warning("%s has no weights after %s: the encoder ends there", built.report.source, names[end - 1])

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N, T, 3, S, S), normalised -> maps (N, T, C, h, w)."""
        return self.neck(self.trunk(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))

    def items(self) -> dict[str, nn.Module]:
        """The backbone's modules by their timm names, in order."""
        return dict(zip(self.names, [*self.trunk, *self.neck.tail], strict=True))


class WholeBackbone(nn.Module):
    """A CNN that is no chain of modules, taken as it is: (M, 3, S, S) -> (M, C, h, w)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        return self.net.forward_features(frames)  # type: ignore[operator]


def _chain(built: Backbone) -> tuple[OrderedDict[str, nn.Module], list[tuple[int, int]]]:
    """The backbone as an ordered dict of modules that run one after the other, with each one's (channels, height)."""
    net, training = built.net, built.net.training
    net.eval()
    frame = torch.rand(1, built.in_channels, PROBE_SIZE, PROBE_SIZE)
    chain: OrderedDict[str, nn.Module] = OrderedDict()
    sizes: list[tuple[int, int]] = []
    with torch.no_grad():
        try:
            expected = net.forward_features(frame)  # type: ignore[operator]
        except Exception as error:
            raise UsageError(
                f"backbone {built.name} does not take frames of any size ({error}): choose a CNN"
            ) from error
        if not isinstance(expected, Tensor) or expected.dim() != 4 or expected.shape[1] != net.num_features:
            raise UsageError(f"backbone {built.name} gives no maps (N, C, h, w): choose a CNN")
        x = frame.clone()
        length = 0  # of the chain: up to the last module after which the maps are the expected ones
        for name, module in _flat_children(net):
            try:
                x = module(x)
            except Exception:  # not a chain, or pooling and classifier behind it
                break
            if not isinstance(x, Tensor) or x.dim() != 4:
                break
            chain[name] = module
            sizes.append((x.shape[1], x.shape[2]))
            if x.shape == expected.shape and torch.allclose(x, expected, rtol=1e-4, atol=1e-6):
                length = len(chain)
    net.train(training)
    if length:
        return OrderedDict(list(chain.items())[:length]), sizes[:length]
    logger.info("%s is no chain of modules: it is trunk as a whole", built.name)
    return OrderedDict(backbone=WholeBackbone(net)), [(expected.shape[1], expected.shape[2])]


def _flat_children(net: nn.Module) -> list[tuple[str, nn.Module]]:
    found = []
    for name, child in net.named_children():
        if isinstance(child, nn.Sequential):
            found += [(f"{name}.{inner}", module) for inner, module in child.named_children()]
        else:
            found.append((name, child))
    return found


def _tail_start(chain: OrderedDict[str, nn.Module], sizes: list[tuple[int, int]], wanted: str, built: Backbone) -> int:
    names = list(chain)
    if wanted == "none" or names == ["backbone"]:
        if wanted not in ("none", "auto"):
            raise UsageError(f"backbone {built.name} is no chain of modules: its tail cannot start at {wanted!r}")
        return len(names)
    if wanted == "auto":
        heights = [PROBE_SIZE] + [height for _, height in sizes]
        halving = [i for i in range(1, len(names)) if heights[i + 1] < heights[i]]
        trainable = [i for i in halving if any(_has_parameters(chain[name]) for name in names[i:])]
        return trainable[-1] if trainable else len(names)
    if wanted not in names[1:]:
        raise UsageError(f"backbone {built.name} has no module {wanted!r} to start the tail at: {', '.join(names[1:])}")
    return names.index(wanted)


def _tail_end(chain: OrderedDict[str, nn.Module], wanted: str, built: Backbone) -> int:
    """How many modules of the chain are kept."""
    names = list(chain)
    if wanted != "auto":
        wanted = LAST_OF.get(wanted, wanted)
        if wanted not in names:
            raise UsageError(f"backbone {built.name} has no module {wanted!r} to end the tail at: {', '.join(names)}")
        return names.index(wanted) + 1
    missing = set(built.report.missing)
    end = len(names)
    while end > 1:  # leave out what the file has no weights for
        keys = {f"{names[end - 1]}.{key}" for key, _ in chain[names[end - 1]].named_parameters()}
        if keys and not keys <= missing:
            break
        end -= 1
    while end < len(names) and not _has_parameters(chain[names[end]]):
        end += 1  # an activation belongs to what comes before it
    return end


def _place(place: str, tail: nn.Sequential) -> str:
    if place not in ("auto", "branch", "block"):
        raise UsageError(f"excitation place {place!r} is unknown: give branch or block")
    first = next(iter(tail), None)
    has_branch = all(getattr(first, part, None) is not None for part in ("rep", "skip", "skipbn"))
    if place == "branch" and not has_branch:
        raise UsageError("excitation place 'branch' needs a tail that begins with an Xception block: give block")
    return ("branch" if has_branch else "block") if place == "auto" else place


def _has_statistics(name: str, module: nn.Module, built: Backbone) -> bool:
    """Whether all batch norms in the module came with weights."""
    if built.report.source == "none":
        return False
    keys = [f"{name}.{k}" if k else name for k, m in module.named_modules() if hasattr(m, "running_mean")]
    prefix = f"{name}.net." if name == "backbone" else ""
    missing = set(built.report.missing)
    return bool(keys) and not any(f"{key.removeprefix(prefix)}.running_mean" in missing for key in keys)


def _per_frame(maps: Tensor) -> Tensor:
    """(N, T, C, h, w) -> (N·T, C, h, w), channels last in memory: depthwise convolutions run twice as fast on a CPU."""
    return maps.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _sequence(chain: OrderedDict[str, nn.Module], names: list[str]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((name.replace(".", "_"), chain[name]) for name in names))


def _not_in_place(module: nn.Module) -> None:
    """What comes first in the tail must leave the trunk's (perhaps cached) maps alone."""
    for part in module.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
