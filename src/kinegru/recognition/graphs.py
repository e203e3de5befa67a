"""The parts of a model as graphs of tensors alone, in the form in which other programs run them.

    trunk   frames (M, 3, S, S)                                 -> maps (M, C0, h0, w0)
    neck    maps (N, T, C0, h0, w0), keep (k,) int64            -> parts (N, k, ...): of the frames with these numbers
    start   parts of the first frame (N, ...)                   -> state: kept, and what else the recurrence carries
    step    parts of the next frame (N, ...), state             -> state
    read    kept, frames: how many there were, int64 (N,)       -> logits (N, K)

A model without parts that can be kept has one graph: `clip`, frames (N, T, C, S, S) -> logits (N, K). N, M, T and k are
free. In the neck the frames that `keep` leaves out only serve their neighbours, as at the middle of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinegru.models.state import State

PARTS = ("trunk", "neck", "start", "step", "read")
QUANTISED = ("trunk", "neck")  # nearly all the arithmetic is here, and nothing that is carried from frame to frame


@dataclass(frozen=True)
class Graph:
    """A module, tensors to trace it with, and names for what goes in and comes out."""

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: tuple[dict[int, str], ...]  # of every input the dimensions that may have any length, and their names
    variadic: int = 0  # from this one on the inputs are one argument of the module; 0: each is its own


def graphs(model: Any, size: int, frames: int) -> dict[str, Graph]:
    """All graphs of an `ActionRecognizer` in eval mode, for frames of `size` pixels; a `clip` is traced with `frames`.

    >>> from kinegru.models.zoo import create_model
    >>> options = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}
    >>> found = graphs(create_model("sc_xception_convgru_mcam_aff", 2, **options).eval(), 64, 4)
    >>> list(found), found["step"].inputs
    (['trunk', 'neck', 'start', 'step', 'read'], ('parts', 'kept', 'last_0'))
    """
    channels = model.encoder.in_channels
    if model.encoder.radius is None:
        clip = torch.rand(2, frames, channels, size, size)
        return {"clip": Graph(_Clip(model), (clip,), ("frames",), ("logits",), ({0: "clips"},))}
    with torch.no_grad():
        images = torch.rand(2, channels, size, size)
        maps = model.encoder.trunk(images)
        maps_of_clips = maps[None, :1].repeat(2, 5, 1, 1, 1)  # (2, 5, C0, h0, w0)
        keep = torch.tensor([1, 2, 4])
        neck = _Neck(model)
        parts = neck(maps_of_clips, keep)[:, 0].clone()  # (2, ...)
        state = model.temporal.advance(parts[:, None])
        carried = _carried(state)
    names = _names(state)
    clips = {0: "clips"}
    return {
        "trunk": Graph(_Trunk(model), (images,), ("frames",), ("maps",), ({0: "frames"},)),
        "neck": Graph(
            neck, (maps_of_clips, keep), ("maps", "keep"), ("parts",), ({0: "clips", 1: "frames"}, {0: "kept"})
        ),
        "start": Graph(_Start(model), (parts,), ("parts",), names, (clips,)),
        "step": Graph(
            _Step(model, state), (parts, *carried), ("parts", *names), tuple(f"next_{name}" for name in names),
            (clips, *[clips] * len(carried)), variadic=2,
        ),
        "read": Graph(_Read(model), (state.kept, state.frames), ("kept", "frames"), ("logits",), (clips, clips)),
    }  # fmt: skip


def _carried(state: State) -> tuple[Tensor, ...]:
    """A state without its count of frames, which whoever runs the graphs keeps."""
    kept, *others = state.flat()[1:]
    return (kept.clone(), *others)  # it may be one of the others


def _names(state: State) -> tuple[str, ...]:
    last = [f"last_{number}" for number in range(len(state.last))]
    return ("kept", *last, *(() if state.previous is None else ("previous",)))


class _Trunk(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.trunk = model.encoder.trunk

    def forward(self, frames: Tensor) -> Tensor:
        return self.trunk(frames)


class _Neck(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.neck, self.temporal = model.encoder.neck, model.temporal

    def forward(self, maps: Tensor, keep: Tensor) -> Tensor:
        return self.temporal.per_frame(self.neck(maps, keep))


class _Start(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.temporal = model.temporal

    def forward(self, parts: Tensor) -> tuple[Tensor, ...]:
        return _carried(self.temporal.advance(parts[:, None]))


class _Step(nn.Module):
    def __init__(self, model: Any, like: State) -> None:
        super().__init__()
        self.temporal = model.temporal
        self.last, self.with_previous = len(like.last), like.previous is not None

    def forward(self, parts: Tensor, kept: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        previous = others[self.last] if self.with_previous else None
        return _carried(
            self.temporal.advance(parts[:, None], State(torch.empty(0), kept, others[: self.last], previous))
        )


class _Read(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.temporal, self.classifier = model.temporal, model.classifier

    def forward(self, kept: Tensor, frames: Tensor) -> Tensor:
        return self.classifier(self.temporal.read(State(frames, kept)))


class _Clip(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.temporal, self.classifier = model.encoder, model.temporal, model.classifier

    def forward(self, frames: Tensor) -> Tensor:
        return self.classifier(self.temporal(self.encoder(frames)))
