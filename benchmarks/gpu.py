"""The paper's model on a GPU: clips a second, training steps a second, and how near both are to what the card can do.

    python benchmarks/gpu.py --json results/benchmarks/gpu.json

Needs torch, timm and safetensors only, no videos; with the source not installed: PYTHONPATH=src. The floor of a row is
the larger of two times: its arithmetic at the card's measured matmul rate, and its memory traffic at the card's
measured copy bandwidth. The traffic is an estimate: what convolutions, matrix products and max pooling read and write,
each operand once; norms, activations and sums are taken as fused into them, and two convolutions never into one.

Each part runs in a process of its own, and what it has found is kept if it dies or is out of time. `eager` is torch
with folded batch norms and channels_last convolutions; `graphed` is captured once as a CUDA graph and replayed;
`compiled` is torch.compile on trunk, neck and the recurrence's step. Inputs lie on the card already. The training step
is the profile `tail`: trunk maps from the cache -> logits -> gradients -> Adam, in bf16 autocast.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from describe import describe
from report import about, command, table, write_result

PARTS = {"card": 0.1, "inference": 0.5, "training": 0.23, "convgru": 0.17}  # share of the time, at most
MINUTES, QUICK = 3.8, 1.4
HERE = Path(__file__).resolve().parent


def run_part(part: str, limit: float, arguments: argparse.Namespace, card: dict[str, float]) -> list[dict[str, Any]]:
    """The rows that a process of its own found, and one more where it did not end well."""
    with tempfile.TemporaryDirectory(prefix="kinegru-") as folder:
        rows = Path(folder) / "rows.jsonl"
        passed = [f"--{n}={getattr(arguments, n)}" for n in ("device", "frames", "size", "model", "backbone", "rounds")]
        passed += ["--batch", *map(str, arguments.batch), "--train-batch", *map(str, arguments.train_batch)]
        passed += [f"--limit={limit}", f"--card={json.dumps(card)}", f"--rows={rows}"]
        passed += ["--no-compile"] if arguments.no_compile else []
        begun, trouble, killed = time.monotonic(), None, max(60.0, 1.1 * limit)  # a start on a cold disk takes long
        print(f"--- {part}, at most {limit:.0f} s", file=sys.stderr, flush=True)
        try:
            command = [sys.executable, str(HERE / "gpu_parts.py"), part, *passed]
            done = subprocess.run(command, stdout=sys.stderr, timeout=killed, check=False)
            if done.returncode:
                trouble = f"the process ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            trouble = f"out of time after {killed:.0f} s"
        lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
        found = [json.loads(line) for line in lines]
        if trouble:
            found.append({"part": part, "side": "the rest of this part", "error": trouble})
        print(f"--- {part}: {len(found)} rows in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        return found


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# The paper's model on a GPU", "", f"`{result['command']}`", "", about(result["machine"]), ""]
    lines += [
        f"{result['frames']} frames of {result['size']} px a clip, random weights and frames. Medians (quartiles)."
    ]
    card = result["card"]
    if card:
        lines += ["", "## The card", ""]
        lines.append(table(["measured", "rate"], [[name, f"{value:.4g}"] for name, value in card.items()]))
    rows = result["rows"]
    for part, unit in (("inference", "frames/s"), ("training", "steps/s")):
        members = [row for row in rows if row["part"] == part]
        if not members:
            continue
        lines += ["", f"## {part.capitalize()}", ""]
        header = [
            "clips",
            "precision",
            "how",
            "ms",
            "clips/s",
            unit,
            "TFLOP/s",
            "floor, ms",
            "of the floor",
            "working GB",
        ]
        header += ["relative error"] if part == "inference" else []
        cells = []
        for row in members:
            named = [row.get("clips", ""), row.get("precision", ""), row["side"]]
            if "error" in row:
                cells.append([*named, row["error"], *[""] * (len(header) - 4)])
                continue
            low, high = row["quartiles"]
            rate = row["frames a second"] if part == "inference" else row["steps a second"]
            cells.append(
                [
                    *named,
                    f"{1e3 * row['seconds']:.2f} ({1e3 * low:.2f} to {1e3 * high:.2f})",
                    f"{row['clips a second']:.1f}",
                    f"{rate:.4g}",
                    f"{row['TFLOP/s']:.1f}",
                    f"{1e3 * row['floor']['seconds']:.2f} ({row['floor']['by']})",
                    f"{row['floor']['seconds'] / row['seconds']:.0%}",
                    f"{row['memory, GB']:.1f}",
                    *([f"{row['relative error']:.1e}"] if part == "inference" else []),
                ]
            )
        lines.append(table(header, cells))
    members = [row for row in rows if row["part"].startswith("convgru")]
    if members:
        lines += ["", "## ConvGRU against six convolutions a step and cuDNN's GRU", "", result["convgru"], ""]
        cells = []
        for row in members:
            named = [row["part"].removeprefix("convgru "), row["side"], row.get("mode", ""), row.get("precision", "")]
            if "error" in row:
                cells.append([*named, row["error"], "", "", ""])
                continue
            low, high = row["quartiles"]
            spread = row.get("ratio quartiles")
            times = f"**{row['ratio']}** ({spread[0]} to {spread[1]})" if spread else ""
            rate = f"{2 * row['GMAC'] / 1e3 / row['seconds']:.1f}"
            middle = f"{1e3 * row['seconds']:.2f} ({1e3 * low:.2f} to {1e3 * high:.2f})"
            cells.append([*named, middle, times, rate, row.get("relative error", "")])
        header = ["part", "side", "mode", "precision", "ms", "times our time", "TFLOP/s", "relative error"]
        lines.append(table(header, cells))
    elsewhere = [row for row in rows if row["part"] == "card" and "error" in row]
    lines += [f"\n{row['side']}: {row['error']}" for row in elsewhere]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="cpu: to try the script")
    parser.add_argument("--model", default="sc_xception_convgru_mcam_aff")
    parser.add_argument("--backbone", default="legacy_xception")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 1, 32], help="clips a pass, the most wanted first")
    parser.add_argument("--train-batch", type=int, nargs="+", default=[32, 8])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="what does not fit in is left out, and said so")
    parser.add_argument("--no-compile", action="store_true", help="leave out what is compiled")
    parser.add_argument("--quick", action="store_true", help="under 90 seconds: one batch, nothing compiled")
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: give {', '.join(PARTS)}")
    if arguments.quick:
        arguments.minutes = min(arguments.minutes, QUICK)
        arguments.batch, arguments.train_batch = arguments.batch[:1], arguments.train_batch[:1]
        arguments.no_compile = True
    result: dict[str, Any] = {
        "command": command(),
        "machine": describe("cpu"),
        "frames": arguments.frames,
        "size": arguments.size,
        "card": {},
        "convgru": "",
        "rows": [],
    }
    begun, text = time.monotonic(), ""
    chosen = arguments.parts or list(PARTS)
    for part in chosen:  # what one leaves of its time is for those after it
        left = begun + 60 * arguments.minutes - time.monotonic()
        ahead = sum(PARTS[name] for name in chosen[chosen.index(part) :])
        for row in run_part(part, left * PARTS[part] / ahead, arguments, result["card"]):
            for key, value in row.pop("result", {}).items():
                result[key] = result[key] | value if isinstance(value, dict) else value
            if len(row) > 1:
                result["rows"].append(row)
        result["seconds"] = round(time.monotonic() - begun)
        text = as_markdown(result)
        if arguments.json:  # after every part: what there is by now is kept
            write_result(arguments.json, result, text)
    print(text)


if __name__ == "__main__":
    main()
