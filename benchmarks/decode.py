"""Reading clips: our path against OpenCV's reader and torchcodec's on the same files, interleaved in one run.

    python benchmarks/decode.py ../shared/data/weizmann ../shared/data/fights --json results/benchmarks/decode.json

Each side gives the same thing, 40 uniformly sampled RGB frames of 299 x 299 as one uint8 array; the float conversion is
the same code for any reader and left out. OpenCV is used well: `grab` for frames that are not wanted, `retrieve` for
those that are, its threads set like ours. Two of its resizes are measured: INTER_CUBIC, the name training scripts use,
which does not antialias (each output pixel sees 4 x 4 input pixels however much the picture shrinks), and INTER_AREA,
which does. Ours is antialiased bicubic. torchcodec decodes the wanted frames by their numbers, which its default, exact
mode finds by a scan of the file; measured are its decoder's own resize, and our resize of the frames that it gives. It
needs the libraries of FFmpeg 4 to 8 on the machine; where it cannot be loaded the result says so. Per clip the sides
take turns; a clip's time is its median over the repeats.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from report import command, publish

from kinegru.runs.provenance import machine
from kinegru.video.container import THREADS_VARIABLE, Decoder
from kinegru.video.loading import load_images
from kinegru.video.reader import probe
from kinegru.video.sampling import uniform_indices
from kinegru.video.transforms import Preprocessing

try:
    import kinegru.models.torchvision_ops  # noqa: F401  isort: skip  (torchcodec's resize imports torchvision)
    import torchcodec
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    TROUBLE = ""
except (ImportError, RuntimeError, OSError) as error:  # not installed, or no FFmpeg that it knows
    TROUBLE = " ".join(str(error).split())[:200]

OURS = "KineGRU"
CUBIC, AREA = "OpenCV INTER_CUBIC", "OpenCV INTER_AREA"
CODEC, CODEC_OURS = "torchcodec", "torchcodec, our resize"
SIDES = (OURS, CUBIC, AREA, *(() if TROUBLE else (CODEC, CODEC_OURS)))


def read_ours(path: str, preprocessing: Preprocessing) -> np.ndarray:
    return load_images(path, preprocessing)[0].numpy()  # (T, S, S, 3)


def read_opencv(path: str, preprocessing: Preprocessing, threads: int, interpolation: int) -> np.ndarray:
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    indices = uniform_indices(length, preprocessing.frames).tolist()
    size, found = (preprocessing.size, preprocessing.size), {}
    for number in range(indices[-1] + 1):
        if not capture.grab():
            break
        if number in set(indices):
            _, image = capture.retrieve()
            found[number] = cv2.cvtColor(cv2.resize(image, size, interpolation=interpolation), cv2.COLOR_BGR2RGB)
    capture.release()
    return np.stack([found[i] for i in indices])  # (T, S, S, 3)


def read_torchcodec(path: str, preprocessing: Preprocessing, threads: int, own: bool) -> np.ndarray:
    """`own`: the decoder resizes each frame itself; else our resize is given the frames."""
    resize = [Resize((preprocessing.size, preprocessing.size))] if own else None
    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=threads, transforms=resize)
    assert decoder.metadata.num_frames is not None
    indices = uniform_indices(decoder.metadata.num_frames, preprocessing.frames).tolist()
    frames = decoder.get_frames_at(indices).data.numpy()  # (T, H, W, 3)
    return frames if own else preprocessing.resize(frames).numpy()


def parts_of_ours(path: str, preprocessing: Preprocessing) -> dict[str, float]:
    """Seconds by part when every frame is decoded one after the other, nothing left out."""
    spent = {"open": 0.0, "decode all frames": 0.0, "to RGB": 0.0, "resize": 0.0}
    clock = time.perf_counter

    def lap(part: str, since: float) -> float:
        now = clock()
        spent[part] += now - since
        return now

    start = clock()
    with Decoder(path) as decoder:
        wanted = set(uniform_indices(decoder.announced or probe(path).frames, preprocessing.frames).tolist())
        now = lap("open", start)
        for number, frame in enumerate(decoder):
            now = lap("decode all frames", now)
            if number in wanted:
                image = decoder.rgb(frame)
                now = lap("to RGB", now)
                preprocessing.resize(image[None])
                now = lap("resize", now)
        lap("decode all frames", now)
    return spent


def measure(paths: list[str], preprocessing: Preprocessing, threads: int, repeats: int) -> dict[str, Any]:
    os.environ[THREADS_VARIABLE] = str(threads)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    read: dict[str, Callable[[str], np.ndarray]] = {
        OURS: lambda path: read_ours(path, preprocessing),
        CUBIC: lambda path: read_opencv(path, preprocessing, threads, cv2.INTER_CUBIC),
        AREA: lambda path: read_opencv(path, preprocessing, threads, cv2.INTER_AREA),
    }
    if not TROUBLE:
        read[CODEC] = lambda path: read_torchcodec(path, preprocessing, threads, own=True)
        read[CODEC_OURS] = lambda path: read_torchcodec(path, preprocessing, threads, own=False)
    clips = []
    for done, path in enumerate(paths):
        outputs = {side: read[side](path) for side in SIDES}  # also brings the file into the page cache
        difference = np.abs(outputs[OURS].astype(np.int16) - outputs[AREA]).mean()
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        work: dict[str, list[float]] = {side: [] for side in SIDES}
        for repeat in range(repeats):
            for turn in range(len(SIDES)):
                side = SIDES[(turn + repeat) % len(SIDES)]
                start, busy = time.perf_counter(), time.process_time()
                read[side](path)
                times[side].append(time.perf_counter() - start)
                work[side].append(time.process_time() - busy)
        parts = parts_of_ours(path, preprocessing)
        info = probe(path, exact=False)
        clips.append(
            {
                "clip": Path(path).name,
                "size": f"{info.width}x{info.height}",
                "frames": info.frames,
                "seconds": {side: statistics.median(times[side]) for side in SIDES},
                "processor seconds": {side: statistics.median(work[side]) for side in SIDES},
                "parts": parts,
                "mean difference to INTER_AREA": round(float(difference), 2),
            }
        )
        print(f"\r{threads} threads: {done + 1}/{len(paths)} clips", end="", file=sys.stderr)
    print(file=sys.stderr)
    return {"threads": threads, "summary": summarise(clips), "clips": clips}


def summarise(clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By picture size and over all: median milliseconds, and the ratio of another side to ours with its quartiles."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for clip in clips:
        height = int(clip["size"].split("x")[1])
        name = "up to 240 lines" if height <= 240 else "up to 480 lines" if height <= 480 else "720 lines and more"
        groups.setdefault(name, []).append(clip)
    rows = []
    for name, members in [*sorted(groups.items()), ("all", clips)]:
        row: dict[str, Any] = {"pictures": name, "clips": len(members)}
        for side in SIDES:
            row[f"{side}, ms"] = round(1000 * statistics.median(c["seconds"][side] for c in members), 1)
        for side in SIDES[1:]:
            ratios = [c["seconds"][side] / c["seconds"][OURS] for c in members]
            low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
            row[f"{side} / ours"] = {"median": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]}
            for kind, label in (("seconds", "total time"), ("processor seconds", "total processor time")):
                total = sum(c[kind][side] for c in members) / sum(c[kind][OURS] for c in members)
                row[f"{side} / ours, {label}"] = round(total, 2)
        row["parts, ms"] = {
            part: round(1000 * statistics.mean(c["parts"][part] for c in members), 1) for part in members[0]["parts"]
        }
        rows.append(row)
    return rows


def as_markdown(result: dict[str, Any]) -> str:
    about = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    lines = [
        "# Reading clips: ours against OpenCV and torchcodec",
        "",
        f"{result['frames']} frames of {result['size']} px from each clip as uint8 RGB, "
        f"{result['repeats']} interleaved repeats. Ratios above 1: ours is faster. "
        "INTER_CUBIC does not antialias, the others do.",
        "",
        f"`{result['command']}`",
        "",
        f"Machine: {about}.",
    ]
    for run in result["runs"]:
        lines += ["", f"## {run['threads']} thread{'s' if run['threads'] > 1 else ''}", ""]
        others = [side.removeprefix("OpenCV ") for side in SIDES[1:]]
        lines += ["| pictures | clips | ours, ms |" + "".join(f" {side}, ms | ratio (quartiles) |" for side in others)]
        lines += ["|" + "---|" * (3 + 2 * len(others))]
        for row in run["summary"]:
            cells = [row["pictures"], str(row["clips"]), str(row[f"{OURS}, ms"])]
            for side in SIDES[1:]:
                ratio = row[f"{side} / ours"]
                low, high = ratio["quartiles"]
                cells += [str(row[f"{side}, ms"]), f"**{ratio['median']}** ({low} to {high})"]
            lines.append(f"| {' | '.join(cells)} |")
        everything = run["summary"][-1]
        parts = ", ".join(f"{part} {value} ms" for part, value in everything["parts, ms"].items())
        totals = ", ".join(
            f"{name} {everything[f'{side} / ours, total time']} ({everything[f'{side} / ours, total processor time']})"
            for side, name in zip(SIDES[1:], others, strict=True)
        )
        lines += [
            "",
            "All clips together, times our time (times our processor time, which other programs on the machine disturb "
            f"less): {totals}. Where a clip's time goes without leaving any frame out, on average: {parts}.",
        ]
    if TROUBLE:
        lines += ["", f"torchcodec was not measured, it cannot be loaded here: {TROUBLE}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of class folders")
    parser.add_argument("--clips", type=int, default=40, help="clips a folder, spread over it evenly")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--size", type=int, default=299)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()

    paths: list[str] = []
    for folder in arguments.folders:
        files = sorted(str(p) for p in folder.glob("*/*") if p.suffix in (".avi", ".mp4", ".mkv", ".webm", ".mov"))
        if not files:
            sys.exit(f"{folder}: no class folders with clips in it")
        paths += [files[i] for i in uniform_indices(len(files), min(arguments.clips, len(files)))]
    preprocessing = Preprocessing(frames=arguments.frames, size=arguments.size)
    result: dict[str, Any] = {
        "command": command(),
        "machine": machine()
        | {"opencv": cv2.__version__, "numpy": np.__version__}
        | ({} if TROUBLE else {"torchcodec": torchcodec.__version__}),
        "frames": arguments.frames,
        "size": arguments.size,
        "repeats": arguments.repeats,
        "runs": [
            measure(paths, preprocessing, threads, arguments.repeats) for threads in dict.fromkeys(arguments.threads)
        ],
    }
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
