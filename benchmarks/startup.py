"""How long kinegru takes to start: fresh processes, beside Python's own start and `import torch`.

    python benchmarks/startup.py --json results/benchmarks/startup.json

`predict` is a whole command: it loads a model file and recognises one drawn clip of a second, with torch or with the
model's export, which needs neither timm nor the torch model. The files are in the page cache after the first round,
which is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from report import about, command, publish, table

from kinegru.measuring import Call, ProcessRun, interleave, quartiles, ratio, run_process
from kinegru.models.modelfile import save_model
from kinegru.models.zoo import create_model
from kinegru.recognition.export import export_model
from kinegru.recognition.exported import export_folder
from kinegru.recognition.recognizer import Recognizer
from kinegru.runs.provenance import machine
from kinegru.video.loading import load_clip
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing

PYTHON, HELP = "python -c pass", "kinegru --help"
TARGETS = {HELP: 0.5}  # seconds


MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "small-64": ({"backbone": "xception_small", "width": 32}, 64),
    "mobilenet-160": ({"backbone": "mobilenetv2_100"}, 160),
    "xception-299": ({}, 299),
}


def write_models(names: list[str], folder: Path, frames: int) -> dict[str, Path]:
    """Untrained models, and their exports: what they answer does not matter here."""
    files = {}
    for name in names:
        options, size = MODELS[name]
        model = create_model("sc_xception_convgru_mcam_aff", 2, **options)
        preprocessing = Preprocessing(frames=frames, size=size).to_dict()
        path = save_model(folder / f"{size}.safetensors", model, ["run", "walk"], preprocessing)
        recognizer = Recognizer.load(path, "cpu", "torch")
        clip = load_clip(example_clip(), recognizer.preprocessing)
        export_model(recognizer, path, "onnx", export_folder(path, "onnx"), [clip])
        files[name] = path
    return files


def measure(names: list[str], rounds: int, frames: int) -> dict[str, Any]:
    runs: dict[str, list[ProcessRun]] = {}

    def side(name: str, *command: str) -> Call:
        return lambda: runs.setdefault(name, []).append(run_process([sys.executable, *command]))

    with tempfile.TemporaryDirectory(prefix="kinegru-") as folder:
        sides = {
            PYTHON: side(PYTHON, "-c", "pass"),
            "import torch": side("import torch", "-c", "import torch"),
            HELP: side(HELP, "-m", "kinegru", "--help"),
            "kinegru predict --help": side("kinegru predict --help", "-m", "kinegru", "predict", "--help"),
        }
        for model, path in write_models(names, Path(folder), frames).items():
            for engine in ("torch", "onnx"):
                name = f"kinegru predict, {model}, {engine}"
                predict = ("-m", "kinegru", "predict", str(path), str(example_clip()), "--engine", engine)
                sides[name] = side(name, *predict)
        found = interleave(sides, rounds, seconds=400)
    rows: dict[str, Any] = {}
    for name, measured in found.items():
        if measured.error is not None:
            rows[name] = {"error": measured.error}
            continue
        counted = runs[name][1:]  # the first warmed up
        seconds = [run.seconds for run in counted]
        more = ratio(seconds, [run.seconds for run in runs[PYTHON][1:]])
        rows[name] = {
            "seconds": statistics.median(seconds),
            "quartiles": quartiles(seconds),
            "processor seconds": statistics.median(run.processor for run in counted),
            "peak, MB": round(max(run.peak for run in counted) / 1e6),
            "times python": round(more.median, 2),
            "times python, quartiles": [round(more.low, 2), round(more.high, 2)],
        }
        if name in TARGETS:
            rows[name] |= {"target, s": TARGETS[name], "holds": rows[name]["seconds"] <= TARGETS[name]}
    return rows


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Start-up", "", f"`{result['command']}`", "", about(result["machine"]), ""]
    lines += ["Fresh processes in turn, medians (quartiles). Ratio: times Python's own start.", ""]
    cells = []
    for name, row in result["rows"].items():
        if "error" in row:
            cells.append([name, row["error"], "", "", "", ""])
            continue
        low, high = row["quartiles"]
        first, last = row["times python, quartiles"]
        target = f"{row['target, s']} s: {'holds' if row['holds'] else 'missed'}" if "target, s" in row else ""
        cells.append(
            [
                name,
                f"{row['seconds']:.3f} ({low:.3f} to {high:.3f})",
                f"{row['processor seconds']:.3f}",
                f"{row['times python']}x ({first} to {last})",
                row["peak, MB"],
                target,
            ]
        )
    lines.append(table(["command", "seconds", "processor seconds", "ratio", "peak, MB", "target"], cells))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=4, help="of a clip: recognising it is not what is measured")
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    result = {
        "command": command(),
        "machine": machine(),
        "rows": measure(arguments.models, arguments.rounds, arguments.frames),
    }
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
