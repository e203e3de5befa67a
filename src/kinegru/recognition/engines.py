"""What runs a model's parts: the interface that a stream needs, and torch behind it.

A model with a radius falls into parts that meet only in small tensors. `trunk` and `parts` are dear and see each frame
once; `advance` and `logits` are cheap and see all of a window. Whatever runs them gives the same numbers.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Engine(Protocol):
    """The parts of a model, each without gradients."""

    radius: int | None  # how many frames the neck looks to each side; None: the model has no parts that can be kept

    def trunk(self, frames: Tensor) -> Tensor:
        """Frames (M, 3, S, S), normalised float32 -> maps (M, C0, h0, w0)."""

    def parts(self, maps: Tensor, keep: slice) -> Tensor:
        """Maps of neighbouring frames (n, C0, h0, w0) -> what the temporal model needs of those in `keep`, (k, ...)."""

    def advance(self, parts: Tensor, state: Any = None) -> Any:
        """What `parts` gave for the next frames, (k, ...), and the state before (None at the start) -> that after."""

    def logits(self, state: Any) -> Tensor:
        """The state -> logits (K,)."""

    def clip(self, frames: Tensor) -> Tensor:
        """Whole clips (N, T, C, S, S), normalised float32 -> logits (N, K)."""


class TorchEngine:
    """The model itself, in eval mode.

    >>> from kinegru.models.zoo import create_model
    >>> model = create_model("mobilenet_convgru_mcam_aff", 2, backbone="mobilenetv2_050", hidden_channels=4, width=8)
    >>> engine, frames = TorchEngine(model.eval(), torch.device("cpu")), torch.rand(3, 3, 64, 64)
    >>> state = engine.advance(engine.parts(engine.trunk(frames), slice(None)))
    >>> torch.allclose(engine.logits(state), engine.clip(frames[None])[0], atol=1e-5)
    True
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self.device = model, device
        self.radius: int | None = model.encoder.radius

    @torch.inference_mode()
    def trunk(self, frames: Tensor) -> Tensor:
        """See `Engine`."""
        return self.model.trunk(frames.to(self.device)[None])[0]

    @torch.inference_mode()
    def parts(self, maps: Tensor, keep: slice) -> Tensor:
        """See `Engine`."""
        return self.model.temporal.per_frame(self.model.neck(maps[None], keep))[0]

    @torch.inference_mode()
    def advance(self, parts: Tensor, state: Any = None) -> Any:
        """See `Engine`."""
        return self.model.temporal.advance(parts[None], state)

    @torch.inference_mode()
    def logits(self, state: Any) -> Tensor:
        """See `Engine`."""
        return self.model.classifier(self.model.temporal.read(state))[0].float()

    @torch.inference_mode()
    def clip(self, frames: Tensor) -> Tensor:
        """See `Engine`."""
        return self.model(frames.to(self.device)).float()
