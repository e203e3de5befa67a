"""`kinegru reproduce table1 DATA`: a table of the paper, every row under one protocol, beside the paper's figures."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kinegru.console import duration, progress_bar, say
from kinegru.data.catalog import load_catalog
from kinegru.data.splits import default_split
from kinegru.errors import UsageError
from kinegru.models.zoo import model_options
from kinegru.reproduction.cost import CostBook, Estimate, Machine, estimate, measure_machine
from kinegru.reproduction.files import write_table
from kinegru.reproduction.job import Job
from kinegru.reproduction.parallel import run_side_by_side
from kinegru.reproduction.plan import check_weights, plan_jobs, plan_row
from kinegru.reproduction.protocol import Protocol, Scratch, protocol_options, row_model
from kinegru.reproduction.results import TableResult, gather
from kinegru.reproduction.rows import CHOICES, TABLES, Table, choices_table, chosen_rows, figures_table, leak_table
from kinegru.reproduction.runner import Failed, run_jobs
from kinegru.training.processes import make_accelerator
from kinegru.training.settings import TrainSettings, check_seed

What = Literal["table1", "table2", "table3", "table4", "figures", "choices", "leak"]


@dataclass(frozen=True)
class Reproduced:
    """What `reproduce` did or, with `--dry-run`, would do; `exit_status` is 1 where a row failed."""

    out: Path  # folder of the table
    files: tuple[Path, ...]
    table: TableResult
    jobs: tuple[Job, ...]
    left: Estimate | None = None  # only with --dry-run
    machine: Machine | None = None
    failed: dict[str, str] = field(default_factory=dict)  # row and seed -> reason

    @property
    def exit_status(self) -> int:
        """0 only if every row was run, or could be."""
        return 1 if self.failed else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        jobs = [
            {
                "row": job.planned.row.key, "seed": job.seed, "state": job.state(), "folds": len(job.folds),
                "finished_folds": len(job.finished_folds()), "test_clips": sum(len(fold.test) for fold in job.folds),
                "folder": str(job.folder),
            }
            for job in self.jobs
        ]  # fmt: skip
        left = None
        if self.left is not None:
            left = {
                "seconds": self.left.seconds, "measured": self.left.measured, "cache_bytes": self.left.cache_bytes,
                "file_bytes": self.left.file_bytes,
            }  # fmt: skip
        rows = [
            {"row": row.key, "score": None if row.score is None else row.score.to_dict(), "command": row.command}
            for row in self.table.rows
        ]
        return {
            "out": str(self.out), "files": [str(file) for file in self.files], "jobs": jobs, "estimate": left,
            "rows": rows, "comparisons": [
                {"first": pair.first.key, "second": pair.second.key, **pair.test.to_dict()} for pair in self.table.pairs
            ], "failed": self.failed,
        }  # fmt: skip


def reproduce(
    what: What,
    data: str,
    *,
    seeds: list[int] = [0, 1, 2],  # noqa: B006  (never changed; the command line's default)
    split: str | None = None,
    rows: list[str] | None = None,
    out: str | None = None,
    group_pattern: str | None = None,
    lists: str | None = None,
    weights: dict[str, str] | None = None,
    scratch: Scratch = "trained",
    keep_models: bool = False,
    processes: int = 1,
    dry_run: bool = False,
    settings: TrainSettings | None = None,
) -> Reproduced:
    """Run every row of one of the paper's tables under one protocol, and write the table beside the paper's figures.

    The settings (or a recipe, --config) are the protocol; a row changes the model and its options. What is finished is
    never run again unless its settings, split or clips changed; after a stop the same command goes on.

    Args:
        what: The table; `figures` are the paper's 9 to 11; `choices` switches the model's defaults one at a time;
            `leak` compares a split by clip with one by group.
        data: Folder of class folders, CSV with path,label[,group,split], UCF101 or HMDB51 root.
        seeds: Each row is run with each of them.
        split: As for `kinegru train`; without its number (folds:5, leave-one-group-out, official) all folds are run.
        rows: Only these rows of the table.
        out: Folder of the runs and tables; by default runs/reproduce/NAME-OF-DATA.
        group_pattern: Regular expression whose first group, found in a clip's path, is its group.
        lists: Folder of the official split lists, where it is not beside the clips.
        weights: Weights of a backbone, e.g. --weights.legacy_xception FILE; `imagenet` and `none` as well. As soon as a
            file is given, a backbone without one starts from scratch.
        scratch: A backbone without weights is `trained` whole (profile full), or stays `frozen` at random.
        keep_models: Keep the model file of every fold.
        processes: Folds trained at the same time, where one does not fill the GPU or the cores.
        dry_run: Say what would be run, with estimated time and disk, and run nothing.

    Raises:
        UsageError: for options out of range or that contradict each other.
        DataError: where DATA cannot be read or divided as asked for.
        Interrupted: after Ctrl-C or SIGTERM; the same call goes on.
    """
    settings = settings or TrainSettings()
    _check(settings, seeds, processes)
    if what == "leak" and split is not None:
        raise UsageError(
            f"--split {split}: leak has its own, one by clip and one by group; "
            "leave it out, or give --split null where a recipe names one"
        )
    catalog = load_catalog(data, group_pattern, lists)
    folder = Path(out) if out else Path("runs") / "reproduce" / (Path(data).resolve().stem or "data")
    protocol = Protocol(
        data, split or default_split(catalog), folder, settings, group_pattern, lists, weights or {}, scratch
    )
    if make_accelerator(settings).num_processes > 1:
        raise UsageError("reproduce runs one process; `accelerate launch ... kinegru train` trains one row with many")
    table = _table(what, protocol)
    asked = chosen_rows(table, rows)
    planned = [plan_row(row, protocol) for row in asked]
    check_weights(protocol, planned)
    jobs = plan_jobs(planned, seeds, protocol, catalog)
    book = CostBook(folder / "costs.json", len(catalog.labels), keep=not dry_run)

    @functools.lru_cache(maxsize=1)
    def machine() -> Machine:
        return measure_machine(catalog, settings.frames, settings.device)

    def left() -> Estimate:
        return estimate(jobs, book, machine, catalog, keep_models)

    not_run = [plan_row(row, protocol) for row in table.rows if row.on_request and row not in asked and not rows]

    def result_now(failed: Failed) -> TableResult:
        found, pairs = gather(table, planned, jobs, protocol, failed, book, seeds)
        return TableResult(
            table, protocol, tuple(seeds), found, pairs, tuple(not_run), str(catalog.describe()["name"]), catalog.kind,
            len(catalog.clips), time.strftime("%Y-%m-%d"), catalog.copied_by,
        )  # fmt: skip

    def write(failed: Failed) -> tuple[Path, ...]:
        return write_table(result_now(failed), jobs, folder / table.key)

    failed: Failed = {}
    files: tuple[Path, ...] = ()
    before = left()
    if not dry_run:
        say(f"{table.title}: {_to_do(jobs)}, about {duration(before.seconds)} ({_basis(before)})")
        with progress_bar(table.key) as track:
            common = (jobs, protocol, catalog, track, lambda: left().by_job, write)
            if processes == 1:
                failed = run_jobs(*common, keep_models)
            else:
                failed = run_side_by_side(*common, processes, keep_models)
        files = write(failed)
    result = result_now(failed)
    reasons = {f"{row.name}, seed {seed}": reason for row in result.rows for seed, reason in row.failures.items()}
    if dry_run:
        return Reproduced(folder / table.key, (), result, tuple(jobs), before, machine(), reasons)
    return Reproduced(folder / table.key, files, result, tuple(jobs), None, None, reasons)


def show(result: Reproduced) -> None:
    """Print the plan, or the table, for people."""
    if result.left is not None:
        _show_plan(result)
        return
    for row in result.table.rows:
        if row.score is not None:
            low, high = row.score.wilson.low, row.score.wilson.high
            print(f"{row.name}: {row.score.right_in_words()} ({row.score.top1:.1%}, 95 % {low:.1%} to {high:.1%})")
    for pair in result.table.pairs:
        print(f"  {pair.in_words()}")
    if leak := result.table.leak_in_points():
        print(f"  {leak}")
    for name, reason in result.failed.items():
        print(f"failed: {name}: {reason}")
    for file in result.files:
        print(file)


def _show_plan(result: Reproduced) -> None:
    left, seeds = result.left, result.table.seeds
    assert left is not None and result.machine is not None
    t = result.table
    print(f"{t.table.title}: {t.clips} clips of {t.data}, split {t.split}, seeds {', '.join(map(str, seeds))}")
    for row in t.rows:
        mine = [job for job in result.jobs if job.planned is row.planned]
        cost = "" if row.cost is None else (
            f"{row.cost.parameters / 1e6:.2f} M parameters ({row.cost.trained_parameters / 1e6:.2f} trained), "
            f"{row.cost.macs / 1e9:.1f} GMAC a clip, "
        )  # fmt: skip
        seconds = sum(left.by_job.get(job.folder, 0.0) for job in mine)
        folds = sum(len(job.folds) for job in mine)
        done = sum(len(job.finished_folds()) for job in mine if job.state() != "changed")
        tested = sum(len(fold.test) for job in mine for fold in job.folds)
        print(
            f"{row.key}: {row.name}: {cost}{done} of {folds} folds finished, {tested} tests, "
            f"about {duration(seconds)} left"
        )
        for job in mine:
            if job.state() == "changed":
                print(f"  seed {job.seed} would be run again: {'; '.join(job.changes())}")
        for note in row.planned.notes:
            print(f"  {note}")
        reasons = {*row.failures.values(), *([row.uncounted] if row.uncounted else [])}
        for reason in sorted(reasons):
            print(f"  cannot be run: {reason}")
    for one in t.not_run:
        print(f"{one.row.key}: {one.row.name}: only with --rows {one.row.key}")
    speed = result.machine.macs_a_second / 1e9
    print(f"estimated time: {duration(left.seconds)} ({_basis(left)}; this machine now: {speed:.0f} GMAC a second)")
    print(
        f"estimated disk: {left.cache_bytes / 1e9:.2f} GB of cached features where they are not there yet, "
        f"{left.file_bytes / 1e9:.2f} GB of runs"
    )
    print("nothing was run")


def _basis(left: Estimate) -> str:
    if left.measured:
        return "from finished folds"
    return "a rough estimate: counted multiplications, half a second of measuring"


def _to_do(jobs: list[Job]) -> str:
    states = [job.state() for job in jobs]
    folds = sum(len(job.folds) for job in jobs)
    rows = len({job.planned.slug for job in jobs})
    return f"{rows} rows, {len(jobs)} runs of {folds} folds in all, {states.count('finished')} runs finished"


def _check(settings: TrainSettings, seeds: list[int], processes: int) -> None:
    if processes < 1:
        raise UsageError(f"--processes {processes}: give 1 or more")
    if settings.seed != 0:
        raise UsageError("--seed: reproduce takes --seeds, such as --seeds 0 1 2")
    for seed in seeds:
        check_seed(seed)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {' '.join(map(str, seeds))}: give different whole numbers")


def _table(what: str, protocol: Protocol) -> Table:
    if what in TABLES:
        return TABLES[what]
    model = row_model(protocol)  # the paper's, unless the recipe names another
    if what == "figures":
        return figures_table(model)
    if what == "leak":
        return leak_table(model)
    options = model_options(model, **protocol_options(protocol))
    baseline = {name: getattr(options, name) for name in CHOICES}
    if baseline["excitation_place"] == "auto":
        baseline["excitation_place"] = "branch" if "xception" in options.backbone else "block"
    return choices_table(model, baseline)
