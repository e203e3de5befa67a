"""Everything that decides a training run, in one flat dataclass; its field comments are the help of `kinegru train`.

The defaults are the paper's recipe (docs/model.md): 40 frames, batch 32, dropout 0.5, Adam at 1e-4, 50 epochs.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from kinegru.errors import UsageError
from kinegru.video.transforms import Augmentation, Preprocessing


@dataclass
class TrainSettings:
    """How a model is built and trained."""

    model: str = "sc_xception_convgru_mcam_aff"
    """Name of the model; `kinegru.list_models()` gives all."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the model, e.g. --options.hidden_channels 64 or --options.readout mean."""
    backbone_weights: str = "imagenet"
    """ImageNet weights of the frame CNN: a .safetensors or .pth file, `imagenet` (downloaded by timm) or `none`."""
    profile: Literal["head", "tail", "full"] = "tail"
    """What is trained: head (ConvGRU and classifier), tail (also excitation and the last blocks), full (everything)."""

    frames: int = 40
    """Frames sampled from a clip."""
    rate: float | None = None
    """Frames a second, of a part of the clip: speed shows. By default the frames are spread over all of it."""
    windows: int = 1
    """Parts of a clip, evenly spaced, that a test or prediction averages over; needs a rate."""
    size: int | None = None
    """Side of the square image in pixels; by default the backbone's own."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How a frame becomes square: stretch, crop (short side, centre) or pad."""
    background: Literal["keep", "remove"] = "keep"
    """For cameras that stand, remove: the picture less its median over the clip, so that only what moves is seen."""

    epochs: int = 50
    """Passes over the training clips."""
    batch: int = 32
    """Clips an optimiser step, over all processes."""
    micro_batch: int | None = None
    """Clips at a time on one device; smaller than the batch means gradient accumulation."""
    learning_rate: float = 1e-4
    """Adam's step size."""
    encoder_rate: float = 1.0
    """The trained part of the encoder learns at this multiple of the rate, e.g. 0.1 for pretrained weights."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate over the run."""
    warmup_epochs: float = 0.0
    """Epochs over which the rate rises from 0."""
    label_smoothing: float = 0.0
    """Share of the target given to the other classes."""
    mixup: float = 0.0
    """Alpha of mix-up, which trains on blends of two clips, e.g. 0.2; 0 is off."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Mixed precision; auto takes bf16 or fp16 on a GPU that has it and float32 on a CPU."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is evaluated and kept, e.g. 0.99; 0 is off."""

    augment: bool = True
    """Train on augmented views: temporal jitter, crop, flip, colour."""
    crop_scale: float = 0.7
    """Smallest share of the frame's area that a training crop keeps."""
    flip: float = 0.5
    """Chance of a mirrored training view; 0 where left and right matter."""
    colour: float = 0.2
    """Strength of brightness, contrast and saturation changes in training views."""
    time_crop: float = 1.0
    """Smallest share of the clip's length that a training view keeps."""
    even_steps: bool = False
    """Training views with equal steps between frames, not a random place in every segment: speed stays visible."""
    views: int = 4
    """Augmented views a clip; with a cache they are computed once. 0 gives a new view every epoch (no cache)."""

    cache: str = "auto"
    """Folder of the feature cache; `auto` is a folder of the user, `off` computes everything every epoch."""
    cache_precision: Literal["float16", "uint8"] = "float16"
    """How cached maps are stored."""

    validation: float = 0.2
    """Share of the training clips, by whole groups, that chooses the best epoch; 0 keeps the last epoch. Where the data
    names validation clips, it is they."""
    select: Literal["top1", "loss"] = "top1"
    """What the best epoch is best at on the validation clips."""
    patience: int = 0
    """Stop after this many epochs without a better one on the validation clips; 0 never stops early."""
    max_bad_clips: float = 0.05
    """Share of clips that may be unreadable before training stops."""

    seed: int = 0
    """Seed of initial weights, order, dropout and the splits that are drawn (folds, groups)."""
    workers: int | None = None
    """Decoding processes; by default the number of cores, at most 8."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    checkpoint_minutes: float = 2.0
    """Time between checkpoints; a killed run loses at most this much."""
    tensorboard: bool = False
    """Also write TensorBoard events (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        positive = ("frames", "epochs", "batch", "learning_rate")
        for name in positive:
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0, not {getattr(self, name)}")
        for name in ("validation", "max_bad_clips", "ema", "label_smoothing", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"--{name.replace('_', '-')} must lie between 0 and 1, not {getattr(self, name)}")
        for name in (
            "views",
            "patience",
            "clip_norm",
            "warmup_epochs",
            "weight_decay",
            "mixup",
            "encoder_rate",
            "checkpoint_minutes",
        ):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} must be 0 or more, not {getattr(self, name)}")
        for name, least in (("micro_batch", 1), ("size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} must be {least} or more, not {value}")
        check_seed(self.seed)
        for name, value in (("colour", self.colour), ("crop_scale", self.crop_scale), ("time_crop", self.time_crop)):
            if not (0 if name == "colour" else 1e-6) <= value <= 1:
                above = "between 0 and 1" if name == "colour" else "above 0 and at most 1"
                raise UsageError(f"--{name.replace('_', '-')} must be {above}, not {value}")
        if self.rate is not None and self.rate <= 0:
            raise UsageError(f"--rate must be above 0, not {self.rate}")
        if self.windows < 1 or (self.windows > 1 and self.rate is None):
            raise UsageError(f"--windows {self.windows}: give 1, or more together with --rate")
        if "backbone_weights" in self.options:
            raise UsageError("--options.backbone_weights: give --backbone-weights")

    @property
    def decoders(self) -> int:
        """Decoding processes: as asked for, or one a core and at most 8."""
        return min(8, os.cpu_count() or 1) if self.workers is None else self.workers

    def preprocessing(self, defaults: dict[str, Any]) -> Preprocessing:
        """The preprocessing of this run: the backbone's `defaults` with this run's frames, size, fit and the like."""
        own = ("frames", "fit", "rate", "windows", "background")
        chosen = defaults | {name: getattr(self, name) for name in own}
        if self.size is not None:
            chosen["size"] = self.size
        return Preprocessing.from_dict(chosen)

    def augmentation(self) -> Augmentation | None:
        """The augmentation of training views, None where there is none."""
        if not self.augment:
            return None
        jitter = {"brightness": self.colour, "contrast": self.colour, "saturation": self.colour}
        return Augmentation(
            crop_scale=(self.crop_scale, 1.0), flip=self.flip, **jitter, time_crop=self.time_crop,
            even_steps=self.even_steps,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """The settings as a recipe that `--config` reads.

        >>> "epochs: 3" in TrainSettings(epochs=3).to_yaml()
        True
        """
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that torch, NumPy and scikit-learn do not all take.

    >>> check_seed(-1)
    Traceback (most recent call last):
    kinegru.errors.UsageError: --seed must lie between 0 and 4294967295, not -1
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed must lie between 0 and {2**32 - 1}, not {seed}")
