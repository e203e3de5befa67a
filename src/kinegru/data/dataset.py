"""Clips as a torch dataset: a bad clip is an answer, not an exception.

A *view* is one way to look at a clip. View 0 is the plain one (uniform frames, no augmentation) that evaluation and
prediction use, beside -1, -2, ... where the preprocessing asks for several windows. Views 1, 2, ... are augmented, and
each is fixed by its number and the clip's name alone. So a view is the same in every epoch, process and run, which is
what lets it be cached, resumed and split over processes.
"""

from __future__ import annotations

import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kinegru.data.catalog import Clip
from kinegru.errors import VideoError
from kinegru.video.flow import FlowReader, read_flow, require_opencv
from kinegru.video.loading import load_clip
from kinegru.video.transforms import Augmentation, Preprocessing


@dataclass(frozen=True)
class Sample:
    """One view of one clip, or the reason why there is none."""

    index: int  # position of the clip in the data set
    target: int  # class index, -1 where the label is unknown
    inputs: torch.Tensor | None  # frames (T, C, S, S) float32, or cached maps (T, C, h, w) as stored
    error: str | None = None


def plain_views(preprocessing: Preprocessing) -> list[int]:
    """The views that a prediction is the mean of: view 0, and -1, -2, ... where there are several windows.

    >>> plain_views(Preprocessing(rate=12.5, windows=3))
    [0, -1, -2]
    """
    return list(range(0, -preprocessing.windows, -1))


def view_generator(clip: Clip, view: int) -> np.random.Generator:
    """The random numbers of one augmented view: the same for the same clip name and view number, everywhere.

    >>> from pathlib import Path
    >>> clip = Clip(Path("walk/ann.mp4"), "walk")
    >>> view_generator(clip, 1).integers(100) == view_generator(clip, 1).integers(100)
    np.True_
    """
    name = f"{clip.label}/{clip.path.name}"
    return np.random.default_rng([view, zlib.crc32(name.encode("utf-8", "surrogateescape"))])


def load_view(
    clip: Clip,
    view: int,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    flow_of: FlowReader = read_flow,
) -> torch.Tensor:
    """Decode one view of a clip: float32 (T, C, S, S). Raises `VideoError` where the file cannot be read."""
    if view <= 0 or augmentation is None:
        return load_clip(clip.path, preprocessing, flow_of=flow_of, window=max(0, -view))
    return load_clip(clip.path, preprocessing, augmentation, view_generator(clip, view), flow_of)


class ClipDataset(Dataset[Sample]):
    """Views of clips, decoded when asked for. An item is asked for by `(index, view)`, or by `index` for view 0.

    `labels` gives the class order; a clip whose label is not among them gets target -1. `flow_of` gives the optical
    flow, where the preprocessing asks for it: a `kinegru.data.flow_cache.FlowCache` computes it once a clip. Raises
    UsageError where flow is asked for and OpenCV is missing.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[str],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        flow_of: FlowReader = read_flow,
    ) -> None:
        if preprocessing.needs_flow:
            require_opencv()
        self.clips = list(clips)
        self.flow_of = flow_of
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        order = {label: index for index, label in enumerate(labels)}
        self.targets = [order.get(clip.label, -1) for clip in self.clips]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        index, view = key if isinstance(key, tuple) else (key, 0)
        try:
            inputs = load_view(self.clips[index], view, self.preprocessing, self.augmentation, self.flow_of)
        except VideoError as error:
            return Sample(index, self.targets[index], None, str(error))
        return Sample(index, self.targets[index], inputs)


@dataclass(frozen=True)
class Batch:
    """The good samples of a batch, stacked, and the bad ones by name."""

    inputs: torch.Tensor | None  # (n, T, ...), None where no sample was good
    targets: torch.Tensor  # (n,) int64
    indices: list[int]  # positions in the data set, good samples only
    errors: dict[int, str]  # position -> reason


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the good samples, keep the reasons of the bad.

    >>> batch = collate([Sample(0, 1, torch.zeros(2, 3)), Sample(1, 0, None, "b.avi: empty file")])
    >>> batch.inputs.shape, batch.indices, batch.errors
    (torch.Size([1, 2, 3]), [0], {1: 'b.avi: empty file'})
    """
    good = [sample for sample in samples if sample.inputs is not None]
    return Batch(
        inputs=torch.stack([sample.inputs for sample in good if sample.inputs is not None]) if good else None,
        targets=torch.tensor([sample.target for sample in good], dtype=torch.int64),
        indices=[sample.index for sample in good],
        errors={sample.index: sample.error or "unreadable" for sample in samples if sample.inputs is None},
    )


class Batches(Protocol):
    """Groups of (index, view) or index: a list of lists, or what decides only when the next one is asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence[tuple[int, int] | int]]: ...


def load_batches(
    dataset: Dataset[Sample],
    batches: Batches,
    workers: int = 0,
    collate_with: Callable[[list[Sample]], Any] = collate,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """The given batches of (index, view) or index, in order, read by up to `workers` processes.

    The loader has random numbers of its own, so opening one does not move those of dropout.

    >>> from kinegru.video.synthetic import example_clip
    >>> clips = ClipDataset([Clip(example_clip(), "walk")], ["walk"], Preprocessing(frames=2, size=16))
    >>> [batch.inputs.shape for batch in load_batches(clips, [[0]])]
    [torch.Size([1, 2, 3, 16, 16])]
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=min(workers, len(batches)),
        collate_fn=collate_with,
        generator=torch.Generator(),
        worker_init_fn=_leave_interrupts_to_the_parent,
        pin_memory=pin_memory,
    )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C, and SIGTERM where it is sent to all processes: the parent saves its state, then its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
