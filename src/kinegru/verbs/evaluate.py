"""`kinegru evaluate MODEL DATA`: a model on labelled clips, with the count of those it was trained on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kinegru.console import progress_bar, say
from kinegru.data.catalog import Catalog, Clip, load_catalog
from kinegru.data.splits import make_split
from kinegru.errors import DataError, UsageError, VideoError
from kinegru.evaluation.context import RunContext
from kinegru.evaluation.metrics import compute_metrics
from kinegru.evaluation.predictions import Predictions
from kinegru.files import atomic_write
from kinegru.recognition.engines import EngineName
from kinegru.recognition.recognizer import Recognizer
from kinegru.runs.fold import siblings_in_words
from kinegru.runs.provenance import seen_in_training, versions
from kinegru.runs.reporting import write_run_report
from kinegru.training.settings import check_seed
from kinegru.video.container import shown


@dataclass(frozen=True)
class Evaluated:
    """What `evaluate` measured; `exit_status` is 1 where clips could not be read."""

    out: Path
    metrics: dict[str, Any]
    trained_on: int | None  # evaluated clips that the model was trained on; None: the model file does not say
    siblings: int | None  # evaluated clips with a sibling in training; None: groups are unknown
    bad_clips: dict[str, str] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """0 only if every clip was evaluated."""
        return 1 if self.bad_clips else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"out": str(self.out), "report": str(self.out / "report.html")}


def evaluate(
    model: str,
    data: str,
    *,
    out: str | None = None,
    split: str | None = None,
    group_pattern: str | None = None,
    lists: str | None = None,
    seed: int | None = None,
    allow_trained_clips: bool = False,
    batch: int = 4,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    engine: EngineName = "auto",
) -> Evaluated:
    """Recognise labelled clips and write predictions, measures with intervals, figures and a report.

    Without a split all clips of DATA are evaluated; the number of them, and of their siblings, that the model was
    trained on is printed and stands in the report. With a split the test clips must be new to the model.

    Args:
        model: Model file, RUN folder, or hub id.
        data: Folder of class folders, CSV with path,label[,group,split], UCF101 or HMDB51 root.
        out: Folder for the results, which replace those of an earlier evaluation; by default `evaluation` beside the
            model file.
        split: Evaluate only the test clips of this split; `model` is the split the model was trained with.
        group_pattern: Regular expression whose first group, found in a clip's path, is its group.
        lists: Folder of the official split lists, where it is not beside the clips.
        seed: Seed of the split; by default the model's.
        allow_trained_clips: With a split, evaluate also where some of its test clips were trained on.
        batch: Clips at a time.
        device: Where to compute.
        engine: torch, or what `kinegru export` wrote; auto takes an export that gives torch's numbers, if there is one.

    Raises:
        UsageError: for options out of range or that contradict each other.
        DataError: where DATA cannot be read, has other classes, or its test clips were trained on.
        ModelFileError: for a model file or an export of it that cannot be used.
    """
    began = time.monotonic()
    if batch < 1:
        raise UsageError(f"--batch must be at least 1, not {batch}")
    if seed is not None:
        check_seed(seed)
    folder = Path(out) if out else _beside(model)
    if (folder / "settings.yaml").exists():
        raise UsageError(f"{folder}: holds a run, whose own test would be lost; name another folder with --out")
    recognizer = Recognizer.load(model, device, engine)
    catalog = load_catalog(data, group_pattern, lists)
    known = recognizer.provenance
    if split == "model":
        split = known.get("split") or None
        if split is None:
            raise UsageError(f"{model}: does not say which split it was trained with; name one with --split")
    clips: Sequence[Clip] = catalog.clips
    if split is not None:
        clips = make_split(catalog, split, known.get("seed", 0) if seed is None else seed).test
    strange = sorted({clip.label for clip in clips} - set(recognizer.labels))
    if strange:
        raise DataError(f"{data}: classes the model does not know: {', '.join(strange[:8])}")
    seen, siblings = seen_in_training(catalog, clips, known.get("trained_on", {}))
    if seen and split is not None and not allow_trained_clips:
        raise DataError(
            f"{model}: {seen} of the {len(clips)} test clips of split {split} were trained on, by name or content (the "
            f"model's own split is {known.get('split', 'not known')}); a test on them says nothing about new clips; "
            "--allow-trained-clips measures it all the same"
        )
    predictions, bad = _recognise(recognizer, catalog, clips, batch)
    if seen:
        say(
            f"warning: {seen} of these {len(clips)} clips were in the training set: "
            "the result says nothing about new clips"
        )
    notes = list(catalog.notes)
    if seen:
        notes.append(f"{seen} of {len(clips)} evaluated clips were in the training set")
    if recognizer.engine.name != "torch":
        notes.append(f"the model was run by engine {recognizer.engine.name}")
    context = RunContext(
        data=str(catalog.describe()["name"]),
        date=time.strftime("%Y-%m-%d %H:%M"),
        notes=tuple(notes),
        split=split or "all clips",
        siblings=siblings,
        train_clips=known.get("clips", {}).get("train"),
        model=recognizer.model.name,
        parameters=sum(p.numel() for p in recognizer.model.parameters()),
        preprocessing=recognizer.preprocessing.to_dict(),
        settings=known.get("settings", {}),
        seconds=time.monotonic() - began,
        seed=known.get("seed"),
        versions=versions(),
        bad_clips=bad,
    )
    predictions.write(folder / "predictions.csv")
    metrics = compute_metrics(predictions).to_dict()
    write_run_report(folder, predictions, context, catalog, None)
    result = Evaluated(folder, metrics, seen, siblings, bad)
    with atomic_write(folder / "metrics.json") as file:
        json.dump(result.to_dict(), file, ensure_ascii=False, indent=1)
    return result


def show(result: Evaluated) -> None:
    """Print the outcome for people."""
    m = result.metrics
    low, high = m["wilson"]["low"], m["wilson"]["high"]
    print(f"top-1 {m['top1']:.1%} ({m['right']} of {m['clips']} clips, 95 % interval {low:.1%} to {high:.1%})")
    print(f"mean class accuracy {m['mean_class_accuracy']:.1%}, calibration error {m['calibration_error']:.1%}")
    unknown = "the model file does not say which clips were"
    seen = unknown if result.trained_on is None else f"{result.trained_on} of these clips were"
    print(f"{seen} in training; {siblings_in_words(result.siblings)}")
    print(f"report: {result.out / 'report.html'}")


def _recognise(
    recognizer: Recognizer, catalog: Catalog, clips: Sequence[Clip], batch: int
) -> tuple[Predictions, dict[str, str]]:
    good, scores, bad = [], [], {}
    with progress_bar("evaluating") as track:
        outcomes = recognizer.predict_many((clip.path for clip in clips), batch)
        for number, (clip, (_, outcome)) in enumerate(zip(clips, outcomes, strict=True), start=1):
            if isinstance(outcome, VideoError):
                bad[catalog.name(clip)] = str(outcome).removeprefix(f"{shown(clip.path)}: ")
                say(f"kinegru evaluate: {outcome}")
            else:
                good.append(clip)
                scores.append(outcome.scores)
            track(number, len(clips))
    if not good:
        raise DataError(f"{catalog.root}: none of the {len(clips)} clips could be read: see `kinegru check`")
    table = Predictions(
        classes=list(recognizer.labels),
        clips=[catalog.name(clip) for clip in good],
        labels=[clip.label for clip in good],
        groups=[clip.group for clip in good],
        scores=scores,  # type: ignore[arg-type]
    )
    return table, bad


def _beside(model: str) -> Path:
    path = Path(model)
    if path.is_dir():
        return path / "evaluation"
    return path.parent / "evaluation" if path.is_file() else Path("evaluation")
