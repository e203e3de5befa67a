"""The stream against the usual way, the clip model run anew on every window: processor seconds a prediction.

    python benchmarks/stream.py --json results/benchmarks/stream.json

Window 40, stride 1: every new frame gives a prediction. Both sides give the same numbers, which is checked. The
arithmetic is counted by torch's counter; how far it shrinks bounds what can be gained. Weights and frames do not change
the time: models are untrained, the frames are drawn.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import about, command, publish, table

from kinegru.models.counting import count
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.speed import measure_streams
from kinegru.runs.provenance import machine
from kinegru.verbs.benchmark import untrained
from kinegru.video.synthetic import render_clip

MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "xception-299": ("sc_xception_convgru_mcam_aff", 299, {}),
    "xception-160": ("sc_xception_convgru_mcam_aff", 160, {}),
    "mobilenet-160": ("mobilenet_convgru_mcam_aff", 160, {}),
    "small-96": ("sc_xception_convgru_mcam_aff", 96, {"backbone": "xception_small"}),
}
LEAST = {"xception-299": 25.0}  # times fewer processor seconds


def gmac(recognizer: Recognizer, window: int, frame: np.ndarray) -> tuple[float, float]:
    """10⁹ multiply-accumulates of a prediction: of the clip model, and of a step of the stream whose window is full."""
    size, model = recognizer.preprocessing.size, deepcopy(recognizer.model).to("meta")
    clip = torch.empty(1, window, recognizer.preprocessing.channels, size, size, device="meta")
    with torch.no_grad():
        whole = count(lambda: model(clip)).gmac
    stream = recognizer.stream(window)
    for _ in range(window):
        stream.step(frame)
    return whole, count(lambda: stream.step(frame)).gmac


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    model, size, options = MODELS[name]
    recognizer = untrained(model, size, arguments.window, **options)
    frames = np.stack(list(render_clip("walk", person=0, number=0, size=(320, 240))))
    whole, step = gmac(recognizer, arguments.window, frames[0])
    streams = {name: recognizer.stream(arguments.window)}
    found = measure_streams(streams, frames, arguments.rounds, arguments.steps, arguments.seconds)[name].to_dict()
    bound = whole / step
    row = {"model": name, "GMAC, clip model": whole, "GMAC, stream": step, "bound": bound, **found}
    if found["ratio"] is not None:
        row["of the bound"] = found["ratio"] / bound
    if name in LEAST and found["ratio"] is not None:
        row |= {"target": LEAST[name], "holds": found["ratio"] >= LEAST[name]}
    return row


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# The stream against re-running the window", "", f"`{result['command']}`", ""]
    lines += [about(result["machine"]), ""]
    lines += [
        f"Window {result['window']}, stride 1, {result['threads']} thread(s); medians (quartiles) of "
        f"{result['rounds']} rounds at most, {result['steps']} steps of the stream and one re-run in each. Seconds are "
        "processor seconds a prediction.",
        "",
    ]
    cells = []
    for row in result["rows"]:
        stream, again = row["stream"], row["re-run"]
        if "error" in stream or "error" in again:
            cells.append([row["model"], stream.get("error") or again["error"], "", "", "", "", "", "", ""])
            continue
        low, high = row["ratio quartiles"]
        cells.append(
            [
                row["model"],
                f"{row['GMAC, clip model']:.4g}",
                f"{row['GMAC, stream']:.4g}",
                f"{row['bound']:.1f}x",
                f"{again['processor seconds']:.4g}",
                f"{stream['processor seconds']:.4g}",
                f"**{row['ratio']:.1f}x** ({low:.1f} to {high:.1f})",
                f"{row['of the bound']:.0%}",
                f"{row['difference']:.1e}",
            ]
        )
    header = ["model", "GMAC, clip", "GMAC, stream", "bound", "re-run, s", "stream, s", "ratio", "of the bound"]
    lines.append(table([*header, "difference"], cells))
    lines += [
        f"\n{row['model']}: at least {row['target']:g}x {'holds' if row['holds'] else 'is missed'}."
        for row in result["rows"]
        if "target" in row
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--window", type=int, default=40)
    parser.add_argument("--steps", type=int, default=8, help="of the stream in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=150, help="at most so long a model, after three rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {
        "command": command(),
        "machine": machine(),
        **{name: getattr(arguments, name) for name in ("window", "steps", "rounds", "threads")},
        "rows": [measure(name, arguments) for name in arguments.models],
    }
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
