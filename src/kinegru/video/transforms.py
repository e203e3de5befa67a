"""From frames to the network's input: one resize and one normalisation for training, evaluation and use.

* Everything up to the last step is uint8: crop, resize (torch's antialiased uint8 kernels on channels-last memory),
  flip, colour. Only then comes float32, (x / 255 - mean) / std.
* A live frame and the same frame in a clip give equal bits.
* An augmentation is drawn once a clip: the same crop, flip and colours for all its frames. Motion stays motion.
* A model may see optical flow, motion saliency and energy (`kinegru.video.motion`) or time as colour
  (`kinegru.video.stacked`) beside RGB, or in its place (`modalities`): more channels of the same frames, cut and
  mirrored with them.
* The background of a camera that stands can be taken away (`kinegru.video.background`), between resize and flip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from kinegru.errors import UsageError
from kinegru.video.background import GREY, without_background
from kinegru.video.motion import CHANNELS, NORMALISE
from kinegru.video.reader import Frame
from kinegru.video.sampling import Jitter, Sampling
from kinegru.video.stacked import LUMA, around

PICTURES = ("rgb", "sg3i")  # what is made of frames, and normalised as they are

Box = tuple[int, int, int, int]  # top, left, height, width in pixels of the frame


@dataclass(frozen=True)
class Preprocessing:
    """How frames become input; travels in the model file, so that a model is always used as it was trained.

    Calling it turns uint8 frames (T, H, W, 3) RGB into a float32 tensor (T, 3, size, size). With mean and std 0.5 its
    values lie in -1 .. 1. Raises UsageError for settings that make no sense.

    >>> preprocessing = Preprocessing(frames=4, size=32)
    >>> preprocessing(np.full((4, 48, 64, 3), 255, np.uint8)).shape
    torch.Size([4, 3, 32, 32])
    >>> Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    True
    """

    frames: int = 40  # sampled from a clip
    size: int = 299  # side of the square input, pixels
    fit: Literal["stretch", "crop", "pad"] = "stretch"  # whole frame stretched | centre square | letterboxed in grey
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # both antialiased
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # RGB, of values in 0 .. 1
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    modalities: tuple[str, ...] = ("rgb",)  # a frame's channels: rgb 3, flow 20, saliency 1, energy 3, sg3i 3
    rate: float | None = None  # frames a second, of a part of the clip; None: the frames are spread over all of it
    windows: int = 1  # parts of a clip that a prediction is the mean of
    background: Literal["keep", "remove"] = "keep"  # remove: pictures less their median over the sampled frames

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        distinct = set(self.modalities)
        sound = len(distinct) == len(self.modalities) > 0 and distinct <= set(CHANNELS)
        _require(sound, f"modalities must be some of {', '.join(CHANNELS)}, not {', '.join(self.modalities)}")
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        _require(self.frames >= 1, f"frames must be at least 1, not {self.frames}")
        _require(self.rate is None or self.rate > 0, f"rate must be above 0, not {self.rate}")
        _require(self.windows >= 1, f"windows must be at least 1, not {self.windows}")
        _require(self.windows == 1 or self.rate is not None, "windows are parts of a clip: give a rate as well")
        known = ("keep", "remove")
        _require(self.background in known, f"background must be keep or remove, not {self.background!r}")
        if self.background == "remove":
            _require(
                self.needs_pictures, f"background remove is for {' and '.join(PICTURES)}, which this model does not see"
            )
            least = "background remove takes the median of a clip: it needs at least 3 frames"
            _require(self.frames >= 3, f"{least}, not {self.frames}")
        _require(self.size >= 1, f"size must be at least 1, not {self.size}")
        _require(self.fit in ("stretch", "crop", "pad"), f"fit must be stretch, crop or pad, not {self.fit!r}")
        known = ("bicubic", "bilinear")
        _require(self.interpolation in known, f"interpolation must be bicubic or bilinear, not {self.interpolation!r}")
        _require(len(self.mean) == len(self.std) == 3, "mean and std must have three values, for red, green and blue")
        _require(min(self.std) > 0, f"std must be above 0, not {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values that JSON can hold; those that came later only where they are not the default.

        >>> Preprocessing(size=96).to_dict()["size"]
        96
        """
        settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        for name in ("modalities", "rate", "windows", "background"):  # older files and caches stay valid
            if getattr(self, name) == getattr(type(self), name):
                del settings[name]
        return settings

    @property
    def places(self) -> tuple[float, ...]:
        """Of the windows: 0 at the clip's beginning, 1 at its end; evenly spaced, those next to the middle first.

        >>> Preprocessing(rate=12.5, windows=3).places
        (0.5, 0.0, 1.0)
        """
        if self.windows == 1:
            return (0.5,)
        return tuple(sorted(np.linspace(0, 1, self.windows).tolist(), key=lambda place: abs(place - 0.5)))

    def sampling(self, window: int = 0, jitter: Jitter | None = None) -> Sampling:
        """Which frames of a clip are taken."""
        return Sampling(self.frames, self.rate, self.places[window], jitter)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises UsageError for a key it does not know: it may change what the model sees.

        >>> Preprocessing.from_dict({"size": 96, "frames": 8}).frames
        8
        """
        unknown = sorted(set(settings) - {field.name for field in fields(cls)})
        _require(not unknown, f"unknown preprocessing settings: {', '.join(unknown)}")
        return cls(**settings)

    @property
    def channels(self) -> int:
        """Of one frame of the network's input."""
        return sum(CHANNELS[modality] for modality in self.modalities)

    @property
    def needs_flow(self) -> bool:
        """Whether anything is computed from optical flow."""
        return not set(self.modalities).issubset(PICTURES)

    @property
    def needs_pictures(self) -> bool:
        """Whether anything is made of the frames themselves."""
        return not set(self.modalities).isdisjoint(PICTURES)

    @property
    def needs_neighbours(self) -> bool:
        """Whether a picture is made of a frame and those before and after it."""
        return "sg3i" in self.modalities

    def pictured(self, indices: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Of which frames of a clip the pictures of those at `indices` (T,) are made: (T, 1), with neighbours (T, 3).

        >>> Preprocessing(modalities=("rgb", "sg3i")).pictured(np.array([0, 5]), 10).tolist()
        [[0, 0, 2], [3, 5, 7]]
        """
        return around(indices, length) if self.needs_neighbours else indices[:, None]

    @property
    def sees_motion(self) -> bool:
        """Whether a frame is seen with its neighbours in the source: single frames are not enough."""
        return self.modalities != ("rgb",)

    @property
    def mixes_frames(self) -> bool:
        """Whether what the network sees of a frame depends on the others of its clip."""
        return self.sees_motion or self.background == "remove"

    def __call__(self, frames: Frame) -> torch.Tensor:
        """Frames uint8 (T, H, W, 3) -> float32 (T, 3, size, size). T is as given; sampling is done while reading.

        Raises UsageError where motion is seen: sampled frames do not show it, `clip_input` takes whole clips.
        """
        _require(not self.sees_motion, "this model sees motion: it takes whole clips, not single frames")
        return self.normalise(self.clip(self.resize(frames)))

    def clip(self, images: torch.Tensor) -> torch.Tensor:
        """What is done to all resized frames of a clip together, uint8 (T, size, size, 3) -> the same shape."""
        return without_background(images) if self.background == "remove" else images

    def frame(self, frame: Frame) -> torch.Tensor:
        """One frame uint8 (H, W, 3) -> float32 (3, size, size), equal in every bit to what the clip path gives for it.

        Raises UsageError where a frame is not enough (`mixes_frames`).

        >>> Preprocessing(size=8).frame(np.zeros((5, 7, 3), np.uint8)).unique()
        tensor([-1.])
        """
        _require(self.background == "keep", "this model takes the background of a clip away: it takes whole clips")
        return self(frame[None])[0]

    def resize(self, frames: Frame, box: Box | None = None, fill: int = GREY) -> torch.Tensor:
        """Cut `box` (default: what `fit` keeps) out of uint8 frames (T, H, W, C), resize it: uint8 (T, size, size, C).

        `fill` is what `pad` puts around it.

        >>> Preprocessing(size=8, fit="pad").resize(np.zeros((2, 4, 8, 3), np.uint8))[0, :, 0, 0]
        tensor([127, 127,   0,   0,   0,   0, 127, 127], dtype=torch.uint8)
        """
        top, left, height, width = box or self.region(frames.shape[1], frames.shape[2])
        images = _tensor(frames[:, top : top + height, left : left + width])  # (T, h, w, 3)
        if self.fit != "pad":
            return scale(images, self.size, self.size, self.interpolation)
        factor = self.size / max(height, width)
        inner_height, inner_width = max(1, round(height * factor)), max(1, round(width * factor))
        canvas = torch.full((len(frames), self.size, self.size, frames.shape[3]), fill, dtype=torch.uint8)
        y, x = (self.size - inner_height) // 2, (self.size - inner_width) // 2
        canvas[:, y : y + inner_height, x : x + inner_width] = scale(
            images, inner_height, inner_width, self.interpolation
        )
        return canvas

    def region(self, height: int, width: int) -> Box:
        """The part of a frame that `fit` keeps: all of it, or the square in its middle."""
        if self.fit != "crop":
            return 0, 0, height, width
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side

    def normalise(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 (T, size, size, channels) -> float32 (T, channels, size, size); pictures as (x / 255 - mean) / std."""
        shape = (frames.shape[0], self.channels, *frames.shape[1:3])
        values = torch.from_numpy(
            np.empty(shape, np.float32)
        )  # numpy asks for huge pages, torch does not: 1.5 x faster
        values.copy_(frames.permute(0, 3, 1, 2))  # (T, C, S, S)
        mean, std = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (self.mean, self.std))
        widths = [CHANNELS[modality] for modality in self.modalities]
        for modality, planes in zip(self.modalities, values.split(widths, dim=1), strict=True):
            if modality in PICTURES:
                planes.sub_(255 * mean).div_(255 * std)
            else:
                NORMALISE[modality](planes)
        return values


def scale(images: torch.Tensor, height: int, width: int, interpolation: str = "bicubic") -> torch.Tensor:
    """Images uint8 (T, h, w, C), resized with antialiasing: uint8 (T, height, width, C).

    >>> scale(torch.zeros(2, 9, 12, 3, dtype=torch.uint8), 3, 4).shape
    torch.Size([2, 3, 4, 3])
    """
    if images.shape[1:3] == (height, width):
        return images.clone()
    planes = images.permute(0, 3, 1, 2)  # (T, C, h, w), channels-last in memory: the fast kernels, no copy
    planes = F.interpolate(planes, (height, width), mode=interpolation, antialias=True, align_corners=False)
    return planes.permute(0, 2, 3, 1)  # (T, height, width, C)


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a training clip, drawn once for all its frames.

    >>> Augmentation(flip=0.0).crop_scale
    (0.7, 1.0)
    """

    crop_scale: tuple[float, float] = (0.7, 1.0)  # share of the frame's area that is kept, at a random place
    flip: float = 0.5  # probability of mirroring left and right
    brightness: float = 0.2  # factor drawn from 1 - b .. 1 + b
    contrast: float = 0.2  # the same, about the clip's mean grey
    saturation: float = 0.2  # the same, about each pixel's grey
    time_crop: float = 1.0  # smallest share of the clip's length that is kept, at a random place
    even_steps: bool = False  # frames at equal steps in time, instead of a random place in every segment

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop_scale", tuple(float(value) for value in self.crop_scale))
        low, high = self.crop_scale
        _require(0 < low <= high <= 1, f"crop_scale must rise within 0 .. 1, not {self.crop_scale}")
        _require(0 < self.time_crop <= 1, f"time_crop is a share of the clip's length, not {self.time_crop}")
        _require(0 <= self.flip <= 1, f"flip is a probability, not {self.flip}")
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) <= 1, f"{name} must lie in 0 .. 1, not {getattr(self, name)}")

    def draw(self, rng: np.random.Generator) -> Draw:
        """The randomness of one clip: always eight numbers, so that a seed means the same under any setting."""
        numbers = rng.random(8)
        low, high = self.crop_scale
        jitter = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (
            1 + size * (2 * n - 1) for size, n in zip(jitter, numbers[4:7], strict=True)
        )
        return Draw(
            side=float(np.sqrt(low + (high - low) * numbers[0])),
            place=(float(numbers[1]), float(numbers[2])),
            flip=bool(numbers[3] < self.flip),
            brightness=float(brightness),
            contrast=float(contrast),
            saturation=float(saturation),
        )


@dataclass(frozen=True)
class Draw:
    side: float  # of the crop, relative to what is cropped
    place: tuple[float, float]  # of the crop, 0 .. 1 from top and from left
    flip: bool
    brightness: float
    contrast: float
    saturation: float

    def box(self, height: int, width: int, preprocessing: Preprocessing) -> Box:
        """The crop: of the kept region's shape, smaller by `side`, anywhere in the frame."""
        if self.side >= 1:
            return preprocessing.region(height, width)
        _, _, kept_height, kept_width = preprocessing.region(height, width)
        h, w = max(1, round(kept_height * self.side)), max(1, round(kept_width * self.side))
        return round((height - h) * self.place[0]), round((width - w) * self.place[1]), h, w

    def recolour(self, frames: torch.Tensor, modality: str = "rgb") -> torch.Tensor:
        """Mirror and recolour uint8 frames (T, S, S, 3): saturation, contrast and brightness as one linear map.

        Where colours are time (`sg3i`) saturation is speed, and stays as it is.
        """
        if modality == "sg3i" and self.saturation != 1:
            return replace(self, saturation=1.0).recolour(frames)
        if self.flip:
            frames = frames.flip(2)
        if self.brightness == self.contrast == self.saturation == 1:
            return frames
        luma = torch.tensor(LUMA)
        mean = torch.stack([frame.reshape(-1, 3).sum(0) for frame in frames]).sum(0) / (frames.numel() // 3)  # (3,)
        grey = mean @ luma  # the clip's mean grey, which saturation leaves as it is
        mix = self.saturation * torch.eye(3) + (1 - self.saturation) * luma  # (3 out, 3 in)
        mix, shift = mix * self.contrast * self.brightness, grey * (1 - self.contrast) * self.brightness
        result = torch.empty((len(frames), 3, *frames.shape[1:3]), dtype=torch.uint8)  # (T, 3, S, S)
        for frame, changed in zip(frames, result, strict=True):  # one at a time: small enough for the processor's cache
            planes = frame.permute(2, 0, 1).reshape(3, -1).to(torch.float32)  # (3, S * S)
            changed.view(3, -1).copy_(torch.mm(mix, planes).add_(shift).round_().clamp_(0, 255))
        return result.permute(0, 2, 3, 1)  # (T, S, S, 3)


def augment_clip(
    frames: Frame, preprocessing: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> torch.Tensor:
    """A training clip: uint8 frames (T, H, W, 3) -> float32 (T, 3, size, size), with one crop, flip and colour change.

    >>> clip = np.zeros((2, 24, 32, 3), np.uint8)
    >>> augment_clip(clip, Preprocessing(size=16), Augmentation(), np.random.default_rng(0)).shape
    torch.Size([2, 3, 16, 16])
    """
    draw = augmentation.draw(rng)
    box = draw.box(frames.shape[1], frames.shape[2], preprocessing)
    return preprocessing.normalise(draw.recolour(preprocessing.clip(preprocessing.resize(frames, box))))


def _tensor(images: Frame) -> torch.Tensor:
    """Without a copy where torch can take the memory as it is: writable, and not read backwards."""
    if not images.flags.writeable or min(images.strides) < 0:
        images = images.copy()
    return torch.from_numpy(images)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
