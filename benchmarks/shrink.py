"""A training view read from a clip and from its small copy (`kinegru shrink`), interleaved in one run.

    python benchmarks/shrink.py ../shared/data/fights --json results/benchmarks/shrink.json

A view is what `kinegru train --profile full` computes for every clip in every epoch: frames at random places, one crop,
flip and colour change, normalised. A round reads each of the clips once, in one thread, as one decoding process does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import about, command, publish, table

from kinegru.console import progress_bar
from kinegru.data.catalog import load_catalog
from kinegru.data.shrink import shrink_clip
from kinegru.measuring import interleave, ratio
from kinegru.runs.provenance import machine
from kinegru.video.container import THREADS_VARIABLE
from kinegru.video.loading import load_clip
from kinegru.video.transforms import Augmentation, Preprocessing


def read_views(paths: list[Path], preprocessing: Preprocessing) -> None:
    for seed, path in enumerate(paths):
        load_clip(path, preprocessing, Augmentation(), np.random.default_rng(seed))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clips = [clip.path for clip in load_catalog(arguments.data).clips]
    clips = clips[:: max(1, len(clips) // arguments.clips)][: arguments.clips]
    copies = [folder / f"{number}.mp4" for number in range(len(clips))]
    begun = time.perf_counter()
    with progress_bar("copying") as track:
        for number, (clip, copy) in enumerate(zip(clips, copies, strict=True), start=1):
            shrink_clip(clip, copy, arguments.short_side, crf=18)
            track(number, len(clips))
    copying = time.perf_counter() - begun
    preprocessing = Preprocessing(arguments.frames, arguments.size)
    found = interleave(
        {"clips": lambda: read_views(clips, preprocessing), "copies": lambda: read_views(copies, preprocessing)},
        arguments.rounds, seconds=600,
    )  # fmt: skip
    return {
        "clips read": len(clips),
        "seconds to copy a clip": copying / len(clips),
        "bytes": [sum(path.stat().st_size for path in paths) for paths in (clips, copies)],
        "milliseconds a view": [1e3 * statistics.median(side.seconds) / len(clips) for side in found.values()],
        "ratio": str(ratio(found["clips"].seconds, found["copies"].seconds)),
        "rounds": {side: found[side].seconds for side in found},
    }


def as_markdown(result: dict[str, Any]) -> str:
    rows = [
        [side, f"{size / 2**20:.1f}", f"{milliseconds:.1f}"]
        for side, size, milliseconds in zip(
            ("clips", "copies"), result["bytes"], result["milliseconds a view"], strict=True
        )
    ]
    return "\n".join(
        [
            "# A training view from a clip and from its small copy",
            "",
            f"{result['clips read']} clips, views of {result['frames']} frames at {result['size']} px, copies of "
            f"{result['short_side']} px, one thread; medians of {result['rounds_asked']} interleaved rounds.",
            "",
            f"`{result['command']}`",
            "",
            about(result["machine"]),
            "",
            table(["side", "MB", "ms a view"], rows),
            "",
            f"Clips to copies: {result['ratio']}. To copy a clip takes {result['seconds to copy a clip']:.2f} s of one "
            "core, once.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set in any form that kinegru train takes")
    parser.add_argument("--short-side", type=int, default=128)
    parser.add_argument("--clips", type=int, default=24, help="spread over the data set evenly")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    os.environ[THREADS_VARIABLE] = "1"
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "command": command(),
        "machine": machine() | {"threads": 1},
        **{key: getattr(arguments, key) for key in ("short_side", "frames", "size")},
        "rounds_asked": arguments.rounds,
    }
    with tempfile.TemporaryDirectory(prefix="kinegru-") as folder:
        result |= measure(arguments, Path(folder))
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
