"""Batch norms folded into the convolutions before them: fewer passes over the maps, the same numbers.

* In eval mode a batch norm is a scale and a shift a channel, which the convolution's own weights can do as well. Of a
  separable convolution it is the pointwise one that takes them up, whatever the parts are called.
* Which convolution feeds which batch norm is seen while a probe runs, not guessed from names, and the folded model is
  run on the probe too: where it differs, a network does something else with the convolution's output, and nothing is
  folded.
* The model that is given stays as it is. It can go on training.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # relative, between the folded model's output and the model's


def fold_batch_norms(model: nn.Module, probe: Tensor) -> nn.Module:
    """A copy in eval mode, without gradients, whose batch norms are folded; `probe` is an input of the model.

    Batch norms that follow no convolution, or one that runs more than once, are kept.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    >>> folded = fold_batch_norms(net, torch.rand(1, 3, 8, 8))
    >>> [type(layer).__name__ for layer in folded], [type(layer).__name__ for layer in net]
    (['Conv2d', 'Identity', 'ReLU'], ['Conv2d', 'BatchNorm2d', 'ReLU'])
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.inference_mode():
        expected = folded(probe)
    for name, norm_name in _pairs(folded, probe):
        conv, norm = folded.get_submodule(name), folded.get_submodule(norm_name)
        _replace(folded, name, fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var, arg-type]
        _replace(folded, norm_name, _rest(norm))
    folded.requires_grad_(False)
    with torch.inference_mode():
        found = folded(probe)
    if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max())):
        logger.warning("batch norms are left as they are: this model uses a convolution's output before them")
        return copy.deepcopy(model).eval().requires_grad_(False)
    return folded


def _pairs(model: nn.Module, probe: Tensor) -> list[tuple[str, str]]:
    """Names of the convolutions and of the batch norms that take their output, each of which ran once."""
    names = {module: name for name, module in model.named_modules()}
    made_by: dict[int, nn.Module] = {}
    runs: dict[nn.Module, int] = {}
    alive: list[Any] = []  # an id is a tensor's own only while it lives
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def convolved(module: nn.Module, inputs: Any, output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        made_by[id(output)] = module
        alive.append(output)

    def normalised(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs[module] = runs.get(module, 0) + 1
        if id(inputs[0]) in made_by and module.running_mean is not None:
            pairs.append((made_by[id(inputs[0])], module))

    hooks = [module.register_forward_hook(convolved) for module in names if isinstance(module, _ConvNd)]
    hooks += [module.register_forward_pre_hook(normalised) for module in names if isinstance(module, _BatchNorm)]
    try:
        with torch.inference_mode():
            model(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return [(names[conv], names[norm]) for conv, norm in pairs if runs[conv] == runs[norm] == 1]


def _rest(norm: nn.Module) -> nn.Module:
    """What a batch norm does besides: timm's `BatchNormAct2d` ends with an activation."""
    after = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
    after = [part for part in after if not isinstance(part, nn.Identity)]
    return nn.Sequential(*after) if len(after) > 1 else after[0] if after else nn.Identity()


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
