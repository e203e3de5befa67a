"""What came out of a table's rows, as plain cells: the one source of its CSV, Markdown and HTML."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinegru.evaluation.paired import Comparison, compare, holm
from kinegru.evaluation.predictions import Predictions
from kinegru.evaluation.tables import RowScore, score_row
from kinegru.evaluation.unpaired import difference
from kinegru.reproduction.cost import CostBook, ModelCost
from kinegru.reproduction.job import Job, Planned
from kinegru.reproduction.paper_figures import Reported, reported
from kinegru.reproduction.plan import plan_row
from kinegru.reproduction.protocol import Protocol
from kinegru.reproduction.rows import Row, Table, compared_pairs
from kinegru.reproduction.runner import read_predictions
from kinegru.training.settings import TrainSettings

NOT_QUOTED = "not quoted here"


@dataclass(frozen=True)
class RowResult:
    """One row: what the paper prints, what was measured, what it cost."""

    planned: Planned
    reported: Reported
    command: str  # trains and tests the first seed
    imagenet_command: str | None  # the same with timm's weights, where the row had none
    score: RowScore | None = None  # None where nothing is finished
    cost: ModelCost | None = None
    uncounted: str | None = None  # why the cost could not be counted
    seconds: float | None = None  # training and testing all folds of a seed, mean over seeds
    machine: str = ""
    siblings: int | None = None  # of the first seed; None where no groups are known
    failures: Mapping[int, str] = field(default_factory=dict)  # seed -> why it is not there
    missing: Sequence[int] = ()  # seeds that are neither finished nor failed

    @property
    def key(self) -> str:
        return self.planned.row.key

    @property
    def name(self) -> str:
        return self.planned.row.name + (" (control)" if self.planned.row.control else "")


@dataclass(frozen=True)
class PairResult:
    """Two rows on the same clips."""

    first: RowResult
    second: RowResult
    test: Comparison
    seeds: tuple[int, ...]
    corrected: float  # the larger p of the two, by clips and by groups, corrected for all comparisons of the table

    def in_words(self) -> str:
        """One sentence: the counts of every seed, p, and what may be said."""
        counts = "; ".join(f"{test.first_only} : {test.second_only}" for test in self.test.seeds)
        name = "seeds " if len(self.seeds) > 1 else "seed "
        seeds = name + ", ".join(map(str, self.seeds))
        groups = "" if self.test.p_groups is None else f", by {self.test.groups} groups p {_is(self.test.p_groups)}"
        return (
            f"{self.first.name} against {self.second.name}: {100 * self.test.difference:+.1f} points; right alone "
            f"{counts} ({seeds}); p {_is(self.test.p)}{groups}, corrected p {_is(self.corrected)}: {self.verdict()}."
        )

    def more_than_chance(self) -> bool:
        """Whether p is below 0.05 by clips and, where groups are known, by groups, among all comparisons."""
        return self.corrected < 0.05

    def verdict(self) -> str:
        if self.more_than_chance():
            return "more than chance"
        return "more than chance by itself, not among so many" if self.test.honest_p < 0.05 else "no difference shown"


@dataclass(frozen=True)
class TableResult:
    """A table as far as it is finished."""

    table: Table
    protocol: Protocol
    seeds: tuple[int, ...]
    rows: tuple[RowResult, ...]
    pairs: tuple[PairResult, ...]
    not_run: tuple[Planned, ...] = ()  # rows that run only where they are asked for
    data: str = ""  # the data set's name
    kind: str = ""  # folder, csv, ucf101 or hmdb51
    clips: int = 0
    date: str = ""
    copied_by: str | None = None  # the command that made the clips, where they are small copies

    @property
    def failed(self) -> bool:
        return any(row.failures for row in self.rows)

    @property
    def split(self) -> str:
        """The split of the rows, or all of them where rows have their own."""
        return " and ".join(dict.fromkeys(self.protocol.of(row.planned.row).split for row in self.rows))

    @property
    def official(self) -> bool:
        """Whether the folds are the official splits: their mean accuracy is what publications on them give."""
        return self.split == "official"

    def leak_in_points(self) -> str:
        """Of the table that compares splits: how much single clips at random add, with an interval; else nothing."""
        by_split = {row.planned.row.split: row.score for row in self.rows if row.score is not None}
        random, group = by_split.get("random"), by_split.get("group")
        if random is None or group is None or min(len(random.seeds), len(group.seeds)) < 2:
            return ""
        found = difference([seed.top1 for seed in random.seeds], [seed.top1 for seed in group.seeds])
        verdict = "that much is recognised recordings, not actions" if found.low > 0 else "no difference is shown"
        return (
            f"Dealing out single clips at random gives {100 * found.mean:+.1f} points over whole groups (95 % "
            f"{100 * found.low:+.1f} to {100 * found.high:+.1f}, Welch, {found.repeats[0]} and {found.repeats[1]} "
            f"repeats on the same clips): {verdict}."
        )


def gather(
    table: Table,
    planned: Sequence[Planned],
    jobs: Sequence[Job],
    protocol: Protocol,
    failed: Mapping[Path, str],
    book: CostBook,
    seeds: Sequence[int],
) -> tuple[tuple[RowResult, ...], tuple[PairResult, ...]]:
    """Read every finished job's predictions; gives rows in order, and the comparisons between them."""
    rows: list[RowResult] = []
    tables: dict[str, dict[int, Predictions]] = {}
    for one in planned:
        mine = [job for job in jobs if job.planned is one]
        found = {job.seed: predictions for job in mine if (predictions := read_predictions(job)) is not None}
        tables[one.row.key] = found
        contexts = [_context(job.folder) for job in mine if job.seed in found]
        failures = {job.seed: failed[job.folder] for job in mine if job.folder in failed}
        if one.error:
            failures = dict.fromkeys(seeds, one.error)
        settings = one.with_seed(seeds[0])
        out = f"runs/{one.slug}"
        imagenet = None
        if one.imagenet:
            imagenet = protocol.of(one.row).command(with_imagenet(one.row, protocol, seeds[0]), f"{out}-imagenet")
        rows.append(
            RowResult(
                planned=one,
                reported=reported(table.key, one.row.key),
                command=protocol.of(one.row).command(settings, out),
                imagenet_command=imagenet,
                score=score_row(found) if found else None,
                cost=book.of(one),
                uncounted=book.errors.get(one.slug),
                seconds=sum(c["seconds"] for c in contexts) / len(contexts) if contexts else None,
                machine=", ".join(sorted({c["machine"] for c in contexts})),
                siblings=contexts[0]["siblings"] if contexts else None,
                failures=failures,
                missing=[seed for seed in seeds if seed not in found and seed not in failures],
            )
        )
    by_key = {row.key: row for row in rows}
    compared = []
    for first, second in compared_pairs(table, [row.key for row in rows if row.score]):
        both = [seed for seed in tables[first] if seed in tables[second]]
        if both:
            test = compare([tables[first][seed] for seed in both], [tables[second][seed] for seed in both])
            compared.append((by_key[first], by_key[second], test, tuple(both)))
    corrected = holm([test.honest_p for _, _, test, _ in compared])
    return tuple(rows), tuple(PairResult(*pair, p) for pair, p in zip(compared, corrected, strict=True))


def with_imagenet(row: Row, protocol: Protocol, seed: int) -> TrainSettings:
    """A row's settings under the same protocol with timm's weights."""
    settings = dataclasses.replace(protocol.settings, backbone_weights="imagenet")
    return plan_row(row, dataclasses.replace(protocol, settings=settings, weights={})).with_seed(seed)


def in_p(p: float) -> str:
    """A p value for people.

    >>> in_p(0.03125), in_p(1.0), in_p(1e-7)
    ('0.031', '1', '< 0.001')
    """
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}".rstrip("0").rstrip(".") if p < 0.9995 else "1"


def _is(p: float) -> str:
    return in_p(p) if p < 0.001 else f"= {in_p(p)}"


def in_reported(value: float | None) -> str:
    return NOT_QUOTED if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def in_spread(score: RowScore) -> str:
    """Mean, and the spread over seeds and folds, in per cent.

    >>> from kinegru.evaluation.intervals import wilson_interval
    >>> in_spread(RowScore((), 0.933, 0.011, 0.08, 0.932, 9, None, wilson_interval(84, 90)))
    '93.3 ± 1.1 % (folds ± 8.0)'
    """
    spread = "" if score.top1_spread is None else f" ± {100 * score.top1_spread:.1f}"
    folds = "" if score.fold_spread is None else f" (folds ± {100 * score.fold_spread:.1f})"
    return f"{100 * score.top1:.1f}{spread} %{folds}"


def in_fold_mean(score: RowScore) -> str:
    return "–" if score.fold_mean is None else f"{100 * score.fold_mean:.1f} %"


def in_interval(score: RowScore) -> str:
    return f"{100 * score.wilson.low:.1f}–{100 * score.wilson.high:.1f} %"


def _context(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["context"]
