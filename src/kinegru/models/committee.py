"""Several recurrences and classifiers over one encoder, each from a start of its own; their scores are averaged.

Deep ensembles (Lakshminarayanan et al., NeurIPS 2017) at the price of heads: what few clips leave open, every network
settles by the chance of its start, and the mean of several is steadier than one. The encoder, nearly all the
arithmetic, runs once. Notable:

* Every member has a loss of its own (the training's is their mean), so none leans on another.
* The members' parts, states and read-outs lie one after the other on the channel axis. To a stream, an export or a
  picture of the states a committee is one wider recurrence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kinegru.models.classifiers import JoinedClassifier, LinearClassifier, fuse_scores
from kinegru.models.state import State
from kinegru.models.temporal import MapRecurrence, VectorRecurrence


class RecurrenceCommittee(nn.Module):
    """Recurrences of one kind side by side: (N, T, C, h, w) -> (N, Σ hidden, h, w), or (N, Σ hidden, 1, 1) of vectors.

    >>> members = [MapRecurrence(8, hidden_channels=4, differences=True) for _ in range(3)]
    >>> RecurrenceCommittee(members)(torch.rand(2, 5, 8, 6, 6)).shape
    torch.Size([2, 12, 6, 6])
    """

    def __init__(self, members: Sequence[MapRecurrence | VectorRecurrence]) -> None:
        super().__init__()
        self.members: Any = nn.ModuleList(members)
        self.out_channels = sum(member.out_channels for member in members)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.advance(self.per_frame(x)))

    def per_frame(self, x: Tensor) -> Tensor:
        """Maps (N, T, C, h, w) -> the members' parts, joined on the third axis."""
        return torch.cat([member.per_frame(x) for member in self.members], dim=2)

    def advance(self, parts: Tensor, state: State | None = None) -> State:
        """What `per_frame` gave for the next frames, and the state before -> the state after."""
        after = [member.advance(own, before) for member, own, before in self._each(parts, state)]
        return State(
            after[0].frames,
            torch.cat([own.kept for own in after], dim=1),
            tuple(tensor for own in after for tensor in own.last),
            None if after[0].previous is None else torch.cat([own.previous for own in after], dim=1),
        )

    def gates(self, part: Tensor, state: State | None = None) -> tuple[Tensor, Tensor]:
        """z and r of the next frame's step, of ConvGRUs: each (N, Σ hidden, h, w); see `MapRecurrence.gates`."""
        found = [member.gates(own, before) for member, own, before in self._each(part, state)]
        return torch.cat([z for z, _ in found], dim=1), torch.cat([r for _, r in found], dim=1)

    def read(self, state: State) -> Tensor:
        """The state -> the read-outs, joined on the channel axis."""
        states = self._apart(state)
        return torch.cat([m.read(own) for m, own in zip(self.members, states, strict=True)], dim=1)

    def _each(self, parts: Tensor, state: State | None) -> Iterator[tuple[Any, Tensor, State | None]]:
        """Every member with its own parts and its own state before them."""
        return zip(self.members, self._chunks(parts, 2), self._apart(state), strict=True)

    def _apart(self, state: State | None) -> list[State | None]:
        count = len(self.members)
        if state is None:
            return [None] * count
        each = len(state.last) // count
        kept = self._chunks(state.kept, 1)
        previous = [None] * count if state.previous is None else self._chunks(state.previous, 1)
        return [State(state.frames, kept[i], state.last[i * each : (i + 1) * each], previous[i]) for i in range(count)]

    def _chunks(self, x: Tensor, dim: int) -> tuple[Tensor, ...]:
        return x.chunk(len(self.members), dim)


def made_of(temporal: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a temporal model is of this kind, or a committee of such.

    >>> made_of(RecurrenceCommittee([MapRecurrence(8, 4), MapRecurrence(8, 4)]), MapRecurrence)
    True
    """
    return any(isinstance(module, kind) for module in temporal.modules())


class ClassifierCommittee(nn.Module):
    """Classifiers of one kind, each on its own recurrence's channels: (N, Σ C, h, w) -> scores of the clip.

    In training mode logits (N, members, K), for a loss a member. In eval mode (N, K), the logarithm of the mean of the
    members' softmaxes: a softmax gives that mean.

    >>> committee = ClassifierCommittee([JoinedClassifier(4, 6, width=16) for _ in range(3)])
    >>> committee.train()(torch.rand(2, 12, 5, 5)).shape, committee.eval()(torch.rand(2, 12, 5, 5)).shape
    (torch.Size([2, 3, 6]), torch.Size([2, 6]))
    """

    def __init__(self, members: Sequence[JoinedClassifier | LinearClassifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.members), dim=1)
        logits = torch.stack([member(part) for member, part in zip(self.members, parts, strict=True)], dim=1)
        return logits if self.training else self.fuse(logits)

    def fuse(self, logits: Tensor) -> Tensor:
        """Logits of every member (N, members, K) -> the logarithm of the mean score (N, K), float32 or wider."""
        return fuse_scores(logits, -math.log(len(self.members)))
