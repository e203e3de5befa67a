"""One training run over one split: clips -> features -> training -> test -> files of the RUN folder.

`metrics.json` is written last: a folder that holds it is a finished run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from kinegru.console import duration, progress_bar, say
from kinegru.data.catalog import Catalog, Clip
from kinegru.data.dataset import ClipDataset, plain_views
from kinegru.data.feature_cache import CachedDataset
from kinegru.data.flow_cache import FlowCache
from kinegru.data.splits import Split, digest_of_splits, hold_out, known_siblings
from kinegru.data.statistics import clip_statistics
from kinegru.errors import DataError
from kinegru.evaluation.context import RunContext
from kinegru.evaluation.metrics import compute_metrics
from kinegru.evaluation.predictions import Predictions
from kinegru.files import atomic_write
from kinegru.models.modelfile import save_model
from kinegru.models.zoo import create_model
from kinegru.runs.provenance import portable, provenance, versions
from kinegru.runs.reporting import write_run_report
from kinegru.training.calibration import Calibration, fit_temperature
from kinegru.training.features import default_cache_folder, fill_cache
from kinegru.training.inference import FromStart, Scores, score_clips
from kinegru.training.loop import FitResult, Interrupted, fit, require_few_bad
from kinegru.training.processes import describe_machine, make_accelerator
from kinegru.training.settings import TrainSettings
from kinegru.video.container import shown
from kinegru.video.flow import FlowReader, read_flow

SHOWN_APART = ("model", "options", "backbone_weights", "profile", "frames", "size", "fit", "epochs", "seed", "device")


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    run: Path
    split: str
    siblings: int | None  # test clips with a sibling in training; None where groups are not known
    metrics: dict[str, Any]
    bad_clips: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `metrics.json` holds the same."""
        return {
            "run": str(self.run),
            "split": self.split,
            "siblings": self.siblings,
            "metrics": self.metrics,
            "bad_clips": self.bad_clips,
        }


def finished_run(folder: Path) -> RunResult | None:
    """The result of a run that came to its end, None where it did not."""
    if not (folder / "metrics.json").exists():
        return None
    kept = stored(folder)
    return RunResult(folder, kept["split"], kept["siblings"], kept["metrics"], kept["bad_clips"])


def train_split(
    catalog: Catalog, split: Split, settings: TrainSettings, run: Path, command: str, resume: bool = False,
    report: bool = True,
) -> RunResult:  # fmt: skip
    """Train on `split.train`, choose on validation clips, test once on `split.test`, write everything to `run`.

    Without `report` no page and no figures are drawn.
    """
    began = time.monotonic()
    accelerator = make_accelerator(settings)
    tell = say if accelerator.is_main_process else lambda message: None
    train_clips, validation_clips = _validation(split, settings)
    for note in (*catalog.notes, *split.notes):
        tell(f"note: {note}")
    if settings.patience and not validation_clips:
        tell("note: --patience has nothing to go by: there are no validation clips")
    tell(
        f"{split.name}: {len(train_clips)} clips to train on, {len(validation_clips)} to choose on, "
        f"{len(split.test)} to test on; {siblings_in_words(split.siblings)}"
    )
    torch.manual_seed(settings.seed)
    model = create_model(
        settings.model, len(catalog.labels), backbone_weights=settings.backbone_weights, **settings.options
    )
    model.set_profile(settings.profile)
    preprocessing = settings.preprocessing(model.preprocessing_defaults)
    augmentation = settings.augmentation()
    flow_of: FlowReader = read_flow
    if settings.cache != "off":
        flow_of = FlowCache(_cache_folder(settings) / "flow")
    parts = {
        name: ClipDataset(clips, catalog.labels, preprocessing, augmentation if name == "train" else None, flow_of)
        for name, clips in (("train", train_clips), ("validation", validation_clips), ("test", split.test))
    }
    with _resumable():
        datasets, bad = _cached(model, parts, settings, accelerator, tell)
        fitted = _fit(model, datasets, settings, run, accelerator, bad, resume)
        calibration = _calibrate(model, datasets["validation"], settings, accelerator)
        scores = _test(model, datasets["test"], settings, accelerator)
        require_few_bad(_unreadable(datasets["test"], scores.errors), len(datasets["test"]), settings.max_bad_clips)
    bad = fitted.bad_clips | _unreadable(datasets["test"], scores.errors) | bad
    used = (*train_clips, *validation_clips)
    predictions = _predictions(catalog, datasets["test"].clips, scores, split.name)
    bad_clips = {_short(catalog, path): why.removeprefix(f"{shown(path)}: ") for path, why in bad.items()}
    context = RunContext(
        data=str(catalog.describe()["name"]),
        command=command,
        date=time.strftime("%Y-%m-%d %H:%M"),
        notes=(*catalog.notes, *split.notes),
        split=split.name,
        dealt=digest_of_splits(catalog, [split]),
        siblings=known_siblings(used, datasets["test"].clips),
        train_clips=len(train_clips),
        validation_clips=len(validation_clips),
        train_groups=_groups(train_clips),
        validation_groups=_groups(validation_clips),
        test_groups=_groups(split.test),
        selection=f"best validation {settings.select}" if validation_clips else "last epoch",
        model=settings.model,
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        weights=Path(settings.backbone_weights).name,
        model_options=settings.options,
        preprocessing=preprocessing.to_dict(),
        profile=settings.profile,
        epochs=len(fitted.history),
        best_epoch=fitted.best_epoch,
        seed=settings.seed,
        seconds=time.monotonic() - began,
        settings={name: value for name, value in portable(settings).items() if name not in SHOWN_APART},
        versions=versions(),
        machine=describe_machine(accelerator),
        bad_clips=bad_clips,
    )
    metrics = compute_metrics(predictions, seed=settings.seed).to_dict()
    result = RunResult(run, split.name, context.siblings, metrics, bad_clips)
    if accelerator.is_main_process:
        predictions.write(run / "predictions.csv")
        origin = provenance(catalog, context, settings, used, metrics)
        if calibration is not None:
            origin["calibration"] = calibration.to_dict()
        save_model(
            run / "model.safetensors", model.cpu(), catalog.labels, preprocessing.to_dict(), origin,
            clip_statistics(train_clips),
        )  # fmt: skip
        if report:
            write_run_report(run, predictions, context, catalog, run / "history.csv")
        finish(result, context)
        _say_bad(bad_clips)
        tell(f"trained and tested in {duration(context.seconds or 0)}")
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return result


# -- steps --------------------------------------------------------------------------------------------------------


def _validation(split: Split, settings: TrainSettings) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    if split.validation:
        return split.train, split.validation
    if not settings.validation:
        return split.train, ()
    return hold_out(split.train, settings.validation, settings.seed)


def _cached(
    model: Any, parts: dict[str, ClipDataset], settings: TrainSettings, accelerator: Accelerator, tell: Callable
) -> tuple[dict[str, Any], dict[str, str]]:
    """The data sets behind the feature cache where that is possible, and the clips that cannot be read."""
    fixed_views = settings.views > 0 or not settings.augment
    if settings.cache == "off" or model.cache_stage is None or not fixed_views:
        return dict(parts), {}
    folder = _cache_folder(settings)
    cached: dict[str, CachedDataset] = {}
    bad: dict[str, str] = {}
    for name, dataset in parts.items():
        augmented = name == "train" and settings.augment
        views = list(range(1, settings.views + 1)) if augmented else plain_views(dataset.preprocessing)
        with progress_bar(f"features, {name}", quiet=not accelerator.is_main_process) as track:
            cached[name], errors = fill_cache(
                model, dataset, views, folder, accelerator, precision=settings.cache_precision,
                workers=settings.decoders, say=tell, track=track,
            )  # fmt: skip
        unreadable = _unreadable(dataset, errors)
        require_few_bad(unreadable, len(dataset), settings.max_bad_clips)
        bad |= unreadable
    return dict(cached), bad


def _unreadable(dataset: Any, errors: Mapping[int, str]) -> dict[str, str]:
    return {str(dataset.clips[index].path): why for index, why in errors.items()}


def _cache_folder(settings: TrainSettings) -> Path:
    return default_cache_folder() if settings.cache == "auto" else Path(settings.cache)


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Say how to go on when the work is interrupted."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        done = str(stop) or "interrupted"
        raise Interrupted(f"{done}; the same command with --resume goes on from there") from None


def _fit(
    model: Any, datasets: dict[str, Any], settings: TrainSettings, run: Path, accelerator: Accelerator,
    bad: dict[str, str], resume: bool,
) -> FitResult:  # fmt: skip
    if not len(datasets["train"]):
        raise DataError("no training clip could be read: see `kinegru check`")
    with progress_bar("training", quiet=not accelerator.is_main_process) as track:
        return fit(
            model, datasets["train"], datasets["validation"], settings, run, accelerator,
            resume=resume, bad_clips=bad, track=track,
        )  # fmt: skip


def _calibrate(model: Any, dataset: Any, settings: TrainSettings, accelerator: Accelerator) -> Calibration | None:
    """The temperature of the validation clips, the same in every process; None where there are none."""
    if not len(dataset):
        return None
    scores = _score(model, dataset, settings, accelerator, "calibrating")
    return fit_temperature(scores.probabilities, scores.targets) if len(scores.indices) else None


def _test(model: Any, dataset: Any, settings: TrainSettings, accelerator: Accelerator) -> Scores:
    scores = _score(model, dataset, settings, accelerator, "testing")
    if not len(scores.indices):
        raise DataError("no test clip could be read: see `kinegru check`")
    return scores


def _score(model: Any, dataset: Any, settings: TrainSettings, accelerator: Accelerator, title: str) -> Scores:
    function = FromStart(model, cached=isinstance(dataset, CachedDataset)).to(accelerator.device).eval()
    workers = 0 if isinstance(dataset, CachedDataset) else settings.decoders
    with progress_bar(title, quiet=not accelerator.is_main_process) as track:
        return score_clips(function, dataset, accelerator, settings.micro_batch or 8, workers, track)


def _predictions(catalog: Catalog, clips: Sequence[Clip], scores: Scores, fold: str) -> Predictions:
    tested = [clips[index] for index in scores.indices]
    return Predictions(
        classes=list(catalog.labels),
        clips=[catalog.name(clip) for clip in tested],
        labels=[clip.label for clip in tested],
        groups=[clip.group for clip in tested],
        scores=scores.probabilities,
        folds=[fold] * len(tested),
    )


def stored(run: Path) -> dict[str, Any]:
    """What `finish` wrote of a run. Raises DataError where it is damaged or no run's."""
    file = run / "metrics.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if not {"split", "siblings", "metrics", "bad_clips", "context"} <= kept.keys():
            raise ValueError("it is of no training run")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file}: damaged ({error}); delete it to have the run tested again") from None
    return kept


def finish(result: RunResult, context: RunContext) -> None:
    """Write `metrics.json`: from now on the run is a finished one."""
    with atomic_write(result.run / "metrics.json") as file:
        json.dump({**result.to_dict(), "context": dataclasses.asdict(context)}, file, ensure_ascii=False, indent=1)


def _groups(clips: Sequence[Clip]) -> int | None:
    return len({clip.group for clip in clips if clip.group is not None}) or None


def siblings_in_words(siblings: int | None) -> str:
    """What is known of the leak, for people.

    >>> siblings_in_words(0)
    '0 test clips have a sibling in training'
    """
    if siblings is None:
        return "whether test clips have siblings in training is not known: not every clip's group is given"
    return f"{siblings} test clips have a sibling in training"


def _say_bad(bad: dict[str, str]) -> None:
    if bad:
        say(f"{len(bad)} clips could not be read and were left out:")
        for name, reason in bad.items():
            say(f"  {shown(name)}: {reason}")


def _short(catalog: Catalog, path: str) -> str:
    found = next((clip for clip in catalog.clips if str(clip.path) == path), None)
    return catalog.name(found) if found is not None else path
