"""What eight bits cost: the test clips of trained models recognised by torch and by their int8 export.

    python benchmarks/int8_accuracy.py ../shared/data/weizmann runs/weizmann/* --group-pattern '/([a-z]+)_' \\
        --json results/benchmarks/int8_weizmann.json

Each RUN's model is exported to a temporary folder, calibrated on its own training clips, and tested on the test clips
of its own split, which neither training nor calibration has seen. Several RUNs, the folds of one data set, are counted
together. `--clips` takes at most so many test clips of a RUN, from all classes in turn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from report import about, command, publish, table

from kinegru.data.catalog import load_catalog
from kinegru.data.splits import make_split
from kinegru.models.modelfile import FILE_NAME
from kinegru.recognition.exported import ExportedEngine
from kinegru.recognition.recognizer import Recognizer
from kinegru.runs.provenance import machine
from kinegru.verbs.export import Cost, export, measure_cost, spread


def measure(run: Path, arguments: argparse.Namespace) -> tuple[Cost, dict[str, Any]]:
    path = run / FILE_NAME if run.is_dir() else run
    recognizer = Recognizer.load(path, "cpu", "torch")
    known = recognizer.provenance
    catalog = load_catalog(arguments.data, arguments.group_pattern, arguments.lists)
    test = make_split(catalog, known["split"], known.get("seed", 0)).test
    chosen = spread(test, arguments.clips) if arguments.clips else list(test)
    with tempfile.TemporaryDirectory(prefix="kinegru-") as folder:
        target = Path(folder) / "model.onnx-int8"
        options = {"group_pattern": arguments.group_pattern, "lists": arguments.lists}
        export(
            str(path), format="onnx-int8", data=arguments.data, out=str(target), split="model",
            calibration_clips=arguments.calibration_clips, measured_clips=1, least_same=0.0, **options,
        )  # fmt: skip
        cost = measure_cost(recognizer, ExportedEngine(target, path), chosen)
    row = {"run": run.name, "model": recognizer.model.name, "split": known["split"], **asdict(cost)}
    print(f"{run.name}: {cost}", file=sys.stderr)
    return cost, row


def as_markdown(result: dict[str, Any], total: Cost) -> str:
    lost = 100 * (total.right_torch - total.right_export) / total.clips
    lines = [
        "# What eight bits cost", "", f"`{result['command']}`", "", about(result["machine"]), "",
        f"Test clips of {result['data']}: {total}, {lost:.1f} points lost. Each model was calibrated on "
        f"{result['calibration clips']} of its training clips.", "",
    ]  # fmt: skip
    header = ["run", "model", "test clips", "same label", "right, torch", "right, int8"]
    names = ("run", "model", "clips", "same", "right_torch", "right_export")
    return "\n".join([*lines, table(header, [[row[name] for name in names] for row in result["runs"]]), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set in any form that kinegru train takes")
    parser.add_argument("runs", nargs="*", type=Path, help="RUN folders or model files trained on it")
    parser.add_argument("--group-pattern", help="as in kinegru train")
    parser.add_argument("--lists", help="as in kinegru train")
    parser.add_argument("--clips", type=int, default=0, help="at most so many test clips of a RUN; 0: all")
    parser.add_argument("--calibration-clips", type=int, default=32)
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    runs = [run for run in arguments.runs if run.suffix == ".safetensors" or (run / FILE_NAME).is_file()]
    if not runs:
        print("no trained models were given: nothing to measure", file=sys.stderr)
        return
    begun = time.perf_counter()
    found = [measure(run, arguments) for run in runs]
    total = Cost(*(sum(getattr(cost, name) for cost, _ in found) for name in Cost.__dataclass_fields__))
    result = {
        "command": command(),
        "machine": machine(),
        "data": Path(arguments.data).name,
        "calibration clips": arguments.calibration_clips,
        "seconds": round(time.perf_counter() - begun),
        "total": asdict(total),
        "runs": [row for _, row in found],
    }
    publish(result, as_markdown(result, total), arguments.json)


if __name__ == "__main__":
    main()
