"""Peak memory of `kinegru timeline` on a short and on a long recording: it must not grow with the length.

    python benchmarks/memory.py --json results/benchmarks/memory.json

The recording is drawn (160 x 120 at 25 frames a second); the long one holds its packets many times over, so that both
are decoded alike. Each run is a fresh process, and the peak is the highest that the system saw of it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
from report import about, command, publish, table

from kinegru.measuring import quartiles, run_process
from kinegru.models.modelfile import save_model
from kinegru.models.zoo import create_model
from kinegru.runs.provenance import machine
from kinegru.video.puppet import ACTIONS
from kinegru.video.synthetic import render_clip
from kinegru.video.transforms import Preprocessing
from kinegru.video.writer import write_video

RATE = 25.0  # frames a second of the recording
MOST = 50.0  # MB that the long recording may take more


def draw_recording(path: Path, minutes: float) -> Path:
    """A clip of each action, one after the other, until the time is over."""
    pictures = [frame for action in ACTIONS for frame in render_clip(action, person=0, number=0)]
    frames = itertools.islice(itertools.cycle(pictures), round(60 * RATE * minutes))
    write_video(path, frames, RATE)
    return path


def repeat_recording(source: Path, path: Path, times: int) -> Path:
    """The same packets `times` times over, nothing decoded or encoded."""
    with av.open(str(path), "w") as out:
        stream: Any = None
        shift = 0
        for _ in range(times):
            with av.open(str(source)) as opened:
                video = opened.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                length = video.duration
                for packet in opened.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
            shift += length
    return path


def write_model(path: Path, backbone: str, size: int, window: int) -> Path:
    """An untrained model: what it answers does not matter here."""
    model = create_model("sc_xception_convgru_mcam_aff", 6, backbone=backbone)
    return save_model(path, model, sorted(ACTIONS), Preprocessing(frames=window, size=size).to_dict())


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    lengths = {"short": arguments.minutes[0], "long": arguments.minutes[1]}
    times = max(1, round(lengths["long"] / lengths["short"]))
    lengths["long"] = times * lengths["short"]
    runs: dict[str, list[Any]] = {name: [] for name in lengths}
    with tempfile.TemporaryDirectory(prefix="kinegru-") as name:
        folder = Path(name)
        model = write_model(folder / "model.safetensors", arguments.backbone, arguments.size, arguments.window)
        short = draw_recording(folder / "short.mp4", lengths["short"])
        files = {"short": short, "long": repeat_recording(short, folder / "long.mp4", times)}
        for turn in range(arguments.rounds):
            for which in lengths if turn % 2 == 0 else reversed(lengths):
                out = folder / f"{which}-{turn}"
                command = [sys.executable, "-m", "kinegru", "timeline", str(model), str(files[which])]
                command += ["--out", str(out), "--fps", str(arguments.fps), "--device", "cpu"]
                runs[which].append(run_process(command))
                print(f"{which}: {runs[which][-1]}", file=sys.stderr)
    rows = {}
    for which, taken in runs.items():
        rows[which] = {
            "minutes": lengths[which],
            "peak, MB": statistics.median(run.peak for run in taken) / 1e6,
            "peaks, MB": [run.peak / 1e6 for run in taken],
            "seconds": statistics.median(run.seconds for run in taken),
            "quartiles": quartiles([run.seconds for run in taken]),
            "processor seconds": statistics.median(run.processor for run in taken),
        }
    grown = rows["long"]["peak, MB"] - rows["short"]["peak, MB"]
    minutes = lengths["long"] - lengths["short"]
    return {
        "rows": rows,
        "difference, MB": grown,
        "ratio": rows["long"]["peak, MB"] / rows["short"]["peak, MB"],
        "target, MB": MOST,
        "holds": grown <= MOST,
        "seconds a minute": (rows["long"]["seconds"] - rows["short"]["seconds"]) / minutes if minutes else None,
    }


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Memory of a long recording", "", f"`{result['command']}`", "", about(result["machine"]), ""]
    lines += [f"`kinegru timeline` at {result['fps']:g} frames a second, {result['model']}.", ""]
    cells = []
    for row in result["rows"].values():
        peaks, (low, high) = row["peaks, MB"], row["quartiles"]
        cells.append(
            [
                f"{row['minutes']:g} min",
                f"{row['peak, MB']:.0f} ({min(peaks):.0f} to {max(peaks):.0f})",
                f"{row['seconds']:.1f} ({low:.1f} to {high:.1f})",
                f"{row['processor seconds']:.1f}",
                len(peaks),
            ]
        )
    lines.append(table(["recording", "peak, MB (range)", "seconds (quartiles)", "processor seconds", "runs"], cells))
    lines += [
        "",
        f"The long one takes {result['difference, MB']:+.1f} MB, a ratio of {result['ratio']:.3f}x; the target is at "
        f"most {result['target, MB']:g} MB more, and it {'holds' if result['holds'] else 'is missed'}.",
    ]
    if result["seconds a minute"] is not None:
        lines[-1] += f" A minute of video takes {result['seconds a minute']:.2f} s."
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs=2, default=[1, 60], help="of the short and the long recording")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each")
    parser.add_argument("--fps", type=float, default=5, help="frames a second that are looked at")
    parser.add_argument("--backbone", default="xception_small")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    result = {
        "command": command(),
        "machine": machine(),
        "fps": arguments.fps,
        "model": f"{arguments.backbone} at {arguments.size} px, windows of {arguments.window} frames",
        **measure(arguments),
    }
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
