"""Engines against eager torch (NCHW, batch norms not folded), interleaved in one process; and live, end to end.

    python benchmarks/engines.py --weights ../shared/weights --json results/benchmarks/engines.json

For SC-Xception at 299 pixels and the MobileNet model at 160: what a frame costs in trunk and neck (the frame's trunk
maps, and the neck of the frame before, whose neighbours are then known), and frames a second of a whole stream, from
uint8 frames of 320×240 to scores, resize included. A large matrix product runs in turn with them: the fraction of its
rate that each float32 engine reaches says how much is left to gain. The ratio is the median over rounds of the ratio
within a round. `--weights` is a folder with ImageNet weights; without it weights are random, which takes as long.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from kinegru.data.catalog import load_catalog
from kinegru.files import write_result
from kinegru.measuring import about, interleave, quartiles, ratio, table
from kinegru.models.counting import count
from kinegru.models.modelfile import save_model
from kinegru.models.zoo import create_model
from kinegru.recognition.engines import Engine, TorchEngine
from kinegru.recognition.export import Format, export_model
from kinegru.recognition.exported import ExportedEngine
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.stream import Stream
from kinegru.verbs.export import spread
from kinegru.verbs.provenance import machine
from kinegru.video.loading import load_clip
from kinegru.video.reader import iter_frames
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing

MODELS = {  # name -> pixels, file of ImageNet weights
    "sc_xception_convgru_mcam_aff": (299, "legacy_xception_imagenet_to_block12.safetensors"),
    "mobilenet_convgru_mcam_aff": (160, "mobilenetv2_100_imagenet.safetensors"),
}
EXPORTED: tuple[Format, ...] = ("onnx", "openvino", "onnx-int8")
MATRIX = 2048
WINDOW = 40
STRIDES = (1, 10)


class EagerEngine(TorchEngine):
    """torch as it comes: every layer by itself, channels first."""

    name = "eager"

    def __init__(self, model: Any) -> None:
        model = copy.deepcopy(model)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        super().__init__(model, torch.device("cpu"), fold=False)

    @torch.inference_mode()
    def trunk(self, frames: torch.Tensor) -> torch.Tensor:
        return self.model.encoder.trunk(frames.contiguous())

    @torch.inference_mode()
    def parts(self, maps: torch.Tensor, keep: slice) -> torch.Tensor:
        with mock.patch("kinegru.models.encoders._per_frame", lambda x: x.flatten(0, 1).contiguous()):
            return super().parts(maps, keep)


def build(
    name: str, size: int, weights: Path | None, folder: Path, sources: list[Path]
) -> tuple[Recognizer, dict[str, Engine]]:
    torch.manual_seed(0)
    end = {"tail_end": "conv4"} if "xception" in name else {}  # full size: what the file lacks has random weights
    model = create_model(name, 10, backbone_weights=str(weights or "none"), **end)
    preprocessing = Preprocessing(**(model.preprocessing_defaults | {"frames": WINDOW, "size": size}))
    path = save_model(folder / f"{name}.safetensors", model, [str(k) for k in range(10)], preprocessing.to_dict())
    recognizer = Recognizer.load(path, "cpu", "torch")
    engines: dict[str, Engine] = {"eager": EagerEngine(recognizer.model), "torch": recognizer.engine}
    clips = [load_clip(path, preprocessing)[:8].clone() for path in sources]
    for form in EXPORTED:
        start = time.perf_counter()
        target = path.with_suffix(f".{form}")
        export_model(recognizer, path, form, target, clips)
        engines[form] = ExportedEngine(target)
        print(f"{name}: exported as {form} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return recognizer, engines


def sources(data: Path | None) -> list[Path]:
    return [clip.path for clip in spread(load_catalog(data).clips, 4)] if data else [Path(example_clip())]


def per_frame(engine: Engine, frame: torch.Tensor, maps: torch.Tensor) -> Callable[[], Any]:
    """The steady state of a stream without a window: a frame's trunk, and the neck of the one before."""

    def call() -> None:
        engine.trunk(frame)
        engine.parts(maps, slice(1, 2))

    return call


def live(engine: Engine, recognizer: Recognizer, frames: list[np.ndarray], stride: int) -> Callable[[], Any]:
    """A group of stream steps with one stride's worth of frames; its window is full."""
    stream = Stream(engine, recognizer._prepare, recognizer.labels, WINDOW, stride)
    at = 0

    def call() -> None:
        nonlocal at
        for _ in range(stride):
            stream.step(frames[at % len(frames)])
            at += 1

    for number in range(WINDOW - stride):  # fill it, without predictions
        stream.step(frames[number % len(frames)])
    return call


def measure(name: str, size: int, weights: Path | None, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    recognizer, engines = build(name, size, weights, folder, sources(arguments.data))
    frames = [np.ascontiguousarray(frame) for frame in iter_frames(example_clip())]
    frames = [np.resize(frame, (240, 320, 3)) for frame in frames]
    images = recognizer._prepare(np.stack(frames[:3]))
    maps = engines["torch"].trunk(images).clone()
    work = count(lambda: per_frame(engines["eager"], images[:1], maps)())
    a, b = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    sides: dict[str, Callable[[], Any]] = {"matmul": lambda: a @ b}
    sides |= {engine: per_frame(engines[engine], images[:1], maps) for engine in engines}
    with torch.inference_mode():
        found = interleave(sides, arguments.rounds, arguments.seconds, warm_up=3)
    peak = 2 * MATRIX**3 / quartiles(found["matmul"].seconds)[0]  # flop/s: its better rounds
    rows = []
    for engine in engines:
        side = found[engine]
        against = ratio(found["eager"].seconds, side.seconds)
        share = ratio([2 * MATRIX**3 / s for s in found["matmul"].seconds], [work.flops / s for s in side.seconds])
        row: dict[str, Any] = {"engine": engine, **side.to_dict()}
        row |= {"ratio": round(against.median, 2), "ratio quartiles": [round(against.low, 2), round(against.high, 2)]}
        row["fraction of matmul"] = round(1 / share.median, 3)
        rows.append(row)
    for stride in STRIDES:
        chosen = {e: live(engines[e], recognizer, frames, stride) for e in engines if e != "eager" or stride == 1}
        laps = interleave(chosen, max(5, arguments.rounds // 3), arguments.seconds, warm_up=1)
        for row in rows:
            if row["engine"] in laps:
                seconds = laps[row["engine"]].seconds
                rates = [stride / s for s in seconds]
                row[f"live, stride {stride}"] = {
                    "frames a second": round(float(np.median(rates)), 2),
                    "quartiles": [round(value, 2) for value in quartiles(rates)],
                }
    return {
        "model": name, "pixels": size, "weights": weights.name if weights else "random",
        "GMAC a frame": round(work.gmac, 2), "matmul GFLOP/s": round(peak / 1e9, 1), "engines": rows,
    }  # fmt: skip


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Engines", "", f"`{result['command']}`", "", about(result["machine"]), ""]
    for found in result["models"]:
        lines += [
            f"## {found['model']} at {found['pixels']} pixels",
            "",
            f"{found['GMAC a frame']} GMAC a frame in trunk and neck; a float32 matrix product of {MATRIX}² reaches "
            f"{found['matmul GFLOP/s']} GFLOP/s. Medians, quartiles in brackets; {result['threads']} threads. Live: a "
            f"stream with a window of {WINDOW} frames and a prediction every frame, or every tenth.",
            "",
        ]
        header = ["engine", "ms a frame", "against eager", "of the matrix product", "live, every frame", "every tenth"]
        rows = []
        for row in found["engines"]:
            low, high = row["quartiles"]
            ratios = row["ratio quartiles"]
            cells = [row["engine"], f"{row['seconds'] * 1e3:.1f} ({low * 1e3:.1f} to {high * 1e3:.1f})"]
            cells += [f"{row['ratio']} ({ratios[0]} to {ratios[1]})"]
            cells += ["" if "int8" in row["engine"] else f"{row['fraction of matmul']:.0%}"]
            for stride in STRIDES:
                shown = row.get(f"live, stride {stride}")
                cells += [f"{shown['frames a second']} fps" if shown else ""]
            rows.append(cells)
        lines += [table(header, rows), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="clips to calibrate int8 on; default: a drawn one")
    parser.add_argument("--weights", type=Path, help="a folder with ImageNet weights; default: random")
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=90.0, help="that a comparison may take")
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("kinegru").setLevel(logging.ERROR)
    result: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/engines.py", *sys.argv[1:]]),
        "machine": machine(),
        "threads": arguments.threads,
        "models": [],
    }
    with tempfile.TemporaryDirectory(prefix="kinegru-") as folder:
        for name, (size, file) in MODELS.items():
            if arguments.model in (name, "both"):
                weights = arguments.weights / file if arguments.weights else None
                result["models"].append(measure(name, size, weights, arguments, Path(folder)))
    text = as_markdown(result)
    print(text)
    if arguments.json:
        write_result(arguments.json, result, text)


if __name__ == "__main__":
    main()
