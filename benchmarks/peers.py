"""Peers on the same clip and box: torchvision's video networks, run anew on every window, beside our stream.

    python benchmarks/peers.py --json results/benchmarks/peers.json

Each peer is used through torchvision's public API: its builder, and the transforms that belong to its weights, at their
own pixels, and at as many frames as torchvision gives its accuracy for; of S3D at 16 of its 128, the number that
torchvision counts its operations for. For a new prediction it needs the last window of frames, transformed and run as a
whole; that is how these networks are used live. Ours takes one new frame a prediction, at a window of 40 frames.
Weights are random and the frames drawn: neither changes the time. What the models can tell apart is not compared here.
"""

from __future__ import annotations

import argparse
import itertools
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import kinegru.models.torchvision_ops  # noqa: F401  isort: skip  (before torchvision)
import numpy as np
import torch
import torchvision
from report import about, command, publish, table
from torch import nn
from torchvision.models import video

from kinegru.measuring import Call, interleave, ratio
from kinegru.models.counting import count
from kinegru.recognition.recognizer import Recognizer
from kinegru.runs.provenance import machine
from kinegru.verbs.benchmark import untrained
from kinegru.video.synthetic import render_clip

CLASSES = 101
PEERS: dict[str, tuple[Callable[..., nn.Module], Any, int]] = {  # builder, weights whose transforms are used, frames
    "r2plus1d_18": (video.r2plus1d_18, video.R2Plus1D_18_Weights.KINETICS400_V1, 16),
    "s3d": (video.s3d, video.S3D_Weights.KINETICS400_V1, 16),
    "mvit_v2_s": (video.mvit_v2_s, video.MViT_V2_S_Weights.KINETICS400_V1, 16),
    "swin3d_t": (video.swin3d_t, video.Swin3D_T_Weights.KINETICS400_V1, 32),
}
OURS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "kinegru-xception-299": ("sc_xception_convgru_mcam_aff", 299, {}),
    "kinegru-mobilenet-160": ("mobilenet_convgru_mcam_aff", 160, {}),
    "kinegru-small-96": ("sc_xception_convgru_mcam_aff", 96, {"backbone": "xception_small"}),
}


class Peer:
    """A torchvision network on the last frames."""

    def __init__(self, name: str, frames: torch.Tensor) -> None:
        build, weights, self.window = PEERS[name]
        self.net = build(weights=None, num_classes=CLASSES).eval()
        self.transforms = weights.transforms()
        self.frames = itertools.cycle(frames)  # uint8 (3, H, W)
        self.kept = deque((next(self.frames) for _ in range(self.window)), maxlen=self.window)

    def inputs(self) -> torch.Tensor:
        return self.transforms(torch.stack(tuple(self.kept)))[None]  # (1, 3, T, S, S)

    @torch.inference_mode()
    def __call__(self) -> torch.Tensor:
        self.kept.append(next(self.frames))
        return self.net(self.inputs()).softmax(dim=1)

    def describe(self) -> dict[str, Any]:
        inputs, still = self.inputs(), deepcopy(self.net).to("meta")
        with torch.no_grad():
            work = count(lambda: still(torch.empty(inputs.shape, device="meta")))
        return {"frames": self.window, "pixels": inputs.shape[-1], "GMAC": work.gmac}


class Ours:
    """Steps of a stream whose window is full."""

    def __init__(self, name: str, frames: np.ndarray, window: int, steps: int) -> None:
        model, size, options = OURS[name]
        self.recognizer: Recognizer = untrained(model, size, window, **options)
        self.frames, self.steps, self.window, self.size = itertools.cycle(frames), steps, window, size
        self.stream = self.recognizer.stream(window)
        for _ in range(window):
            self.stream.step(next(self.frames))

    def __call__(self) -> None:
        for _ in range(self.steps):
            self.stream.step(next(self.frames))

    def describe(self) -> dict[str, Any]:
        work = count(lambda: self.stream.step(next(self.frames)))
        return {"frames": self.window, "pixels": self.size, "GMAC": work.gmac}


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    frames = np.stack(list(render_clip("walk", person=0, number=0, size=(320, 240))))
    tensors = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()  # as torchvision's reader gives them
    torch.manual_seed(0)
    sides: dict[str, Call] = {name: Ours(name, frames, arguments.window, arguments.steps) for name in arguments.ours}
    sides |= {name: Peer(name, tensors) for name in arguments.peers}
    described = {name: side.describe() for name, side in sides.items()}  # type: ignore[attr-defined]
    found = interleave(sides, arguments.rounds, arguments.seconds)
    rows = []
    for name, side in found.items():
        if name in arguments.ours:
            side.seconds = [value / arguments.steps for value in side.seconds]
            side.processor = [value / arguments.steps for value in side.processor]
    first = found[arguments.ours[0]]
    for name, side in found.items():
        row = {"side": name, **described[name], **side.to_dict()}
        if side.error is None and first.error is None and side is not first:
            more = ratio(side.processor, first.processor)
            row |= {"ratio": more.median, "ratio quartiles": [more.low, more.high]}
        rows.append(row)
    return rows


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Peers, a prediction for every frame", "", f"`{result['command']}`", "", about(result["machine"]), ""]
    lines += [
        f"{result['threads']} thread(s). Ours: the stream, one new frame a prediction. Peers: the window transformed "
        "and run anew. Medians (quartiles); ratio: times the processor seconds of the first row. Transforms included, "
        "decoding not.",
        "",
    ]
    cells = []
    for row in result["rows"]:
        named = [row["side"], row["frames"], row["pixels"], f"{row['GMAC']:.1f}"]
        if "error" in row:
            cells.append([*named, row["error"], "", ""])
            continue
        low, high = row["quartiles"]
        spread = row.get("ratio quartiles")
        cells.append(
            [
                *named,
                f"{row['seconds']:.3f} ({low:.3f} to {high:.3f})",
                f"{row['processor seconds']:.3f}",
                f"**{row['ratio']:.2f}x** ({spread[0]:.2f} to {spread[1]:.2f})" if spread else "1x",
            ]
        )
    header = ["model", "frames", "pixels", "GMAC a prediction", "seconds", "processor seconds", "ratio"]
    lines.append(table(header, cells))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", nargs="+", choices=list(OURS), default=list(OURS)[:2])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--window", type=int, default=40, help="of ours")
    parser.add_argument("--steps", type=int, default=4, help="of ours in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=300, help="at most so long, after three rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {
        "command": command(),
        "machine": machine() | {"torchvision": torchvision.__version__},
        "threads": arguments.threads,
        "rows": measure(arguments),
    }
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
