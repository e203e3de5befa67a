"""A training epoch from the feature cache against one without (decode, frozen trunk, then the same), interleaved.

    python benchmarks/cache_epoch.py ../shared/data/weizmann --json results/benchmarks/cache_epoch.json \\
        --weights ../shared/weights/legacy_xception_imagenet_to_block12.safetensors

Both sides are `fit` on the same clips, views, model and settings; the only difference is whether it is given frames or
cached maps. The side without reads with as many decoding processes as `kinegru train` would take. A repeat is one epoch
of each, who begins alternates, the first repeat only warms up. Both profiles are measured, because they differ: `head`
caches the encoder's whole output, `tail` what comes before block12, whose forward and backward pass no cache can save.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from report import command, publish

from kinegru.data.catalog import load_catalog
from kinegru.data.dataset import ClipDataset
from kinegru.data.feature_cache import CachedDataset
from kinegru.models.zoo import create_model
from kinegru.runs.provenance import machine
from kinegru.training.features import fill_cache
from kinegru.training.loop import fit
from kinegru.training.processes import make_accelerator
from kinegru.training.settings import TrainSettings

PROFILES = ("tail", "head")


def one_epoch(data: ClipDataset | CachedDataset, settings: TrainSettings, labels: int, run: Path) -> dict[str, float]:
    """Seconds and processor seconds (this process and its decoders) of an epoch, and its loss."""
    torch.manual_seed(settings.seed)
    model, accelerator = build(settings, labels), make_accelerator(settings)
    accelerator.save_state = lambda folder: None  # the epoch is measured, not what is saved after it
    begun = processor_seconds()
    row = fit(model, data, None, settings, run, accelerator).history[0]
    return {"seconds": row.seconds, "processor": processor_seconds() - begun, "loss": row.train_loss}


def build(settings: TrainSettings, labels: int) -> Any:
    model = create_model(settings.model, labels, backbone_weights=settings.backbone_weights, **settings.options)
    return model.set_profile(settings.profile)


def processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(profile: Any, data: Path, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    settings = TrainSettings(
        profile=profile, backbone_weights=str(arguments.weights), options={"dropout": 0.0}, frames=arguments.frames,
        size=arguments.size, batch=arguments.batch, epochs=1, views=1, checkpoint_minutes=1e9, device="cpu",
        validation=0.0,
    )  # fmt: skip
    catalog = load_catalog(data)
    clips = catalog.clips[:: max(1, len(catalog.clips) // arguments.clips)][: arguments.clips]
    model = build(settings, len(catalog.labels))
    preprocessing = settings.preprocessing(model.preprocessing_defaults)
    plain = ClipDataset(clips, catalog.labels, preprocessing, settings.augmentation())
    start = time.perf_counter()
    cached, errors = fill_cache(
        model, plain, [1], folder / "cache", make_accelerator(settings), precision=arguments.precision,
        workers=settings.decoders,
    )  # fmt: skip
    filled = time.perf_counter() - start
    assert not errors, errors
    size = sum(path.stat().st_size for path in (folder / "cache").rglob("*.safetensors"))
    sides: dict[str, ClipDataset | CachedDataset] = {"without": plain, "with": cached}
    rows: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for repeat in range(arguments.repeats + 1):
        for side in sorted(sides, reverse=bool(repeat % 2)):
            row = one_epoch(sides[side], settings, len(catalog.labels), folder / "run")
            if repeat:
                rows[side].append(row)
            print(f"{profile}, repeat {repeat}, {side} cache: {row['seconds']:.2f} s", file=sys.stderr)
    median = {
        side: {name: statistics.median(row[name] for row in rows[side]) for name in ("seconds", "processor", "loss")}
        for side in rows
    }
    return {
        "profile": profile,
        "clips": len(clips),
        "maps": list(cached[0, 1].inputs.shape),
        "cache bytes a view": size // len(clips),
        "seconds to fill": round(filled, 3),
        "epochs": rows,
        "median": median,
        "ratio": round(median["without"]["seconds"] / median["with"]["seconds"], 2),
        "ratio of processor time": round(median["without"]["processor"] / median["with"]["processor"], 2),
    }


def as_markdown(result: dict[str, Any]) -> str:
    about = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    lines = [
        "# A training epoch with the feature cache and without",
        "",
        f"{result['clips']} clips of {result['frames']} frames at {result['size']} px, batches of {result['batch']}, "
        f"float32, maps kept as {result['precision']}; medians of {result['repeats']} interleaved epochs.",
        "",
        f"`{result['command']}`",
        "",
        f"Machine: {about}.",
        "",
        "| profile | without, s | with, s | ratio | of processor time | once, to fill, s | a view on disk, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["profiles"]:
        seconds = [f"{row['median'][side]['seconds']:.2f}" for side in ("without", "with")]
        cells = [row["profile"], *seconds, f"**{row['ratio']}**", str(row["ratio of processor time"])]
        cells += [f"{row['seconds to fill']:.1f}", f"{row['cache bytes a view'] / 1e6:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    losses = "; ".join(
        f"{row['profile']} {row['median']['without']['loss']:.5f} and {row['median']['with']['loss']:.5f}"
        for row in result["profiles"]
    )
    lines += [
        "",
        f"The loss of that epoch without and with: {losses}. Reading a clip and the frozen part are what the cache "
        "saves. With `head` the ConvGRU and the classifier are left; with `tail` block12 and what follows it run "
        "forward and backward too, which bounds the ratio.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set in any form that kinegru train takes")
    parser.add_argument("--weights", default="none", help="ImageNet weights of Xception: a file, imagenet or none")
    parser.add_argument("--clips", type=int, default=12, help="spread over the data set evenly")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--precision", choices=("float16", "uint8"), default="float16")
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    logging.getLogger("kinegru").setLevel(logging.ERROR)  # every model says anew where its weights end

    result: dict[str, Any] = {
        "command": command(),
        "machine": machine() | {"threads": torch.get_num_threads()},
        **{key: getattr(arguments, key) for key in ("clips", "frames", "size", "batch", "precision", "repeats")},
        "profiles": [],
    }
    for profile in PROFILES:
        with tempfile.TemporaryDirectory(prefix="kinegru-") as folder:
            result["profiles"].append(measure(profile, arguments.data, arguments, Path(folder)))
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
