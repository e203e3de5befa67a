"""ImageNet CNNs from timm and their weights: a local file, timm's own download, or none.

* A file is read without running anything in it: `.safetensors`, or `.pth` through torch's weights-only reader. What it
  lacks and what nobody asked for is reported; a file in which nothing matches is refused.
* A model file of KineGRU holds all weights: building a model from it needs neither the ImageNet weights nor a network.
* MobileNetV2 is built with TensorFlow's padding unless timm's own weights are asked for: weights that come from
  TensorFlow lose nine points of top-1 with timm's symmetric padding.
"""

from __future__ import annotations

import difflib
import json
import logging
import pickle
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kinegru.errors import KineGRUError, ModelFileError, UsageError

logger = logging.getLogger(__name__)

DEFAULT_SIZES = {"legacy_xception": 299, "mobilenetv2_100": 160, "mobilenetv2_050": 96}
TENSORFLOW_STYLE = ("mobilenetv2_100", "mobilenetv2_050")  # padding "same", mean and std 0.5, bilinear
DRAWN_LARGE = ("inception_v3",)  # timm draws all its weights with a deviation of 0.1, however many a sum has


@dataclass(frozen=True)
class WeightsReport:
    """What a backbone's weights came from and how well they fit. Keys are timm's.

    >>> WeightsReport("xception.safetensors", matched=2, missing=("conv3.weight",)).summary()
    'xception.safetensors: 2 tensors loaded, 1 missing (conv3.weight), 0 not needed'
    """

    source: str  # the file's name, "imagenet" or "none"
    matched: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    def summary(self) -> str:
        return (
            f"{self.source}: {self.matched} tensors loaded, {len(self.missing)} missing{_some(self.missing)}, "
            f"{len(self.unexpected)} not needed{_some(self.unexpected)}"
        )

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Backbone:
    """A timm CNN without its classifier, how its weights were found, and the preprocessing it expects."""

    name: str
    net: nn.Module
    report: WeightsReport
    pad_type: str | None
    preprocessing: dict[str, Any]  # size, mean, std, interpolation
    in_channels: int = 3


def build_backbone(name: str, weights: str = "none", pad_type: str | None = None, in_channels: int = 3) -> Backbone:
    """Build a timm CNN and load its weights: a local file, `imagenet` (timm's, downloaded) or `none` (random).

    `pad_type` "same" is TensorFlow's padding, "" timm's default; None chooses (see above). Raises UsageError for an
    unknown name, KineGRUError where weights cannot be had or do not fit. `in_channels` other than 3 changes the first
    convolution as `change_input` says.

    >>> build_backbone("mobilenetv2_050").preprocessing
    {'size': 96, 'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5], 'interpolation': 'bilinear'}
    """
    timm = import_timm()
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise UsageError(f"backbone {name!r} is unknown to timm{': did you mean ' + ', '.join(close) if close else ''}")
    tensorflow = architecture in TENSORFLOW_STYLE and weights != "imagenet"
    if pad_type is None and tensorflow:
        pad_type = "same"
    try:
        net = timm.create_model(
            name, pretrained=weights == "imagenet", num_classes=0, **({"pad_type": pad_type} if pad_type else {})
        )
    except Exception as error:
        if weights == "imagenet":
            raise KineGRUError(
                f"{name}: its ImageNet weights could not be downloaded ({_line(error)}); "
                "give a local file with --backbone-weights FILE, or none to start from nothing"
            ) from error
        raise UsageError(f"{name}: timm cannot build it ({_line(error)})") from error
    config = net.pretrained_cfg
    preprocessing = {
        "size": DEFAULT_SIZES.get(architecture, config["input_size"][-1]),
        "mean": [0.5] * 3 if tensorflow else list(config["mean"]),
        "std": [0.5] * 3 if tensorflow else list(config["std"]),
        "interpolation": "bilinear" if tensorflow or config["interpolation"] == "bilinear" else "bicubic",
    }
    if weights in ("none", "imagenet"):
        matched = len(_wanted(net)) if weights == "imagenet" else 0
        if weights == "none" and architecture in DRAWN_LARGE:
            draw_anew(net)
        change_input(net, in_channels, name, random=weights == "none")
        return Backbone(name, net, WeightsReport(weights, matched), pad_type, preprocessing, in_channels)
    tensors, header = read_weights(weights)
    preprocessing |= _header_preprocessing(header)
    report = load_weights(net, tensors, weights, name)
    change_input(net, in_channels, name)
    return Backbone(name, net, report, pad_type, preprocessing, in_channels)


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and header (empty for a .pth) from a local file; code in a pickle is never run.

    Raises UsageError where there is no such file, ModelFileError where it cannot be read or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such weights file (give a .safetensors or .pth file, imagenet, or none)")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path}: not a whole safetensors file ({_line(error)})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path}: holds more than tensors, or is no weights file; refused, since reading it could run code in it"
        ) from error
    except Exception as error:
        raise ModelFileError(f"{path}: cannot be read as weights ({_line(error)})") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ModelFileError(f"{path}: holds no table of weights")
    return {key.removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}, {}


def load_weights(
    net: nn.Module, tensors: dict[str, Tensor], source: str | Path, name: str, library: str = "timm"
) -> WeightsReport:
    """Copy `tensors` into `net` by key, whatever their float type; 1×1 kernels may lack or have their two last axes.

    Raises ModelFileError where nothing matches or a shape differs.
    """
    own = _wanted(net)
    matched = [key for key in own if key in tensors]
    if not matched:
        raise ModelFileError(
            f"{source}: none of its {len(tensors)} tensors belongs to {name} (keys must be {library}'s)"
        )
    with torch.no_grad():
        for key in matched:
            tensor = tensors[key]
            if tensor.shape != own[key].shape:
                if _without_ones(tensor.shape) != _without_ones(own[key].shape):
                    raise ModelFileError(
                        f"{source}: {key} has shape {tuple(tensor.shape)} where {name} needs {tuple(own[key].shape)}"
                    )
                tensor = tensor.reshape(own[key].shape)
            own[key].copy_(tensor)
    report = WeightsReport(
        Path(source).name,
        len(matched),
        tuple(key for key in own if key not in tensors),
        tuple(key for key in tensors if key not in own and not key.endswith("num_batches_tracked")),
    )
    logger.info("backbone weights, %s", report.summary())
    return report


def draw_anew(net: nn.Module) -> None:
    """Draw the weights of all convolutions as PyTorch draws a new layer's: uniform, within 1 / √fan-in.

    Before a batch norm the scale of a weight changes nothing but how fast it learns: drawn five times as large,
    Inception v3 hardly learns at rates that suit the others.

    >>> net = nn.Conv2d(16, 8, 3)
    >>> _ = nn.init.normal_(net.weight)
    >>> draw_anew(net)
    >>> bool(net.weight.abs().max() <= 1 / 12)
    True
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()


def change_input(net: nn.Module, in_channels: int, name: str, random: bool = False) -> None:
    """Give the first convolution of `net` another number of input channels; with 3 nothing is changed.

    Its RGB weights are averaged, repeated for every channel and scaled by 3 / channels: planes that are all equal give
    what the same grey picture gave. `random` weights are drawn anew instead, with the scale of the old. Raises
    UsageError where there is no such convolution.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3))
    >>> grey = net(torch.ones(1, 3, 9, 9))
    >>> change_input(net, 20, "net")
    >>> torch.allclose(net(torch.ones(1, 20, 9, 9)), grey, atol=1e-6)
    True
    """
    if in_channels == 3:
        return
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise UsageError(f"backbone {name} does not begin with a convolution on RGB: its input cannot be changed")
    with torch.no_grad():
        old = first.weight  # (O, 3, k, k)
        if random:
            shape = (old.shape[0], in_channels, *old.shape[2:])
            weight = torch.randn(shape) * old.std() * (3 / in_channels) ** 0.5
        else:
            weight = old.mean(dim=1, keepdim=True).repeat(1, in_channels, 1, 1) * (3 / in_channels)
    first.in_channels, first.weight = in_channels, nn.Parameter(weight)


def import_timm() -> ModuleType:
    """timm, imported only where a backbone is built: it takes seconds."""
    import kinegru.models.torchvision_ops  # isort: skip  (before timm)
    import timm

    import kinegru.models.small_xception  # noqa: F401  (adds itself to timm's models)

    return timm


def _wanted(net: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}


def _without_ones(shape: Iterable[int]) -> list[int]:
    sizes = list(shape)
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _header_preprocessing(header: dict[str, str]) -> dict[str, Any]:
    """Mean, std and interpolation that a weights file states about itself."""
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        try:
            value = json.loads(header.get(key, "null"))
        except ValueError:
            continue
        if isinstance(value, (int, float)):
            value = [float(value)] * 3
        if isinstance(value, list) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value):
            found[key] = [float(v) for v in value]
    if header.get("interpolation") in ("bilinear", "bicubic"):
        found["interpolation"] = header["interpolation"]
    return found


def _some(keys: tuple[str, ...], most: int = 4) -> str:
    return f" ({', '.join(keys[:most])}{', …' if len(keys) > most else ''})" if keys else ""


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
