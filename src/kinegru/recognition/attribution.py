"""Where and when a model looked: Grad-CAM on the recurrent states, the excitation's masks, gates and score over time.

* Grad-CAM (Selvaraju et al., ICCV 2017), frame by frame. A_t (C, h, w) is the state of the ConvGRU after frame t, y the
  logit of the class in question at the clip's end:

      α_tc = mean over h, w of ∂y/∂A_tc        heat_t = ReLU(Σ_c α_tc · (A_tc - median over h, w of A_tc))

  The gradient runs through all later frames, so a state that is forgotten by the end has no heat.
* The median is ours. Grad-CAM was made for maps after a ReLU, which are zero where nothing is; a state has a level of
  its own there, and without the median the whole frame glows.
* The encoder's last maps can take the place of the states, and do in models without a recurrence over maps. They show
  what a frame has; states also show what is remembered from the frames before.
* Frames go through the recurrence one at a time, as in a live stream, so the classifier can be asked after each of
  them: the score over time ends with what `predict` says.
* A heat map is a hint, not a proof. `Deletion` checks its "when": how the score falls where the hottest frames, and
  where the coldest ones, are replaced by the clip's mean frame. `kinegru.recognition.sanity` checks its "where".
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kinegru.models.committee import made_of
from kinegru.models.state import State
from kinegru.models.temporal import MapRecurrence, VectorRecurrence

if TYPE_CHECKING:
    from kinegru.models.recognizer import ActionRecognizer

Floats = NDArray[np.float32]
Method = Literal["states", "maps"]
On = Literal["auto", "states", "maps"]

METHODS: dict[Method, str] = {"states": "the states of the ConvGRU", "maps": "the encoder's last maps"}
SHARES = (0.125, 0.25, 0.5, 0.75)  # of a clip's frames that are replaced


@dataclass(frozen=True)
class Gates:
    """What the ConvGRU did at each of S steps: means over the state, float32 (S,)."""

    update: Floats  # z, 0 .. 1: the share of the old state that is kept
    reset: Floats  # r, 0 .. 1: how far the old state enters the new candidate
    change: Floats  # |h_t - h_(t-1)|, 0 .. 2


@dataclass(frozen=True)
class Look:
    """Where and when a model looked at T frames, in S steps: S = T, or fewer where a 3-D network joins frames."""

    method: Method  # what the heat is on
    heat: Floats  # (S, h, w), at least 0, in the model's own units
    scores: Floats  # (S, K): probabilities read out after each step, rows sum to 1
    spatial: Floats | None  # the spatio-temporal mask M_s - 0.5, (T, h0, w0), -0.5 .. 0.5; 0 leaves the maps alone
    channels: Floats | None  # mean over channels of |M_c - 0.5|, (T,)
    gates: Gates | None  # of a ConvGRU


@dataclass(frozen=True)
class Deletion:
    """The class's probability where a share of the frames is replaced by the mean frame."""

    shares: tuple[float, ...]  # of the frames; the first is 0
    hottest: tuple[float, ...]  # probability, the frames with most heat replaced first
    coldest: tuple[float, ...]  # probability, those with least heat first


def look(model: ActionRecognizer, maps: Tensor, index: int, on: On = "auto") -> Look:
    """Where a model in eval mode looks for class `index`; `maps` (1, T, C0, h0, w0) is what its trunk gave.

    `on` is `states` or `maps`, or `auto`: states where there is a ConvGRU.

    >>> from kinegru.models.zoo import create_model
    >>> model = create_model("mobilenet_convgru_mcam_aff", 2, backbone="mobilenetv2_050", hidden_channels=4, width=8)
    >>> found = look(model.eval(), model.trunk(torch.rand(1, 3, 3, 96, 96)), 1)
    >>> found.heat.shape, found.scores.shape, found.spatial.shape
    ((3, 3, 3), (3, 2), (3, 6, 6))
    """
    temporal: Any = model.temporal
    recurrent = made_of(temporal, MapRecurrence)
    with torch.no_grad():
        features = model.neck(maps)  # (1, S, C, h, w)
    with torch.enable_grad(), _recurrence_backward(temporal):
        features = features.detach().requires_grad_()
        parts = temporal.per_frame(features)  # (1, S, ...)
        state: State | None = None
        states: list[Tensor] = []
        gates, scores = [], []
        for t in range(parts.shape[1]):
            part = parts[:, t : t + 1]
            if recurrent:
                with torch.no_grad():
                    gates.append(temporal.gates(part, state))
            state = temporal.advance(part, state)
            if recurrent:
                states.extend(state.last)  # of each member (1, hidden, h, w), on the way from here to the logit
            with torch.no_grad():
                scores.append(model.classifier(temporal.read(state))[0].float().softmax(0))
        assert state is not None, "a clip has at least one frame"
        logit = model.classifier(temporal.read(state))[0, index]
        on_states = recurrent and on != "maps"
        gradients = torch.autograd.grad(logit, states if on_states else [features])
    after = _in_steps(states, parts.shape[1]).detach() if recurrent else None  # (1, S, hidden, h, w)
    if on_states:
        assert after is not None
        heat = _heat(after, _in_steps(gradients, parts.shape[1]))
    else:
        heat = _heat(features.detach(), gradients[0])
    spatial, channels = _masks(model, maps)
    return Look(
        method="states" if on_states else "maps",
        heat=_numpy(heat),
        scores=_numpy(torch.stack(scores)),
        spatial=None if spatial is None else _numpy(spatial[0, :, 0] - 0.5),
        channels=None if channels is None else _numpy((channels[0, :, :, 0, 0] - 0.5).abs().mean(dim=1)),
        gates=None if after is None else _summary(gates, after[0]),
    )


@torch.no_grad()
def deletion(model: ActionRecognizer, maps: Tensor, index: int, heat: Floats) -> Deletion:
    """The probability of class `index` as the frames with most and with least `heat` (S, h, w) are replaced.

    What replaces them is the mean of the trunk's maps (1, T, C0, h0, w0), a frame of the clip in which nothing moves.
    """
    count = maps.shape[1]
    steps = np.arange(count) * len(heat) // count  # the step of each frame
    order = np.argsort(-heat.mean(axis=(1, 2))[steps], kind="stable")
    mean = maps.mean(dim=1, keepdim=True)
    counts = sorted({round(share * count) for share in SHARES} - {0, count})

    def score(replaced: NDArray[np.int64]) -> float:
        changed = maps.clone()
        changed[:, torch.from_numpy(replaced.copy()).to(maps.device)] = mean
        return float(model.head(model.neck(changed))[0].float().softmax(0)[index])

    start = score(order[:0])
    hottest = [score(order[:number]) for number in counts]
    coldest = [score(order[count - number :]) for number in counts]
    shares = tuple(round(number / count, 4) for number in (0, *counts))
    return Deletion(shares, (start, *hottest), (start, *coldest))


# -- steps --------------------------------------------------------------------------------------------------------


def _in_steps(tensors: list[Tensor] | tuple[Tensor, ...], steps: int) -> Tensor:
    """Of S steps the members' (1, hidden, h, w), one step after the other -> (1, S, members · hidden, h, w)."""
    return torch.cat(tensors, dim=1).unflatten(1, (steps, -1))


def _recurrence_backward(temporal: nn.Module) -> AbstractContextManager[Any]:
    """cuDNN has no backward pass of an LSTM or a GRU in eval mode; torch's own kernels have."""
    return torch.backends.cudnn.flags(enabled=False) if made_of(temporal, VectorRecurrence) else nullcontext()


def _heat(activations: Tensor, gradients: Tensor) -> Tensor:
    """Both (1, S, C, h, w) -> (S, h, w)."""
    weights = gradients.mean(dim=(3, 4), keepdim=True)  # α
    level = activations.flatten(3).median(dim=3).values[..., None, None]  # (1, S, C, 1, 1)
    return (weights * (activations - level)).sum(dim=2).relu()[0]


def _masks(model: ActionRecognizer, maps: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """M_s (1, T, 1, h0, w0) and M_c (1, T, C0, 1, 1) of an encoder with an excitation."""
    excitation = getattr(model.encoder.neck, "excitation", None)
    if excitation is None:
        return None, None
    with torch.no_grad():
        return excitation.masks(maps)  # type: ignore[operator]


def _summary(gates: list[tuple[Tensor, Tensor]], states: Tensor) -> Gates:
    """The means of z and r of each step, and of how far the states (S, hidden, h, w) moved; the first from zero."""
    before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
    change = (states - before).abs().mean(dim=(1, 2, 3))
    update, reset = (_numpy(torch.stack([gate.mean() for gate in both])) for both in zip(*gates, strict=True))
    return Gates(update, reset, _numpy(change))


def _numpy(values: Tensor) -> Floats:
    return values.detach().float().cpu().numpy()
