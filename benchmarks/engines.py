"""Engines against eager torch (NCHW, batch norms not folded), interleaved in one process; and live, end to end.

    python benchmarks/engines.py --weights ../shared/weights --json results/benchmarks/engines.json

For SC-Xception at 299 pixels and the MobileNet model at 160: what a frame costs in trunk and neck (the frame's trunk
maps, and the neck of the frame before, whose neighbours are then known), and frames a second of a whole stream, from
uint8 frames of 320×240 to scores, resize included. A large matrix product runs in turn with them: the fraction of its
rate that each float32 engine reaches says how much is left to gain. `--weights` is a folder with ImageNet weights;
without it weights are random, which takes as long.
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from ceiling import FLOPS, MATRIX, matrix_product
from report import about, command, publish, table
from torch import nn

from kinegru.measuring import interleave, quartiles, ratio
from kinegru.models.counting import count
from kinegru.models.modelfile import save_model
from kinegru.models.zoo import create_model
from kinegru.recognition.engines import Engine, TorchEngine
from kinegru.recognition.export import Format, export_model
from kinegru.recognition.exported import ExportedEngine
from kinegru.recognition.recognizer import Recognizer
from kinegru.runs.provenance import machine
from kinegru.video.loading import load_clip
from kinegru.video.synthetic import example_clip, render_clip
from kinegru.video.transforms import Preprocessing

MODELS: dict[str, tuple[str, int, str, dict[str, Any]]] = {  # model, pixels, file of ImageNet weights, options
    "xception-299": (
        "sc_xception_convgru_mcam_aff", 299, "legacy_xception_imagenet_to_block12.safetensors", {"tail_end": "conv4"},
    ),
    "mobilenet-160": ("mobilenet_convgru_mcam_aff", 160, "mobilenetv2_100_imagenet.safetensors", {}),
    "small-96": ("sc_xception_convgru_mcam_aff", 96, "", {"backbone": "xception_small"}),
}  # fmt: skip
EXPORTED: tuple[Format, ...] = ("onnx", "openvino", "onnx-int8", "openvino-int8")
STRIDES = (1, 10)
LEAST = {"float32": 2.5, "int8": 6.0}  # times faster than eager, the best engine of the kind
LEAST_OF_MATMUL = 0.7  # of float32
LEAST_LIVE = {"xception-299": 20.0, "mobilenet-160": 100.0}  # frames a second, the best engine


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


def build(name: str, weights: Path | None, window: int, folder: Path) -> tuple[Recognizer, dict[str, Engine]]:
    model_name, size, file, options = MODELS[name]
    torch.manual_seed(0)
    source = str(weights / file) if weights and file else "none"
    model = create_model(model_name, 10, backbone_weights=source, **options)
    preprocessing = Preprocessing(**(model.preprocessing_defaults | {"frames": window, "size": size}))
    path = save_model(folder / f"{name}.safetensors", model, [str(k) for k in range(10)], preprocessing.to_dict())
    recognizer = Recognizer.load(path, "cpu", "torch")
    engines: dict[str, Engine] = {"eager": EagerEngine(recognizer.model), "torch": recognizer.engine}
    clip = load_clip(example_clip(), preprocessing)[:8].clone()
    for form in EXPORTED:
        start = time.perf_counter()
        target = path.with_suffix(f".{form}")
        export_model(recognizer, path, form, target, [clip])
        engines[form] = ExportedEngine(target)
        print(f"{name}: exported as {form} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return recognizer, engines


def per_frame(engine: Engine, frame: torch.Tensor, maps: torch.Tensor) -> Callable[[], Any]:
    """The steady state of a stream without a window: a frame's trunk, and the neck of the one before."""

    def call() -> None:
        engine.trunk(frame)
        engine.parts(maps, slice(1, 2))

    return call


def live(engine: Engine, recognizer: Recognizer, frames: list[np.ndarray], stride: int) -> Callable[[], Any]:
    """As many stream steps as a stride has frames; the stream's window is full."""
    stream = recognizer.stream_on(engine, recognizer.preprocessing.frames, stride)
    at = 0

    def call() -> None:
        nonlocal at
        for _ in range(stride):
            stream.step(frames[at % len(frames)])
            at += 1

    for _ in range(-(-recognizer.preprocessing.frames // stride)):
        call()
    return call


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    recognizer, engines = build(name, arguments.weights, arguments.window, folder)
    frames = list(render_clip("walk", person=0, number=0, size=(320, 240)))
    images = recognizer._prepare(np.stack(frames[:3]))
    maps = engines["torch"].trunk(images).clone()
    work = count(per_frame(engines["eager"], images[:1], maps))
    sides: dict[str, Callable[[], Any]] = {"matmul": matrix_product(images)}
    sides |= {engine: per_frame(engines[engine], images[:1], maps) for engine in engines}
    found = interleave(sides, arguments.rounds, arguments.seconds, warm_up=3)
    rows = []
    for engine in engines:
        seconds = found[engine].seconds
        against = ratio(found["eager"].seconds, seconds)
        share = ratio([s / FLOPS for s in found["matmul"].seconds], [s / work.flops for s in seconds])
        rows.append(
            {
                "engine": engine,
                **found[engine].to_dict(),
                "ratio": against.median,
                "ratio quartiles": [against.low, against.high],
                "of the matrix product": share.median,
            }
        )
    for stride in STRIDES:
        streams = {engine: live(engines[engine], recognizer, frames, stride) for engine in engines}
        laps = interleave(streams, arguments.rounds, arguments.seconds, warm_up=3)
        for row in rows:
            rates = [stride / seconds for seconds in laps[row["engine"]].seconds]
            row[f"live, stride {stride}"] = {"frames a second": statistics.median(rates), "quartiles": quartiles(rates)}
    return {
        "model": name,
        "GMAC a frame": work.gmac,
        "matmul GFLOP/s": FLOPS / statistics.median(found["matmul"].seconds) / 1e9,
        "engines": rows,
        "targets": targets(name, rows),
    }


def targets(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """What was aimed at on two cores, and what it came to."""
    lines = []

    def line(what: str, wanted: float, row: dict[str, Any], got: float, unit: str) -> None:
        held = "holds" if got >= wanted else "is missed"
        lines.append(f"{what} at least {wanted:g}{unit} {held}: {row['engine']}, {got:.3g}{unit}")

    for kind, wanted in LEAST.items():
        row = max((r for r in rows if ("int8" in r["engine"]) == (kind == "int8")), key=lambda r: r["ratio"])
        line(f"{kind}, against eager:", wanted, row, row["ratio"], "x")
    row = max((r for r in rows if "int8" not in r["engine"]), key=lambda r: r["of the matrix product"])
    line("float32, of the matrix product's rate:", 100 * LEAST_OF_MATMUL, row, 100 * row["of the matrix product"], " %")
    if name in LEAST_LIVE:
        for stride in STRIDES:
            key = f"live, stride {stride}"
            row = max(rows, key=lambda r: r[key]["frames a second"])
            line(f"{key}:", LEAST_LIVE[name], row, row[key]["frames a second"], " frames a second")
    return lines


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Engines", "", f"`{result['command']}`", "", about(result["machine"]), ""]
    lines += [
        f"{result['threads']} thread(s); medians (quartiles) of {result['rounds']} rounds at most. A frame is its "
        f"trunk and the neck of the frame before. Live: a stream with a window of {result['window']} frames, from "
        "uint8 frames of 320×240 to scores, with a prediction every frame or every tenth.",
        "",
    ]
    for found in result["models"]:
        lines += [
            f"## {found['model']}",
            "",
            f"{found['GMAC a frame']:.2f} GMAC a frame; a float32 matrix product of {MATRIX}² runs at "
            f"{found['matmul GFLOP/s']:.0f} GFLOP/s.",
            "",
        ]
        header = ["engine", "ms a frame", "against eager", "of the matrix product", "live, every frame", "every tenth"]
        rows = []
        for row in found["engines"]:
            low, high = (1e3 * value for value in row["quartiles"])
            cells = [row["engine"], f"{1e3 * row['seconds']:.3g} ({low:.3g} to {high:.3g})"]
            low, high = row["ratio quartiles"]
            cells += [f"**{row['ratio']:.2f}x** ({low:.2f} to {high:.2f})"]
            cells += ["" if "int8" in row["engine"] else f"{row['of the matrix product']:.0%}"]
            for stride in STRIDES:
                rate = row[f"live, stride {stride}"]
                low, high = rate["quartiles"]
                cells += [f"{rate['frames a second']:.3g} fps ({low:.3g} to {high:.3g})"]
            rows.append(cells)
        lines += [table(header, rows), "", *(f"* {text}" for text in found["targets"]), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["xception-299", "mobilenet-160"])
    parser.add_argument("--weights", type=Path, help="a folder with ImageNet weights; default: random")
    parser.add_argument("--window", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=40, help="at most so long a comparison, after three rounds")
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("kinegru").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="kinegru-") as folder:
        result = {
            "command": command(),
            "machine": machine(),
            **{name: getattr(arguments, name) for name in ("threads", "window", "rounds")},
            "models": [measure(name, arguments, Path(folder)) for name in arguments.models],
        }
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
