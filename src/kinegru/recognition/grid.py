"""Where the cells of a network's maps lie in its input.

Dividing the square evenly among the cells is off by up to half a cell, an eighth of the frame for maps of 4×4: with the
usual symmetric padding the first cell looks at the very corner, with TensorFlow's at the far side of its patch, with
none further inside. Kernel, stride and padding of the layers tell exactly (Araujo et al., Distill 2019):

    step_out = step_in · stride        start_out = start_in + ((kernel - 1) / 2 · dilation - padding) · step_in
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from kinegru.models.recognizer import ActionRecognizer

SLIDING = (nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)


class Grid(NamedTuple):
    """Cell i has its middle at start + i · step, in shares of the square's side; rows and columns alike."""

    start: float
    step: float

    @classmethod
    def even(cls, cells: int) -> Grid:
        """Cells that divide the side evenly.

        >>> Grid.even(4)
        Grid(start=0.125, step=0.25)
        """
        return cls(0.5 / cells, 1 / cells)


def grids(model: ActionRecognizer, size: int) -> dict[int, Grid]:
    """For an input of `size` pixels: of every map size on the way, how its cells lie. Maps of other sizes are unknown.

    >>> from kinegru.models.zoo import create_model
    >>> model = create_model("mobilenet_convgru_mcam_aff", 2, backbone="mobilenetv2_050", pad_type="same")
    >>> found = grids(model.eval(), 128)
    >>> [cells for cells in found], [128 * share for share in found[4]]
    ([128, 64, 32, 16, 8, 4], [31.5, 32.0])
    """
    found = {size: Grid(0.5 / size, 1 / size)}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before, after = inputs[0].shape[-1], output.shape[-1]
        if before in found and after not in found and 1 < after < before:
            kernel, stride, dilation = (
                _across(getattr(layer, name, 1)) for name in ("kernel_size", "stride", "dilation")
            )
            inside = (kernel - 1) / 2 * dilation - _padding(layer, before, kernel, stride, dilation)
            start, step = found[before]
            found[after] = Grid(start + inside * step, step * stride)

    hooks = [layer.register_forward_hook(note) for layer in model.encoder.modules() if isinstance(layer, SLIDING)]
    try:
        with torch.no_grad():
            frame = next(model.parameters()).new_zeros(1, 1, model.encoder.in_channels, size, size)
            model.neck(model.trunk(frame))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _across(setting: Any) -> int:
    """The value for columns of one that may be given for each axis."""
    return int(setting[-1] if isinstance(setting, (tuple, list)) else setting)


def _padding(layer: nn.Module, before: int, kernel: int, stride: int, dilation: int) -> int:
    """Pixels put before the first column. timm's layers "...Same" pad as TensorFlow does, more behind than before."""
    if "Same" in type(layer).__name__ or isinstance(layer.padding, str):
        if layer.padding == "valid":
            return 0
        behind = (math.ceil(before / stride) - 1) * stride + (kernel - 1) * dilation + 1 - before
        return max(0, behind) // 2
    return _across(layer.padding)
