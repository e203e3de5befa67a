"""What the recipes for UCF101 and HMDB51 cost: memory, disk and time, computed from the models and from measured rates.

    python benchmarks/recipe_costs.py --json results/benchmarks/recipe_costs.json

Times on a CPU are processor seconds on one thread, which other programs on the machine disturb little; two cores take
half. Reading is measured on drawn clips of UCF101's size (320×240, 180 frames, MPEG-4 in AVI), or on those that are
named. On a machine with a GPU the recipe for it is measured too, with its peak of memory; without, its time follows
from `--rate`, which is an assumption. What autograd keeps for the backward pass is counted by hooks on real forward
passes of few frames: it grows by the same amount with every frame.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import logging
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from report import about, command, publish
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kinegru.data.catalog import load_catalog
from kinegru.data.dataset import ClipDataset
from kinegru.data.feature_cache import FeatureCache
from kinegru.data.official import COUNTS
from kinegru.models.recognizer import ActionRecognizer
from kinegru.models.zoo import create_model
from kinegru.runs.provenance import machine
from kinegru.training.settings import TrainSettings
from kinegru.video.loading import load_clip
from kinegru.video.synthetic import render_clip
from kinegru.video.writer import write_video

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
GPU, LAPTOP = "ucf101-hmdb51-24gb.yaml", "ucf101-hmdb51-laptop.yaml"
CLASSES = {"ucf101": 101, "hmdb51": 51}
USED = {"ucf101": 13_320, "hmdb51": 6_371}  # clips that train or test in at least one of the three splits
CORES = 2  # of the laptop
RATE = 5e12  # MAC a second of a 24 GB card in bf16, where none is at hand: an assumption, see the docs


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of a forward pass for one clip."""

    frozen: int
    trained: int

    @property
    def training(self) -> int:
        """Of a training step: a backward pass takes twice its forward pass, and stops at the frozen part."""
        return self.frozen + 3 * self.trained


def settings_of(recipe: str) -> TrainSettings:
    """The settings of a recipe, without weights: they cost the same."""
    values = yaml.safe_load((RECIPES / recipe).read_text(encoding="utf-8"))
    values.pop("split", None)
    return TrainSettings(**values | {"backbone_weights": "none"})


def build(settings: TrainSettings, classes: int) -> ActionRecognizer:
    model = create_model(settings.model, classes, backbone_weights="none", **settings.options)
    return model.set_profile(settings.profile)


def frames_of(model: ActionRecognizer, settings: TrainSettings, clips: int = 1, frames: int = 0) -> torch.Tensor:
    size = settings.size or model.preprocessing_defaults["size"]
    return torch.rand(clips, frames or settings.frames, 3, size, size)


def macs(model: ActionRecognizer, settings: TrainSettings) -> Macs:
    """Counted by torch on meta tensors: shapes only, nothing is computed."""
    still = copy.deepcopy(model).to("meta").eval()
    frames = frames_of(model, settings).to("meta")
    with torch.no_grad():
        with FlopCounterMode(display=False) as frozen:
            maps = still.cacheable(frames)
        with FlopCounterMode(display=False) as trained:
            still.from_cache(maps)
    return Macs(frozen.get_total_flops() // 2, trained.get_total_flops() // 2)


def kept_for_backward(model: ActionRecognizer, settings: TrainSettings, clips: int) -> tuple[int, int]:
    """Bytes that autograd keeps of a forward pass of so many clips, and those of the largest tensor among them.

    Counted by hooks for 1 clip of 2 frames, 1 of 4 and 2 of 2: what is kept is a constant (weights in bf16), a part for
    every clip and a part for every frame.
    """
    small, longer, more = (_kept(model, settings, n, t) for n, t in ((1, 2), (1, 4), (2, 2)))
    frame = (sum(longer) - sum(small)) // 2
    clip = sum(more) - sum(small) - 2 * frame
    constant = sum(small) - clip - 2 * frame
    largest = max(set(longer) - set(small))  # what has the same size for 2 frames and for 4 is a weight
    return constant + clips * (clip + settings.frames * frame), clips * settings.frames * largest // 4


def _kept(model: ActionRecognizer, settings: TrainSettings, clips: int, frames: int) -> list[int]:
    storages: dict[int, torch.UntypedStorage] = {}  # held, or a freed one would give its address to the next
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            storages[storage.data_ptr()] = storage
        return tensor

    mixed = settings.precision == "bf16"
    maps = torch.rand(clips, frames, *maps_of(model, settings)[1:])
    maps = maps.bfloat16() if mixed and settings.cache == "off" else maps
    owned.add(maps.untyped_storage().data_ptr())  # counted apart
    model.train()
    mode, hooks = torch.autocast("cpu", torch.bfloat16, enabled=mixed), torch.autograd.graph.saved_tensors_hooks
    with mode, hooks(keep, lambda tensor: tensor):
        model.head(maps if model.cache_stage == "neck" else model.neck(maps))
    return [storage.nbytes() for storage in storages.values()]


def memory(model: ActionRecognizer, settings: TrainSettings) -> dict[str, int]:
    """Bytes of a training step by what they are for, without the libraries' own."""
    micro = settings.micro_batch or settings.batch
    mixed = settings.precision == "bf16"
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    maps = maps_of(model, settings)
    kept, largest = kept_for_backward(model, settings, micro)
    cached = settings.cache != "off"
    return {
        "weights": 4 * parameters,
        "gradients and Adam": 12 * trained,
        "frames": 0 if cached else 4 * micro * frames_of(model, settings).numel(),
        "maps": micro * torch.Size(maps).numel() * (2 if mixed and not cached else 4),
        "kept for the backward pass": kept,
        "working memory": 3 * largest,  # a gradient in, a gradient out, one in between; more than a frozen pass needs
    }


def maps_of(model: ActionRecognizer, settings: TrainSettings) -> tuple[int, int, int, int]:
    """(T, C, h, w) of one clip after the frozen part."""
    still = copy.deepcopy(model).to("meta").eval()
    return (settings.frames, *still.cacheable(frames_of(model, settings, frames=1).to("meta")).shape[2:])


def disk(model: ActionRecognizer, settings: TrainSettings, data: str, precision: str, views: int) -> int:
    """Bytes of the feature cache for all three splits: every clip's plain view and `views` augmented ones."""
    dataset = ClipDataset([], [], settings.preprocessing(model.preprocessing_defaults))
    cache = FeatureCache(Path(), "", dataset, precision)
    return cache.estimate(USED[data] * (1 + views), maps_of(model, settings))


def augmented_views(settings: TrainSettings) -> int:
    return settings.views if settings.augment else 0


def parts(settings: TrainSettings, data: str) -> tuple[int, int, int]:
    """Clips of one split to train, to validate and to test, the mean of the three."""
    train = statistics.mean(train for train, _ in COUNTS[data])
    test = statistics.mean(test for _, test in COUNTS[data])
    return round(train * (1 - settings.validation)), round(train * settings.validation), round(test)


def seconds(settings: TrainSettings, data: str, each: dict[str, float], workers: int) -> dict[str, float]:
    """Time of the features, of an epoch and of all three splits, from seconds a clip: `read`, `frozen`, `step`, `test`.

    Beside a GPU reading runs in `workers` processes and costs nothing as long as it is the quicker of the two. Without
    (0) it takes the same cores as the network, and processor seconds add up, over `CORES`.
    """
    train, validation, test = parts(settings, data)
    features = 0.0
    if workers:
        each = each | {name: max(each["read"] / workers, each[name]) for name in ("step", "test")}
    else:
        each = {name: value / CORES for name, value in each.items()}
    if settings.cache != "off":
        features = USED[data] * (1 + augmented_views(settings)) * (each["read"] + each["frozen"])
    epoch = train * each["step"] + validation * each["test"]
    tests = test * each["test"]
    return {"features": features, "epoch": epoch, "three splits": features + 3 * (settings.epochs * epoch + tests)}


# -- measured -----------------------------------------------------------------------------------------------------


def draw_clips(folder: Path, seconds: float = 7.2, fps: float = 25.0) -> list[Path]:
    """A clip of each of two actions, of the size, length, codec and bit rate that UCF101's have on average."""
    paths = [folder / f"{action}.avi" for action in ("walk", "wave")]
    for path in paths:
        frames = list(render_clip(path.stem, person=0, number=0, size=(320, 240)))
        frames = list(itertools.islice(itertools.cycle(frames + frames[::-1]), round(seconds * fps)))
        write_video(path, frames, fps, codec="mpeg4", options={"b": "550k"})
    return paths


def measure_reading(paths: list[Path], settings: TrainSettings, model: ActionRecognizer) -> float:
    """Processor seconds a clip: decode, resize, normalise."""
    preprocessing = settings.preprocessing(model.preprocessing_defaults)
    load_clip(paths[0], preprocessing)
    begun = time.process_time()
    for path in paths:
        load_clip(path, preprocessing)
    return (time.process_time() - begun) / len(paths)


def measure_steps(model: ActionRecognizer, settings: TrainSettings, device: str, repeats: int = 3) -> dict[str, float]:
    """Seconds a clip of the frozen part, of a training step and of a test (on a CPU: processor seconds), and the step's
    peak of memory in bytes.
    """
    clock = time.perf_counter if device == "cuda" else time.process_time
    micro = settings.micro_batch or settings.batch
    model.to(device)
    mixed = settings.precision == "bf16"
    optimizer = torch.optim.Adam(model.trained_parameters(), lr=1e-6)
    cached = settings.cache != "off"
    shape = (4, *frames_of(model, settings).shape[1:])
    frames = torch.rand(shape, device=device)
    inputs = torch.rand(micro, *maps_of(model, settings)) if cached else frames_of(model, settings, micro)
    inputs, targets = inputs.to(device), torch.zeros(micro, dtype=torch.long, device=device)

    def frozen() -> None:
        model.eval().cacheable(frames)

    def step() -> None:
        model.train()
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            logits = model.from_cache(inputs) if cached else model(inputs)
        F.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def test() -> None:
        model.eval()
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            _ = model.from_cache(inputs) if cached else model(inputs)

    gc.collect()
    before = 0 if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found: dict[str, float] = {}
    for name, function, clips in (("step", step, micro), ("frozen", frozen, 4), ("test", test, micro)):
        times = []
        for repeat in range(repeats + 1):
            begun = clock()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:
                times.append((clock() - begun) / clips)
        found[name] = statistics.median(times)
        if name == "step":
            peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
            found["peak"] = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return found


def assumed(counted: Macs, rate: float) -> dict[str, float]:
    """Seconds a clip at `rate` MAC a second."""
    return {
        "frozen": counted.frozen / rate,
        "step": counted.training / rate,
        "test": (counted.frozen + counted.trained) / rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="clips whose reading is timed, in any form that kinegru train takes")
    parser.add_argument("--clips", type=int, default=12, help="how many of them, spread evenly")
    parser.add_argument("--workers", type=int, default=8, help="reading processes beside the GPU")
    parser.add_argument("--rate", type=float, default=RATE, help="MAC a second of the GPU, where none is at hand")
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    logging.getLogger("kinegru").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    cuda, rows = torch.cuda.is_available(), []
    drawn = tempfile.TemporaryDirectory(prefix="kinegru-")
    if arguments.data:
        clips = load_catalog(arguments.data).clips
        paths = [clip.path for clip in clips[:: max(1, len(clips) // arguments.clips)]][: arguments.clips]
    else:
        paths = draw_clips(Path(drawn.name))
    for recipe in (LAPTOP, GPU):  # the small one first: the peak of a process never falls
        settings = settings_of(recipe)
        on_gpu = recipe == GPU
        model = build(settings, CLASSES["ucf101"])
        counted, bytes_ = macs(model, settings), memory(model, settings)
        read = measure_reading(paths, settings, model)
        measured = measure_steps(model, settings, "cuda" if on_gpu else "cpu") if cuda or not on_gpu else None
        each = {"read": read, **(measured or assumed(counted, arguments.rate))}
        for data in CLASSES:
            rows.append(
                {
                    "recipe": recipe,
                    "data": data,
                    "maps": maps_of(model, settings),
                    "GMAC a clip": {"frozen": counted.frozen / 1e9, "trained": counted.trained / 1e9},
                    "memory": {name: int(value) for name, value in bytes_.items()},
                    "disk": 0
                    if settings.cache == "off"
                    else disk(model, settings, data, settings.cache_precision, augmented_views(settings)),
                    "disk with float16 and 4 views": disk(model, settings, data, "float16", 4),
                    "seconds a clip": each,
                    "measured": measured is not None,
                    "seconds": seconds(settings, data, each, arguments.workers if on_gpu else 0),
                }
            )
    result = {
        "command": command(),
        "machine": machine() | {"GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none"},
        "rows": rows,
    }
    publish(result, as_markdown(result), arguments.json)


def as_markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Costs of the recipes for UCF101 and HMDB51",
        "",
        f"`{result['command']}`",
        "",
        about(result["machine"]),
        "",
        "| recipe | data | GMAC, frozen + trained | memory, GB | cache, GB | features | an epoch | three splits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        gmac, time_ = row["GMAC a clip"], row["seconds"]
        cells = [row["recipe"].removesuffix(".yaml"), row["data"], f"{gmac['frozen']:.3g} + {gmac['trained']:.3g}"]
        cells += [f"{sum(row['memory'].values()) / 1e9:.2f}", f"{row['disk'] / 1e9:.1f}"]
        cells += [
            f"{time_['features'] / 3600:.1f} h",
            f"{time_['epoch'] / 60:.1f} min",
            f"{time_['three splits'] / 3600:.1f} h",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for row in result["rows"][::2]:
        each = ", ".join(f"{k} {v:.4g}" for k, v in row["seconds a clip"].items() if k != "peak")
        kind = "measured here" if row["measured"] else "at the assumed rate; reading, on one core, measured here"
        lines += ["", f"{row['recipe']}, seconds a clip ({kind}): {each}."]
        lines += ["", "Memory, MB: " + ", ".join(f"{k} {v / 1e6:.0f}" for k, v in row["memory"].items()) + "."]
        if "peak" in row["seconds a clip"]:
            lines[-1] += (
                f" Measured growth of the process during training steps: {row['seconds a clip']['peak'] / 1e6:.0f}."
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
