"""The rate that arithmetic reaches at best here: a large matrix product, which takes its turn with what is measured."""

from __future__ import annotations

import torch
from torch import Tensor

from kinegru.measuring import Call

MATRIX = 2048
FLOPS = 2 * MATRIX**3


def matrix_product(like: Tensor) -> Call:
    """A product of two square matrices of `like`'s dtype, on its device."""
    a, b = (torch.rand(MATRIX, MATRIX, dtype=like.dtype, device=like.device) for _ in range(2))
    return lambda: a @ b
