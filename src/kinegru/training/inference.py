"""A model over a data set: class scores of every readable clip, with one process or many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from kinegru.data.dataset import ClipDataset, load_batches, plain_views
from kinegru.data.feature_cache import CachedDataset


@dataclass(frozen=True)
class Scores:
    """Scores of the readable clips, in the order of the data set."""

    indices: np.ndarray  # (n,) positions in the data set
    targets: np.ndarray  # (n,) class indices, -1 where unknown
    probabilities: np.ndarray  # (n, K) float64, rows sum to 1
    errors: dict[int, str]  # unreadable clips and why

    def mean_loss(self) -> float:
        """Cross-entropy in nats a clip."""
        chosen = self.probabilities[np.arange(len(self.targets)), self.targets]
        return float(-np.log(chosen.clip(1e-12)).mean())

    def top(self, k: int) -> float:
        """Share of clips whose class is among the k best, 0 to 1."""
        best = np.argsort(-self.probabilities, axis=1)[:, :k]
        return float((best == self.targets[:, None]).any(axis=1).mean())


def score_clips(
    model: Callable[[torch.Tensor], torch.Tensor],
    dataset: ClipDataset | CachedDataset,
    accelerator: Accelerator,
    batch: int = 8,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Softmax of `model`'s logits for every clip, the mean over its plain views. `model` is used as it is: put it in
    eval mode before.
    """
    views = plain_views(dataset.preprocessing)
    mine = [(i, view) for i in range(len(dataset))[accelerator.process_index :: accelerator.num_processes]
            for view in views]  # fmt: skip
    batches = [mine[start : start + batch] for start in range(0, len(mine), batch)]
    found: dict[int, tuple[int, list[np.ndarray]]] = {}
    errors: dict[int, str] = {}
    with torch.inference_mode():
        for number, decoded in enumerate(load_batches(dataset, batches, workers), start=1):
            errors |= decoded.errors
            if decoded.inputs is not None:
                with accelerator.autocast():  # the model alone: no stacking of float16 maps
                    logits = model(decoded.inputs.to(accelerator.device).float())  # (n, K)
                probabilities = logits.double().softmax(dim=1).cpu().numpy()
                for index, target, one in zip(decoded.indices, decoded.targets.tolist(), probabilities, strict=True):
                    found.setdefault(index, (target, []))[1].append(one)
            if progress is not None:
                progress(min(number * batch, len(mine)) // len(views), len(mine) // len(views))
    means = [(i, target, np.mean(each, axis=0)) for i, (target, each) in found.items() if i not in errors]
    rows = sorted(gather_object(means), key=lambda row: row[0])
    return Scores(
        indices=np.array([index for index, _, _ in rows], dtype=np.int64),
        targets=np.array([target for _, target, _ in rows], dtype=np.int64),
        probabilities=np.array([p for _, _, p in rows], dtype=np.float64),
        errors=dict(gather_object(list(errors.items()))),
    )


class FromStart(nn.Module):
    """A recogniser as a function of what a data set gives: frames, or cached maps of its frozen part."""

    def __init__(self, recognizer: nn.Module, cached: bool) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.cached = cached

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (n, T, ...) -> logits (n, K)."""
        return self.recognizer.from_cache(inputs) if self.cached else self.recognizer(inputs)  # type: ignore[operator]
