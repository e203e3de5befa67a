"""`kinegru train DATA`: folder in, model out; one split, or all splits of a kind in turn with their tests pooled."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from kinegru.console import progress_bar, say
from kinegru.data.catalog import Catalog, load_catalog
from kinegru.data.splits import Split, default_split, digest_of_splits, folder_names, make_splits
from kinegru.errors import DataError, KineGRUError, UsageError
from kinegru.files import atomic_write
from kinegru.runs.fold import RunResult, finished_run, stored, train_split
from kinegru.runs.pool import pool_runs
from kinegru.training.interrupts import Interrupted
from kinegru.training.processes import make_accelerator, on_main_process
from kinegru.training.settings import TrainSettings
from kinegru.training.side_by_side import fold_pool, with_share_of_decoders

TrainFold = Callable[..., RunResult]  # of a split and its `run`
Folds = Sequence[tuple[Split, Path]]  # each with its folder
FREE_TO_CHANGE = {  # do not change what is learnt (whether there is a cache does: its maps are rounded)
    "workers", "checkpoint_minutes", "tensorboard", "cache", "device", "max_bad_clips",
}  # fmt: skip


@dataclass(frozen=True)
class TrainResult:
    """What `train` did: where it is, what it measured on the test clips."""

    run: Path
    metrics: dict[str, Any]
    folds: list[RunResult]
    siblings: int | None  # test clips with a sibling in training; None where no groups are known

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "run": str(self.run),
            "report": str(self.run / "report.html"),
            "siblings": self.siblings,
            "metrics": self.metrics,
            "folds": [fold.to_dict() for fold in self.folds],
        }


def train(
    data: str,
    *,
    out: str | None = None,
    split: str | None = None,
    group_pattern: str | None = None,
    lists: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: bool = True,
    processes: int = 1,
    settings: TrainSettings | None = None,
) -> TrainResult:
    """Train a model on part of the clips of DATA, test it once on the rest, and write model, predictions and report.

    A split without its number (`official`, `folds:5`, `leave-one-group-out`) trains one model a fold and pools the
    tests. Clips of one group never lie on both sides, except with `random`, which the report says.

    Args:
        data: Folder of class folders, CSV with path,label[,group,split], UCF101 or HMDB51 root.
        out: Folder of the run; by default runs/NAME-OF-DATA.
        split: official:1|2|3, group, random, column, leave-one-group-out:NAME, folds:K:I; by default the most honest
            one that the data allows.
        group_pattern: Regular expression whose first group, found in a clip's path, is its group.
        lists: Folder of the official split lists, where it is not beside the clips.
        resume: Continue a run that was stopped.
        overwrite: Start anew in a folder that holds a run.
        report: Draw a report of every fold; the one of all folds together is always drawn.
        processes: Folds trained at the same time, where one does not fill the GPU or the cores.

    Raises:
        UsageError: for options out of range or that contradict each other.
        DataError: where DATA cannot be read or divided as asked for, or the loss is not finite.
        Interrupted: after Ctrl-C or SIGTERM; `resume` goes on.
    """
    settings = settings or TrainSettings()
    run = Path(out) if out else Path("runs") / (Path(data).resolve().stem or "run")
    launched = make_accelerator(settings).num_processes  # joins the other processes, where there are any
    if processes < 1:
        raise UsageError(f"--processes {processes}: give 1 or more")
    if processes > 1 and launched > 1:
        raise UsageError(f"--processes {processes}: not under a launcher, whose {launched} processes share every fold")
    asked = {"split": split, "group_pattern": group_pattern, "lists": lists}
    settings, asked = on_main_process(_held_settings, run, asked, settings, resume, overwrite)
    catalog = load_catalog(data, asked["group_pattern"], asked["lists"])
    split = asked["split"] or default_split(catalog)
    splits = make_splits(catalog, split, settings.seed)
    on_main_process(_open_run, run, {"data": data, **asked}, settings, resume)
    command = _command(data, run, split, asked)
    train_fold = partial(train_split, catalog, settings=settings, command=command, resume=resume, report=report)
    if len(splits) == 1:
        done = on_main_process(_finished, catalog, [(splits[0], run)]) if resume else {}
        if done:
            on_main_process(say, f"{run} holds the finished run: nothing is trained")
        result = done.get(run) or train_fold(splits[0], run=run)
        return TrainResult(run, result.metrics, [result], result.siblings)
    folds = [(one, run / name) for one, name in zip(splits, folder_names(splits), strict=True)]
    finished = on_main_process(_finished, catalog, folds) if resume else {}
    if processes == 1:
        results = _in_turn(train_fold, folds, finished)
    else:
        train_fold = partial(train_fold, settings=with_share_of_decoders(settings, processes))
        results = _side_by_side(train_fold, folds, finished, processes)
    pooled = on_main_process(pool_runs, catalog, results, settings, run, split, command)
    return TrainResult(run, pooled.metrics, results, pooled.siblings)


def _finished(catalog: Catalog, folds: Folds) -> dict[Path, RunResult]:
    """Folds of an earlier start that came to their end. Raises DataError where they were dealt other clips."""
    found: dict[Path, RunResult] = {}
    for split, folder in folds:
        if (result := finished_run(folder)) is None:
            continue
        found[folder] = result
        dealt = stored(folder)["context"].get("dealt")
        if dealt not in (digest_of_splits(catalog, [split]), None):
            raise DataError(
                f"{folder}: was trained and tested on other clips than {split.name} gives now; "
                "another --out starts a new run"
            )
    return found


def _in_turn(train_fold: TrainFold, folds: Folds, finished: Mapping[Path, RunResult]) -> list[RunResult]:
    results: list[RunResult] = []
    for number, (split, folder) in enumerate(folds, start=1):
        if folder not in finished:
            on_main_process(say, f"fold {number} of {len(folds)}: {split.name}")
        results.append(finished.get(folder) or train_fold(split, run=folder))
        on_main_process(_say_right, results[-1])
    return results


def _side_by_side(
    train_fold: TrainFold, folds: Folds, finished: Mapping[Path, RunResult], processes: int
) -> list[RunResult]:
    results = {folder: finished.get(folder) for _, folder in folds}
    with fold_pool(processes) as (pool, stop), progress_bar("folds") as track:
        running = {
            pool.submit(train_fold, split, run=folder): folder for split, folder in folds if results[folder] is None
        }
        while running:
            track(len(folds) - len(running), len(folds))
            done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            if stop.is_set():
                raise Interrupted("stopped; the state is saved, the same command with --resume goes on from there")
            for future in done:
                result = results[running.pop(future)] = _outcome(future)
                _say_right(result)
        track(len(folds), len(folds))
    return [result for result in results.values() if result is not None]


def _outcome(future: Future[RunResult]) -> RunResult:
    try:
        return future.result()
    except BrokenProcessPool:
        raise KineGRUError(
            "a process ended, perhaps for want of memory; the same command with --resume goes on from what is saved, "
            "with fewer --processes if it happens again"
        ) from None


def _say_right(result: RunResult) -> None:
    say(f"  {result.split}: {result.metrics['right']} of {result.metrics['clips']} right")


def _held_settings(
    run: Path, asked: dict[str, str | None], settings: TrainSettings, resume: bool, overwrite: bool
) -> tuple[TrainSettings, dict[str, str | None]]:
    """What holds of settings, split, pattern and lists: as given, or on resume as the run has it, if both agree."""
    file = run / "settings.yaml"
    if file.exists() and resume:
        mine = asked | settings.to_dict()
        theirs = _read_settings(file)
        default = dict.fromkeys(asked) | TrainSettings().to_dict()
        for name, value in mine.items():
            other = value != default[name] and value != theirs.get(name)
            if other and name not in FREE_TO_CHANGE:
                raise UsageError(
                    f"{run}: this run has {name} {theirs.get(name)!r}, not {value!r}; "
                    "--resume continues a run as it was, another --out starts a new one"
                )
        fields = {field.name for field in dataclasses.fields(TrainSettings)}
        changed = {name: mine[name] for name in FREE_TO_CHANGE if mine[name] != default[name]}
        held = TrainSettings(**{name: theirs[name] for name in fields if name in theirs} | changed)
        return held, {name: theirs.get(name) for name in asked}
    if not file.exists() and (taken := [name for name in (*FILES, *FOLDERS) if (run / name).exists()]):
        raise UsageError(f"{run / taken[0]}: is there already, of no run; name a folder without it with --out")
    if _begun(run) and not overwrite:
        raise UsageError(f"{run}: holds a run already; --resume continues it, --overwrite starts anew")
    return settings, asked


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{file}: is no YAML any more ({' '.join(str(error).split())})") from None
    if not isinstance(read, dict):
        raise DataError(f"{file}: damaged, it holds no settings; --overwrite starts anew")
    return read


def _begun(run: Path) -> bool:
    """Whether the folder holds a run: more than settings that led nowhere."""
    file = run / "settings.yaml"
    return file.exists() and any(other != file for other in run.iterdir())


def _open_run(run: Path, about: dict[str, Any], settings: TrainSettings, resume: bool) -> None:
    """Write `settings.yaml`, unless the run goes on; what an earlier run left is removed."""
    file = run / "settings.yaml"
    if file.exists() and resume:
        return
    if _begun(run):
        _remove_run(run)
    with atomic_write(file) as handle:
        yaml.safe_dump({**about, **settings.to_dict()}, handle, sort_keys=False, allow_unicode=True)


FILES = ("metrics.json", "history.csv", "predictions.csv", "report.html", "model.safetensors", "settings.yaml")
FOLDERS = (
    "checkpoint",
    "checkpoint.old",
    "checkpoint.new",
    "figures",
    "tensorboard",
)  # with FILES all that a run writes


def _remove_run(run: Path) -> None:
    """Delete what a run wrote, and nothing else that may lie in the folder, such as another run."""
    for folder in (run, *filter(_is_fold, run.iterdir())):
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)


def _is_fold(folder: Path) -> bool:
    """Whether a run's folder in it is one of its folds; a run of its own has settings."""
    own = (folder / "settings.yaml").exists()
    return not own and ((folder / "history.csv").exists() or (folder / "checkpoint").is_dir())


def _command(data: str, run: Path, split: str, asked: dict[str, str | None]) -> str:
    """Trains and tests once more, beside this run."""
    words = ["kinegru", "train", data, "--split", split]
    for name in ("group_pattern", "lists"):
        if value := asked[name]:
            words += [f"--{name.replace('_', '-')}", value]
    return shlex.join([*words, "--config", f"{run}/settings.yaml", "--out", f"{run}-again"])
