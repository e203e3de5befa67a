"""What a job costs: parameters and multiplications, counted; hours and gigabytes, estimated and called so.

* Multiplications (MAC, half of the FLOPs that torch's counter gives) are of one clip at the frames and pixels used, run
  on the meta device: shapes without numbers. Activations, norms and pooling are not counted, nor is optical flow.
* Seconds come from what finished folds took; before there are any, from half a second of Xception's middle flow on this
  machine and the decoding of a few clips. Features of a frozen trunk are counted once for all jobs that share them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kinegru.console import errors_only
from kinegru.data.catalog import Catalog
from kinegru.data.feature_cache import BYTES_A_VALUE
from kinegru.data.splits import Split
from kinegru.errors import KineGRUError
from kinegru.files import atomic_write
from kinegru.models.zoo import create_model, model_options
from kinegru.reproduction.job import Job, Planned
from kinegru.training.settings import TrainSettings
from kinegru.video.reader import read_clip

BACKWARD = 2  # a backward pass computes about twice what the forward pass does
SECONDS_A_FOLD = 5.0  # building, saving, the report
PROBE_SECONDS = 0.5


@dataclass(frozen=True)
class ModelCost:
    """One model at the protocol's frames and pixels."""

    macs: int  # of one clip, forward
    frozen_macs: int  # of these, in the part that never changes and is cached
    parameters: int
    trained_parameters: int
    cached_values: int  # numbers that the cache keeps of one view of a clip; 0 where nothing is cached


@dataclass(frozen=True)
class Machine:
    """How fast this machine is, roughly."""

    macs_a_second: float
    seconds_a_clip: float  # to read one clip's frames


def count_cost(settings: TrainSettings, classes: int) -> ModelCost:
    """Build the model and count one clip through it. Raises KineGRUError where it cannot be built.

    >>> settings = TrainSettings("xception_convgru", {"backbone": "xception_small"}, "none", frames=4, size=64)
    >>> cost = count_cost(settings, 6)
    >>> cost.macs > cost.frozen_macs > 0, cost.parameters > cost.trained_parameters > 0
    (True, True)
    """
    weights = "none" if settings.backbone_weights == "imagenet" else settings.backbone_weights  # the same shapes
    with errors_only("kinegru"):  # the training run says how the weights fit
        model = create_model(settings.model, classes, backbone_weights=weights, **settings.options)
    model.set_profile(settings.profile)
    size = settings.preprocessing(model.preprocessing_defaults).size
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.trained_parameters())
    model.eval().to("meta")
    frames = torch.empty(1, settings.frames, model.encoder.in_channels, size, size, device="meta")
    cached = 0
    frozen = 0
    with torch.no_grad():
        macs = _macs(lambda: model(frames))
        if model.cache_stage is not None:
            frozen = _macs(lambda: model.cacheable(frames))
            cached = model.cacheable(frames).numel()
    return ModelCost(macs, frozen, parameters, trained, cached)


def _macs(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


class CostBook:
    """`count_cost`, remembered in a file, for building a network takes seconds; `keep=False` only reads it."""

    def __init__(self, file: Path, classes: int, keep: bool = True) -> None:
        self.file, self.classes, self.keep = file, classes, keep
        self.errors: dict[str, str] = {}
        try:
            self.known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}

    def of(self, planned: Planned) -> ModelCost | None:
        """None where the row cannot be built; `errors` says why."""
        s = planned.settings
        named = (s.model, s.options, Path(s.backbone_weights).name, s.profile, s.frames, s.size, self.classes)
        key = hashlib.sha256(json.dumps(named, sort_keys=True, default=str).encode()).hexdigest()[:16]
        if key not in self.known and planned.error is None and planned.slug not in self.errors:
            try:
                self.known[key] = dataclasses.asdict(count_cost(s, self.classes))
            except Exception as error:  # weights that do not fit, frames too small for the network: the run will say so
                self.errors[planned.slug] = " ".join(str(error).split())
                return None
            if self.keep:
                with atomic_write(self.file) as file:
                    json.dump(self.known, file, indent=1)
        return ModelCost(**self.known[key]) if key in self.known else None


def fold_work(settings: TrainSettings, fold: Split, cost: ModelCost) -> tuple[float, int]:
    """Multiplications and clips decoded for training, choosing and testing one fold, cached features not counted."""
    n, v, t, epochs = len(fold.train), len(fold.validation), len(fold.test), settings.epochs
    if not v:
        v = round(settings.validation * n)
        n -= v
    trained = cost.macs - cost.frozen_macs
    if is_cached(settings, cost):
        return float(trained * (epochs * ((1 + BACKWARD) * n + v) + t)), 0
    passes = epochs * (n + v) + t
    return float(cost.macs * passes + BACKWARD * trained * epochs * n), passes


def is_cached(settings: TrainSettings, cost: ModelCost) -> bool:
    return bool(cost.cached_values) and settings.cache != "off" and (settings.views > 0 or not settings.augment)


def feature_key(settings: TrainSettings, cost: ModelCost) -> tuple[Any, ...] | None:
    """Equal for jobs that share their cached features; None without. Random weights are those of a seed."""
    if not is_cached(settings, cost):
        return None
    o = model_options(settings.model, **settings.options)
    drawn = settings.backbone_weights == "none" or (settings.profile == "head" and o.excitation != "none")
    return (
        o.backbone, o.streams, o.excitation if settings.profile == "head" else "", settings.backbone_weights,
        cost.frozen_macs, settings.frames, settings.size, settings.fit, settings.seed if drawn else None,
    )  # fmt: skip


def feature_views(settings: TrainSettings) -> int:
    return 1 + (settings.views if settings.augment else 0)


@dataclass(frozen=True)
class Estimate:
    """Of all jobs that are not finished."""

    seconds: float
    measured: bool  # whether finished folds were there to measure by
    cache_bytes: int  # of features not known to be there
    file_bytes: int  # models, checkpoints while they last, reports
    by_job: dict[Path, float]  # a job's folder -> seconds left of it, features included


def estimate(
    jobs: Sequence[Job], book: CostBook, machine: Callable[[], Machine], catalog: Catalog, keep_models: bool
) -> Estimate:
    """Seconds and bytes that the unfinished folds of these jobs will take."""
    by_row: dict[str, list[float]] = {}  # seconds of its finished folds
    ratios: dict[bool, list[float]] = {True: [], False: []}  # of these to what was guessed; over cached features or not
    features: dict[
        tuple[Any, ...], tuple[Path, float, int]
    ] = {}  # what is shared -> the job that computes it, its cost
    filled: set[tuple[Any, ...] | None] = set()
    speed: Machine | None = None
    file_bytes = 0
    todo: list[tuple[Job, float, bool]] = []  # a fold's job, what is guessed for it, and whether features are cached
    for job in jobs:
        cost = book.of(job.planned)
        if cost is None:
            continue
        valid = job.state() in ("finished", "begun")
        done = {fold.name for fold in job.finished_folds()} if valid else set()
        speed = speed or machine()
        left = len(job.folds) - len(done)
        cached = is_cached(job.settings, cost)
        for fold in job.folds:
            macs, reads = fold_work(job.settings, fold, cost)
            decoding = reads * speed.seconds_a_clip / max(1, job.settings.decoders)
            guess = macs / speed.macs_a_second + decoding + SECONDS_A_FOLD
            if fold.name not in done:
                todo.append((job, guess, cached))
            elif (seconds := _measured(job.fold_folder(fold))) is not None:
                by_row.setdefault(job.planned.slug, []).append(seconds)
                ratios[cached].append(seconds / guess)
        file_bytes += left * (2_000_000 + (4 * cost.parameters if keep_models else 0))
        key = feature_key(job.settings, cost)
        if done:
            filled.add(key)  # one fold computes nearly all that the others need
        if key is not None and left and key not in features:
            items = len(catalog.clips) * feature_views(job.settings)
            seconds = items * (cost.frozen_macs / speed.macs_a_second + speed.seconds_a_clip)
            size = items * cost.cached_values * BYTES_A_VALUE[job.settings.cache_precision]
            features[key] = (job.folder, seconds, size)
    # medians: the fold that has filled the cache, or shared the machine, is no measure of the others
    scale = {cached: statistics.median(found) if found else 1.0 for cached, found in ratios.items()}
    by_job = {job.folder: 0.0 for job in jobs}
    for job, guess, cached in todo:
        own = by_row.get(job.planned.slug)
        by_job[job.folder] += statistics.median(own) if own else guess * scale[cached]
    missing = [found for key, found in features.items() if key not in filled]
    for folder, seconds, _ in missing:
        by_job[folder] += seconds
    return Estimate(sum(by_job.values()), bool(by_row), sum(size for *_, size in missing), file_bytes, by_job)


def _measured(run: Path) -> float | None:
    try:
        seconds = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["context"]["seconds"]
        return seconds + SECONDS_A_FOLD
    except (OSError, ValueError, KeyError):
        return None


def measure_machine(catalog: Catalog, frames: int, device: str = "auto") -> Machine:
    """Half a second of a separable convolution of Xception's middle flow, forward; and a few clips read."""
    cuda = device != "cpu" and torch.cuda.is_available()
    at = torch.device("cuda" if cuda else "cpu")
    layers = nn.Sequential(nn.Conv2d(728, 728, 3, padding=1, groups=728, bias=False), nn.Conv2d(728, 728, 1))
    layers = layers.to(at).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(8, 728, 10, 10, device=at).contiguous(memory_format=torch.channels_last)
    macs = x.numel() * (9 + 728)
    with torch.inference_mode():
        layers(x)
        passes, began = 0, time.perf_counter()
        while time.perf_counter() - began < PROBE_SECONDS:
            layers(x)
            passes += 1
            if cuda:
                torch.cuda.synchronize()
        rate = macs * passes / (time.perf_counter() - began)
    return Machine(rate, _seconds_a_clip(catalog, frames))


def _seconds_a_clip(catalog: Catalog, frames: int) -> float:
    tried: Iterable[Path] = [clip.path for clip in catalog.clips[:: max(1, len(catalog.clips) // 3)]][:3]
    began, read = time.perf_counter(), 0
    for path in tried:
        try:
            read_clip(path, frames)
            read += 1
        except KineGRUError:
            continue
    return (time.perf_counter() - began) / max(1, read)
