"""Timelines against a known truth: all clips of a person the model has never seen, joined into one recording.

    python benchmarks/timeline_weizmann.py ../shared/data/weizmann runs/weizmann --json results/timeline/weizmann.json

RUNS is what `kinegru train DATA --split leave-one-group-out` wrote: a folder leave-one-group-out-NAME a person, each
with a model that was trained without that person. The clips are joined in an order drawn from the seed, and told to
nobody. Measured are frame accuracy (frames under the right label, of all; `unknown` is never right) and F1 of segments
(a found segment is right if it overlaps one of its label, not taken yet, with an intersection over union of 0.5).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report import command, publish

from kinegru.console import say
from kinegru.data.catalog import Clip, load_catalog
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.timeline import UNKNOWN_LABEL, Rules, Segment
from kinegru.runs.provenance import versions
from kinegru.video.reader import iter_frames, probe
from kinegru.video.writer import write_video

PREFIX = "leave-one-group-out-"


def join(clips: Sequence[Clip], path: Path) -> list[Segment]:
    """One recording of these clips, and where each label is in it; neighbours of one label are one."""
    fps = probe(clips[0].path, exact=False).fps
    truth: list[Segment] = []
    at = 0

    def frames():
        nonlocal at
        for clip in clips:
            start = at / fps
            for frame in iter_frames(clip.path):
                yield frame
                at += 1
            if truth and truth[-1].label == clip.label:
                start = truth.pop().start
            truth.append(Segment(clip.label, start, at / fps, 1.0))

    write_video(path, frames(), fps)
    return truth


def overlap(one: Segment, other: Segment) -> float:
    """Intersection over union in time."""
    shared = max(0.0, min(one.end, other.end) - max(one.start, other.start))
    return shared / (one.end - one.start + other.end - other.start - shared)


def matches(found: Sequence[Segment], truth: Sequence[Segment], least: float = 0.5) -> int:
    """Found segments with one of the truth's of their label that overlaps enough, each of those taken once."""
    pairs = [(overlap(f, t), i, j) for i, f in enumerate(found) for j, t in enumerate(truth) if f.label == t.label]
    used: set[tuple[str, int]] = set()
    count = 0
    for share, i, j in sorted(pairs, reverse=True):
        if share >= least and not used & {("found", i), ("true", j)}:
            used |= {("found", i), ("true", j)}
            count += 1
    return count


def frame_accuracy(found: Sequence[Segment], truth: Sequence[Segment], rate: float = 25.0) -> tuple[int, int]:
    """(right, all) of the moments that are 1 / rate seconds apart."""
    times = np.arange(0.5 / rate, truth[-1].end, 1 / rate)
    columns = []
    for segments in (found, truth):
        places = np.searchsorted([segment.end for segment in segments[:-1]], times, side="right")
        columns.append([segments[place].label for place in places])
    return sum(a == b for a, b in zip(*columns, strict=True)), len(times)


def f1(right: int, found: int, true: int) -> float:
    return 2 * right / (found + true) if found + true else 0.0


def measure(recognizer: Recognizer, clips: Sequence[Clip], arguments: argparse.Namespace) -> dict[str, Any]:
    order = np.random.default_rng(arguments.seed).permutation(len(clips))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joined.mp4"
        truth = join([clips[i] for i in order], path)
        rules = Rules(threshold=arguments.threshold)
        found = recognizer.timeline(path, window=arguments.window, stride=arguments.stride, rules=rules)
    named = [segment for segment in found if segment.label != UNKNOWN_LABEL]
    right, frames = frame_accuracy(found, truth)
    counts = {"right": matches(named, truth), "found": len(named), "true": len(truth)}
    return {
        "seconds": round(truth[-1].end, 2),
        "segments": counts,
        "f1": round(f1(**counts), 4),
        "frames": {"right": right, "all": frames},
        "frame_accuracy": round(right / frames, 4),
        "temperature": recognizer.temperature,
        "truth": [segment.to_dict() for segment in truth],
        "timeline": [segment.to_dict() for segment in found],
    }


def as_markdown(result: dict[str, Any]) -> str:
    lines = ["# Timelines of unseen people", "", f"`{result['command']}`", ""]
    lines += ["| person | recording, s | segments right / found / true | F1 at IoU 0.5 | frame accuracy |"]
    lines += ["|---|---|---|---|---|"]
    for person, row in result["people"].items():
        counts = " / ".join(str(row["segments"][name]) for name in ("right", "found", "true"))
        lines += [f"| {person} | {row['seconds']} | {counts} | {row['f1']:.3f} | {row['frame_accuracy']:.1%} |"]
    lines += [f"| **all** | | | **{result['f1']:.3f}** | **{result['frame_accuracy']:.1%}** |", ""]
    lines += [f"Versions: {', '.join(f'{name} {version}' for name, version in result['versions'].items())}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, help=f"folder with {PREFIX}NAME/model.safetensors")
    parser.add_argument("--group-pattern", default=r"/([a-z]+)_[^/]*$", help="what names the person in a clip's path")
    parser.add_argument("--people", nargs="*", help="only these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=int, help="frames; default: those of a training clip")
    parser.add_argument("--stride", type=int, help="frames; default: a quarter of the window")
    parser.add_argument("--threshold", type=float, default=Rules().threshold)
    parser.add_argument("--json", type=Path, help="write the result here, and a table beside it as .md")
    arguments = parser.parse_args()
    catalog = load_catalog(arguments.data, group_pattern=arguments.group_pattern)
    models = {
        path.parent.name.removeprefix(PREFIX): path for path in arguments.runs.glob(f"{PREFIX}*/model.safetensors")
    }
    people: dict[str, Any] = {}
    for person in sorted(models):
        if arguments.people and person not in arguments.people:
            continue
        clips = [clip for clip in catalog.clips if clip.group == person]
        people[person] = measure(Recognizer.load(models[person]), clips, arguments)
        say(f"{person}: F1 {people[person]['f1']:.3f}, frames {people[person]['frame_accuracy']:.1%}")
    if not people:
        sys.exit(f"{arguments.runs}: no {PREFIX}NAME/model.safetensors of these people")
    totals = {name: sum(row["segments"][name] for row in people.values()) for name in ("right", "found", "true")}
    frames = {name: sum(row["frames"][name] for row in people.values()) for name in ("right", "all")}
    result = {
        "command": command(),
        "versions": versions(),
        **{name: getattr(arguments, name) for name in ("window", "stride", "threshold")},
        "f1": round(f1(**totals), 4),
        "frame_accuracy": round(frames["right"] / frames["all"], 4),
        "people": people,
    }
    publish(result, as_markdown(result), arguments.json)


if __name__ == "__main__":
    main()
