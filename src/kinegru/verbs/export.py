"""`kinegru export MODEL --format onnx`: the model for other runtimes, checked against torch before it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kinegru.console import progress_bar, say
from kinegru.data.catalog import Catalog, Clip, load_catalog
from kinegru.data.splits import hold_out, make_split
from kinegru.errors import DataError, KineGRUError, UsageError, VideoError
from kinegru.models.modelfile import resolve
from kinegru.recognition.engines import Engine, TorchEngine
from kinegru.recognition.export import INT8, Format, export_model, require_form, require_packages
from kinegru.recognition.exported import ENDINGS, MANIFEST, export_folder
from kinegru.recognition.recognizer import Recognizer
from kinegru.video.container import shown
from kinegru.video.loading import load_clip, load_windows
from kinegru.video.synthetic import example_clip

FRAMES_OF_A_CLIP = 4  # neighbours, from its middle, to check and to calibrate with
HELD_OUT = 0.2  # of the clips, to measure what eight bits cost


@dataclass(frozen=True)
class Cost:
    """What eight bits cost: the same clips recognised by torch and by the export."""

    clips: int
    same: int  # clips with the same label
    right_torch: int
    right_export: int

    def __str__(self) -> str:
        before, after = self.right_torch / self.clips, self.right_export / self.clips
        return (
            f"{self.same} of {self.clips} clips have the same label; accuracy {before:.1%} -> {after:.1%} "
            f"({self.right_torch} -> {self.right_export} right)"
        )


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    folder: Path
    format: str
    graphs: list[str]
    megabytes: float
    differences: dict[str, float]  # from torch, over torch's greatest value
    cost: Cost | None = None  # of int8

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"folder": str(self.folder)}


def export(
    model: str,
    *,
    format: Format = "onnx",
    data: str | None = None,
    out: str | None = None,
    split: str | None = None,
    group_pattern: str | None = None,
    lists: str | None = None,
    calibration_clips: int = 32,
    measured_clips: int = 100,
    least_same: float = 0.9,
) -> Exported:
    """Write a model for another runtime, beside the model file, where `--engine` finds it.

    The written graphs are run and compared with torch on real frames; what differs is not written. The model file stays
    the truth: an export is bound to it, and holds labels and preprocessing for other programs. An int8 export is
    calibrated on clips of DATA; other clips of DATA, whole groups of them, say what it costs.

    Args:
        model: Model file, RUN folder, or hub id.
        format: onnx or openvino; the same with -int8, in eight bits; or torch-export, for torch.export.load.
        data: Clips in any form that `train` takes, to check with; int8 needs them.
        out: Folder to write; by default the model file's name with the format as its ending.
        split: For int8, use only training clips of this split; `model` is the split the model was trained with.
        group_pattern: Regular expression whose first group, found in a clip's path, is its group.
        lists: Folder of the official split lists, where it is not beside the clips.
        calibration_clips: How many clips int8 is calibrated on.
        measured_clips: At most so many other clips are recognised by torch and by int8, to say what it costs.
        least_same: Share of these that must get the same label for an int8 export to be written.

    Raises:
        UsageError: for options out of range or that contradict each other.
        DataError: where DATA cannot be read or divided as asked for.
        ModelFileError: for a model file or an export of it that cannot be used.
        KineGRUError: where the export differs from the model; nothing is written then.
    """
    if calibration_clips < 1 or measured_clips < 1 or not 0 <= least_same <= 1:
        raise UsageError("--calibration-clips and --measured-clips must be at least 1, --least-same from 0 to 1")
    if split is not None and data is None:
        raise UsageError("--split is of the clips that --data names: give both")
    if format in INT8 and data is None:
        raise UsageError("an int8 export is calibrated on clips: give them with --data")
    require_packages(format)
    path = resolve(model)
    recognizer = Recognizer.load(path, "cpu", "torch")
    require_form(recognizer, path, format)
    folder = Path(out) if out else export_folder(path, format)
    _check_folder(folder)
    check: Callable[[Engine], dict[str, Any]] | None = None
    costs: list[Cost] = []
    if data is None:
        clips = [_middle(example_clip(), recognizer)]
    else:
        catalog = load_catalog(data, group_pattern, lists)
        _known(catalog, recognizer)
        fit, held = _divide(catalog, recognizer, split)
        clips = _readable(spread(fit, calibration_clips if format in INT8 else 2), recognizer)
        if format in INT8:
            check = _costing(recognizer, spread(held, measured_clips), folder, least_same, costs)
    with progress_bar(f"exporting as {format}") as track:
        manifest = export_model(recognizer, path, format, folder, clips, check, track)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    differences = manifest["differences"]
    return Exported(folder, format, list(manifest["graphs"]), round(size, 1), differences, *costs)


def _check_folder(folder: Path) -> None:
    """Raise UsageError for a folder that holds more than an export: an export takes the place of all that is there."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    written = {name for name in names if Path(name).suffix in (*ENDINGS.values(), ".bin")} | {MANIFEST}
    if folder.resolve() == Path.cwd():
        raise UsageError(f"{folder}: is the working folder, whose place an export cannot take; name another with --out")
    if not folder.is_dir() or (names and not (MANIFEST in names and names <= written)):
        raise UsageError(f"{folder}: is there and no export; name a folder that is new or empty with --out")


def show(result: Exported) -> None:
    """Print the outcome for people."""
    print(f"written: {result.folder} ({', '.join(result.graphs)}; {result.megabytes} MB)")
    worst = ", ".join(f"{part} {value:.1e}" for part, value in result.differences.items())
    print(f"greatest difference from torch, over the greatest value: {worst}")
    if result.cost is not None:
        print(f"against torch: {result.cost}")


def measure_cost(recognizer: Recognizer, engine: Engine, clips: Sequence[Clip]) -> Cost:
    """Labelled clips recognised by torch and by `engine`. Raises DataError where none can be read."""
    plain = TorchEngine(recognizer.model, recognizer.device)
    same = right_torch = right_export = count = 0
    with progress_bar("comparing labels") as track:
        for number, clip in enumerate(clips, start=1):
            try:
                windows = load_windows(clip.path, recognizer.preprocessing)
            except VideoError as error:
                say(f"kinegru export: {error}")
                continue
            with torch.inference_mode():
                found = [one.clip(windows).softmax(dim=1).mean(dim=0) for one in (plain, engine)]
            before, after = (recognizer.labels[int(scores.argmax())] for scores in found)
            count += 1
            same += before == after
            right_torch += before == clip.label
            right_export += after == clip.label
            track(number, len(clips))
    if not count:
        raise DataError(f"none of the {len(clips)} clips to compare labels on could be read: see `kinegru check`")
    return Cost(count, same, right_torch, right_export)


# -- steps --------------------------------------------------------------------------------------------------------


def _costing(
    recognizer: Recognizer, clips: Sequence[Clip], folder: Path, least_same: float, costs: list[Cost]
) -> Callable[[Engine], dict[str, Any]]:
    def check(engine: Engine) -> dict[str, Any]:
        cost = measure_cost(recognizer, engine, clips)
        if cost.same < least_same * cost.clips:
            raise KineGRUError(
                f"{folder}: not written, {cost}; --calibration-clips takes more clips, --least-same {least_same:g} "
                "is what is asked for"
            )
        costs.append(cost)
        return {"cost": asdict(cost)}

    return check


def _divide(catalog: Catalog, recognizer: Recognizer, split: str | None) -> tuple[Sequence[Clip], Sequence[Clip]]:
    """Clips to calibrate on, and others to measure on; where there is one group only, the same."""
    known = recognizer.provenance
    seed = known.get("seed", 0)
    if split == "model":
        split = known.get("split") or None
        if split is None:
            raise UsageError("the model file does not say which split it was trained with; name one with --split")
    fraction = known.get("settings", {}).get("validation") or HELD_OUT
    clips: Sequence[Clip] = catalog.clips
    if split is not None:
        made = make_split(catalog, split, seed)
        if made.validation:
            return made.train, made.validation
        clips = made.train
    fit, held = hold_out(clips, fraction, seed)
    if not held:
        say("note: all clips are of one group: what the export costs is measured on those it is calibrated on")
    return fit, held or fit


def _known(catalog: Catalog, recognizer: Recognizer) -> None:
    strange = sorted(set(catalog.labels) - set(recognizer.labels))
    if strange:
        raise DataError(f"{catalog.root}: classes the model does not know: {', '.join(strange[:8])}")


def spread(clips: Sequence[Clip], most: int) -> list[Clip]:
    """At most so many, in turns from every class, spread over each."""
    by_class: dict[str, list[Clip]] = {}
    for clip in clips:
        by_class.setdefault(clip.label, []).append(clip)
    each = -(-most // len(by_class))
    chosen = [row[:: max(1, len(row) // each)][:each] for row in by_class.values()]
    turns = [row[turn] for turn in range(each) for row in chosen if turn < len(row)]
    return turns[:most]


def _middle(path: Any, recognizer: Recognizer) -> torch.Tensor:
    """Neighbouring frames of a clip, as the model sees them: (T, C, S, S)."""
    frames = load_clip(path, recognizer.preprocessing)
    if recognizer.engine.radius is None:
        return frames
    start = max(0, (len(frames) - FRAMES_OF_A_CLIP) // 2)
    return frames[start : start + FRAMES_OF_A_CLIP].clone()


def _readable(clips: Sequence[Clip], recognizer: Recognizer) -> list[torch.Tensor]:
    found = []
    with progress_bar("reading clips") as track:
        for number, clip in enumerate(clips, start=1):
            try:
                found.append(_middle(clip.path, recognizer))
            except VideoError as error:
                say(f"kinegru export: {error}")
            track(number, len(clips))
    if not found:
        raise DataError(f"{shown(clips[0].path)}: neither this nor any other clip to check with could be read")
    return found
