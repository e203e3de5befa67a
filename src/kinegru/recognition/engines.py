"""What runs a model's parts: the interface that a stream needs, torch behind it, and the choice of another engine.

A model with a radius falls into parts that meet only in small tensors. `trunk` and `parts` are dear and see each frame
once; `advance` and `logits` are cheap and see all of a window. A state is that of one window or of several, which then
advance together; `join` and `take` put them together and apart. Whatever runs them gives the same numbers.

torch is always there, with batch norms folded and the encoder's channels last in memory. The other engines run what
`kinegru export` wrote beside the model file; they are for processors.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from kinegru.errors import ModelFileError, UsageError
from kinegru.models.state import State
from kinegru.recognition.fold import fold_batch_norms

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "torch", "onnx", "onnx-int8", "openvino", "openvino-int8"]
EXACT = ("onnx", "openvino")  # engines that `auto` takes, the faster one first: they give torch's numbers
PROBE_SIZE = 96  # pixels of the random frame that batch norms are folded on


class Engine(Protocol):
    """The parts of a model, each without gradients."""

    name: str  # as in `--engine`
    radius: int | None  # how many frames the neck looks to each side; None: the model has no parts that can be kept
    length: int | None  # the number of frames of a clip, where it takes no other

    def trunk(self, frames: Tensor) -> Tensor:
        """Frames (M, 3, S, S), normalised float32 -> maps (M, C0, h0, w0)."""

    def parts(self, maps: Tensor, keep: slice) -> Tensor:
        """Maps of neighbouring frames (n, C0, h0, w0) -> what the temporal model needs of those in `keep`, (k, ...)."""

    def advance(self, parts: Tensor, state: Any = None) -> Any:
        """What `parts` gave for the next frames, (k, ...), and the state before (None at the start) -> that after.

        The frames are the same for every window of the state.
        """

    def join(self, states: Sequence[Any]) -> Any:
        """States -> one of all their windows, in order."""

    def take(self, state: Any, windows: slice) -> Any:
        """The state of some of its windows."""

    def logits(self, state: Any) -> Tensor:
        """The state of n windows -> logits (n, K)."""

    def clip(self, frames: Tensor) -> Tensor:
        """Whole clips (N, T, C, S, S), normalised float32 -> logits (N, K)."""


class TorchEngine:
    """The model in eval mode: a copy of it `folded`, or with `fold=False` as it is.

    >>> from kinegru.models.zoo import create_model
    >>> model = create_model("mobilenet_convgru_mcam_aff", 2, backbone="mobilenetv2_050", hidden_channels=4, width=8)
    >>> engine, frames = TorchEngine(model.eval(), torch.device("cpu")), torch.rand(3, 3, 64, 64)
    >>> state = engine.advance(engine.parts(engine.trunk(frames), slice(None)))
    >>> torch.allclose(engine.logits(state), engine.clip(frames[None]), atol=1e-5)
    True
    """

    name = "torch"
    length: int | None = None

    def __init__(self, model: Any, device: torch.device, fold: bool = True) -> None:
        self.model: Any = folded(model) if fold else model
        self.device = device
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
    def advance(self, parts: Tensor, state: State | None = None) -> State:
        """See `Engine`."""
        windows = 1 if state is None else len(state.frames)
        return self.model.temporal.advance(parts.expand(windows, *parts.shape), state)

    @torch.inference_mode()
    def join(self, states: Sequence[State]) -> State:
        """See `Engine`."""
        flat = [torch.cat(tensors) for tensors in zip(*(state.flat() for state in states), strict=True)]
        return states[0].like(flat)

    def take(self, state: State, windows: slice) -> State:
        """See `Engine`."""
        return state.like([tensor[windows] for tensor in state.flat()])

    @torch.inference_mode()
    def logits(self, state: State) -> Tensor:
        """See `Engine`."""
        return self.model.classify(self.model.temporal.read(state)).float()

    @torch.inference_mode()
    def clip(self, frames: Tensor) -> Tensor:
        """See `Engine`."""
        return self.model(frames.to(self.device)).float()


def folded(model: Any) -> Any:
    """A copy of an `ActionRecognizer` for use alone: batch norms folded, the encoder's 2-D convolutions channels last.

    The ConvGRU's input convolution, thousands of channels to a hundred, is half as fast again in channels first.
    """
    weight = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(1, 1, model.encoder.in_channels, PROBE_SIZE, PROBE_SIZE, generator=generator).to(weight)
    copied: Any = fold_batch_norms(model, probe)
    for module in copied.encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied


def exported_engine(name: EngineName, device: torch.device, path: Path) -> Engine | None:
    """The engine of that name among the exports beside the model file at `path`; None where torch is to run the model.

    `auto` is the first of `EXACT` that was exported from this very file and whose runtime is installed, else torch; on
    a GPU it is torch. Raises UsageError for an engine that cannot be had, ModelFileError for an export of another file.
    """
    from kinegru.recognition.exported import ExportedEngine, export_folder

    if name not in get_args(EngineName):
        raise UsageError(f"engine {name!r} is unknown: give one of {', '.join(get_args(EngineName))}")
    if name == "torch" or (name == "auto" and device.type != "cpu"):
        return None
    if name != "auto":
        if device.type != "cpu":
            raise UsageError(f"engine {name} runs on processors only: give device cpu, or engine torch")
        return ExportedEngine(export_folder(path, name), path)
    for exact in EXACT:
        folder = export_folder(path, exact)
        if folder.is_dir():
            try:
                return ExportedEngine(folder, path)
            except ModelFileError as error:  # of an older model, or damaged
                logger.warning("%s; torch is used", error)
            except UsageError as error:  # its runtime is missing
                logger.info("%s; torch is used", error)
    return None
