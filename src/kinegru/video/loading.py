"""From a clip, in a file or in memory, to the network's input: the one path there is, for training, test and use.

* `load_clip` resizes frames in groups while it decodes: a group is faster than single frames, and the whole clip at
  full size is never in memory. `clip_input` gives the same for frames in memory.
* Optical flow, motion saliency and energy are of the same frames, cut and mirrored with them (`kinegru.video.motion`).
* Time as colour (`kinegru.video.stacked`) is made of resized frames; RGB is the middle one of every three.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from kinegru.errors import UsageError
from kinegru.video.flow import Fields, FlowReader, Numbers, flow_of_frames, read_flow, windows
from kinegru.video.motion import motion_images
from kinegru.video.reader import Frame, VideoInfo, read_clip
from kinegru.video.sampling import draw_jitter, uniform_indices
from kinegru.video.stacked import SamplingAround, stacked_grey
from kinegru.video.transforms import Augmentation, Draw, Preprocessing

GROUP_BYTES = 24 * 2**20  # of full-size frames, resized together
LARGE_FRAME = 4 * 2**20  # bytes; from here on copying a frame into a group costs more than the group saves


def load_clip(
    path: str | os.PathLike[str],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
    flow_of: FlowReader = read_flow,
    window: int = 0,
) -> torch.Tensor:
    """A clip file as network input: float32 (T, C, size, size), T = preprocessing.frames. The one path there is.

    With `augmentation` and `rng` a training view: frames at random places of their segments, crop, flip and colours
    drawn once. Otherwise frames in the middle of their segments and nothing random; `window` is which of
    `preprocessing.places`. C = preprocessing.channels is 3 for RGB; where flow is asked for, `flow_of` gives it. Raises
    VideoError, and UsageError for flow without OpenCV.

    >>> from kinegru.video.synthetic import example_clip
    >>> load_clip(example_clip(), Preprocessing(frames=8, size=64)).shape
    torch.Size([8, 3, 64, 64])
    """
    return preprocessing.normalise(load_images(path, preprocessing, augmentation, rng, flow_of, window)[0])


def load_windows(path: str | os.PathLike[str], preprocessing: Preprocessing) -> torch.Tensor:
    """All windows that a prediction is the mean of: float32 (windows, T, C, size, size). Raises as `load_clip` does.

    >>> from kinegru.video.synthetic import example_clip
    >>> load_windows(example_clip(), Preprocessing(frames=4, size=64, rate=12.5, windows=3)).shape
    torch.Size([3, 4, 3, 64, 64])
    """
    return torch.stack([load_clip(path, preprocessing, window=number) for number in range(preprocessing.windows)])


def load_images(
    path: str | os.PathLike[str],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
    flow_of: FlowReader = read_flow,
    window: int = 0,
) -> tuple[torch.Tensor, VideoInfo]:
    """A clip before the normalisation, uint8 (T, size, size, C), a quarter of the memory; and what is known of the
    file: its length, rate, and whether it is damaged.

    >>> from kinegru.video.synthetic import example_clip
    >>> images, info = load_images(example_clip(), Preprocessing(frames=8, size=64))
    >>> images.dtype, info.fps
    (torch.uint8, 25.0)
    """
    draw = None if augmentation is None or rng is None else augmentation.draw(rng)
    groups = _Groups(preprocessing, draw)
    jitter = None
    if augmentation is not None and rng is not None:
        jitter = draw_jitter(preprocessing.frames, rng, augmentation.time_crop, augmentation.even_steps)
    sampling = preprocessing.sampling(window, jitter)
    wanted = SamplingAround(sampling) if preprocessing.needs_neighbours else sampling
    places, info = read_clip(path, wanted, each=groups.add if preprocessing.needs_pictures else lambda frame: 0)
    images = _pictures(groups.clip(places), preprocessing) if preprocessing.needs_pictures else {}
    if draw is not None:
        images = {modality: draw.recolour(images[modality], modality) for modality in images}
    if preprocessing.needs_flow:
        indices = sampling.indices(info.frames, info.fps)
        images |= _motion(lambda numbers: flow_of(path, numbers), indices, info.frames, preprocessing, draw)
    return _joined(images, preprocessing), info


def clip_input(frames: Frame, preprocessing: Preprocessing) -> torch.Tensor:
    """All frames of a clip in memory, uint8 (L, H, W, 3) -> what `load_clip` gives for a file of them: (T, C, S, S).

    Raises UsageError for another kind of array.

    >>> clip_input(np.zeros((30, 48, 64, 3), np.uint8), Preprocessing(frames=4, size=32)).shape
    torch.Size([4, 3, 32, 32])
    """
    require_frames(frames)
    indices = uniform_indices(len(frames), preprocessing.frames)
    return input_at(indices, len(frames), preprocessing, frames.__getitem__, lambda n: flow_of_frames(frames, n))


def input_at(
    indices: NDArray[np.int64],
    length: int,
    preprocessing: Preprocessing,
    pictures: Callable[[Numbers], Frame],
    flow: Callable[[Numbers], Fields],
) -> torch.Tensor:
    """Network input of the frames at `indices` in a clip of `length`: float32 (len(indices), C, S, S).

    `pictures` and `flow` give what is asked for by number: frames uint8 (n, H, W, 3), and fields as `flow_of_frames`.

    >>> frames = np.zeros((30, 48, 64, 3), np.uint8)
    >>> input_at(np.array([2, 9]), 30, Preprocessing(size=32), frames.__getitem__, flow_of_frames).shape
    torch.Size([2, 3, 32, 32])
    """
    images: dict[str, torch.Tensor] = {}
    if preprocessing.needs_pictures:
        wanted = preprocessing.pictured(indices, length).reshape(-1)
        numbers, places = np.unique(wanted, return_inverse=True)  # neighbours of one are often those of another
        images = _pictures(preprocessing.resize(pictures(numbers))[places], preprocessing)
    if preprocessing.needs_flow:
        images |= _motion(flow, indices, length, preprocessing)
    return preprocessing.normalise(_joined(images, preprocessing))


def require_frames(frames: object, single: bool = False) -> None:
    """Raise UsageError, one line, for what is no clip, uint8 (L, H, W, 3), or with `single` no frame, (H, W, 3).

    >>> require_frames(np.zeros((48, 64), np.uint8), single=True)
    Traceback (most recent call last):
    kinegru.errors.UsageError: a frame must be a NumPy array, uint8 (H, W, 3) RGB, not uint8 (48, 64)
    """
    what, shape = ("a frame", "(H, W, 3)") if single else ("frames", "(L, H, W, 3)")
    if not isinstance(frames, np.ndarray):
        raise UsageError(f"{what} must be a NumPy array, uint8 {shape} RGB, not a {type(frames).__name__}")
    dimensions = 3 if single else 4
    if frames.dtype != np.uint8 or frames.ndim != dimensions or frames.shape[-1] != 3 or not frames.size:
        raise UsageError(f"{what} must be a NumPy array, uint8 {shape} RGB, not {frames.dtype} {frames.shape}")


def _pictures(images: torch.Tensor, preprocessing: Preprocessing) -> dict[str, torch.Tensor]:
    """RGB and time as colour of T frames, uint8 (T, S, S, 3) each, from these resized, or where time is seen from these
    and their neighbours, (3 T, S, S, 3)."""
    found: dict[str, torch.Tensor] = {}
    if preprocessing.needs_neighbours:
        found["sg3i"] = stacked_grey(images)
        images = images[1::3]
    if "rgb" in preprocessing.modalities:
        found["rgb"] = images
    return {modality: preprocessing.clip(picture) for modality, picture in found.items()}


def _motion(
    flow: Callable[[Numbers], Fields],
    indices: NDArray[np.int64],
    length: int,
    preprocessing: Preprocessing,
    draw: Draw | None = None,
) -> dict[str, torch.Tensor]:
    """Flow, saliency and energy of the frames at `indices` in a clip of `length` frames: uint8 (T, S, S, C) each."""
    stacks = windows(indices, length)  # (T, FIELDS)
    numbers, places = np.unique(stacks, return_inverse=True)
    fields = flow(numbers)
    box = None if draw is None else draw.box(fields.shape[1], fields.shape[2], preprocessing)

    def resize(images: NDArray[np.uint8], fill: int) -> torch.Tensor:
        return preprocessing.resize(images, box, fill)

    flip = draw is not None and draw.flip
    return motion_images(fields, places.reshape(stacks.shape), preprocessing.modalities, resize, flip)


def _joined(images: dict[str, torch.Tensor], preprocessing: Preprocessing) -> torch.Tensor:
    parts = [images[modality] for modality in preprocessing.modalities]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)


class _Groups:
    """Takes frames one by one as they are decoded and resizes them in groups of up to GROUP_BYTES."""

    def __init__(self, preprocessing: Preprocessing, draw: Draw | None) -> None:
        self.preprocessing, self.draw = preprocessing, draw
        self.group = np.empty((0, 0, 0, 3), np.uint8)  # (G, H, W, 3), used again and again: fresh memory is slow
        self.waiting = self.count = 0
        self.resized: list[torch.Tensor] = []

    def add(self, frame: Frame) -> int:
        """The frame's place among all frames ever added."""
        self.count += 1
        if frame.nbytes > LARGE_FRAME:
            self._resize(frame[None])
            return self.count - 1
        if self.group.shape[1:] != frame.shape:
            size = min(self.preprocessing.frames, max(1, GROUP_BYTES // frame.nbytes))
            self.group = np.empty((size, *frame.shape), np.uint8)
        self.group[self.waiting] = frame
        self.waiting += 1
        if self.waiting == len(self.group):
            self._resize(self.group)
            self.waiting = 0
        return self.count - 1

    def clip(self, places: list[int]) -> torch.Tensor:
        """The resized frames at these places: uint8 (T, S, S, 3)."""
        if self.waiting:
            self._resize(self.group[: self.waiting])
        resized = self.resized[0] if len(self.resized) == 1 else torch.cat(self.resized)
        return resized if places == list(range(len(resized))) else resized[places]

    def _resize(self, frames: Frame) -> None:
        box = None if self.draw is None else self.draw.box(frames.shape[1], frames.shape[2], self.preprocessing)
        self.resized.append(self.preprocessing.resize(frames, box))
