"""The arithmetic and the memory traffic of a call, operator by operator; on meta tensors nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

_HEAVY = (
    "convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm", "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward", "max_pool3d_with_indices",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What one call must do."""

    flops: int  # two for each multiply-accumulate of convolutions and matrix products
    values: (
        int  # numbers read and written by these and by max pooling, each operand once: the rest can be fused into it
    )

    @property
    def gmac(self) -> float:
        """10⁹ multiply-accumulates."""
        return self.flops / 2e9


def count(call: Callable[[], Any]) -> Work:
    """Run `call` and count. Norms, activations and sums count nothing: a compiler fuses them into their neighbours.

    >>> import torch
    >>> conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False).to("meta")
    >>> work = count(lambda: conv(torch.empty(1, 3, 10, 10, device="meta")))
    >>> work.flops == 2 * 100 * 27 * 8, work.values == 300 + 800 + 27 * 8
    (True, True)
    """
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:
        call()
    return Work(flops.get_total_flops(), traffic.values)


class _Traffic(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in _HEAVY:
            self.values += sum(leaf.numel() for leaf in tree_leaves((args, out)) if isinstance(leaf, Tensor))
        return out
