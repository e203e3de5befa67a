"""A table as CSV, for machines and spreadsheets, and as Markdown, for a repository's pages."""

from __future__ import annotations

import csv
import dataclasses
import io
import shlex
from collections.abc import Sequence
from typing import Any

from kinegru.console import duration
from kinegru.reproduction.protocol import settings_words
from kinegru.reproduction.results import (
    NOT_QUOTED,
    PairResult,
    RowResult,
    TableResult,
    in_fold_mean,
    in_interval,
    in_reported,
    in_spread,
)
from kinegru.training.settings import TrainSettings

ROW_COLUMNS = (
    "row", "name", "control", "paper_ucf101", "paper_hmdb51", "seeds", "right", "clips", "top1", "top1_spread",
    "fold_spread", "fold_mean", "folds", "wilson_low", "wilson_high", "top5", "parameters", "trained_parameters",
    "gmac_a_clip", "seconds", "machine", "weights", "profile", "siblings", "before", "p_before", "p_before_groups",
    "notes", "failure", "command",
)  # fmt: skip
PAIR_COLUMNS = (
    "first", "second", "seed", "clips", "first_only", "second_only", "p", "difference", "p_groups", "groups",
    "p_corrected",
)  # fmt: skip


def rows_csv(result: TableResult) -> str:
    """One line a row; several seeds of a cell are joined by a blank."""
    before = {pair.first.key: pair for pair in reversed(result.pairs)}
    return _csv(ROW_COLUMNS, [_row_cells(row, before.get(row.key)) for row in result.rows])


def pairs_csv(result: TableResult) -> str:
    """One line a pair of rows and seed, then one with seed `all` for the seeds joined."""
    lines: list[list[Any]] = []
    for pair in result.pairs:
        ends = [pair.first.key, pair.second.key]
        for seed, test in zip(pair.seeds, pair.test.seeds, strict=True):
            share = (test.first_only - test.second_only) / test.clips
            lines.append([*ends, seed, test.clips, test.first_only, test.second_only, test.p, share, "", "", ""])
        t = pair.test
        groups = ["", ""] if t.p_groups is None else [t.p_groups, t.groups]
        lines.append([*ends, "all", t.clips, "", "", t.p, t.difference, *groups, pair.corrected])
    return _csv(PAIR_COLUMNS, lines)


def _row_cells(row: RowResult, pair: PairResult | None) -> list[Any]:
    s, c = row.score, row.cost
    settings = row.planned.settings
    measured: list[Any] = [""] * 11
    if s is not None:
        measured = [
            _joined(seed.seed for seed in s.seeds), _joined(seed.right for seed in s.seeds),
            _joined(seed.clips for seed in s.seeds), s.top1, _blank(s.top1_spread), _blank(s.fold_spread),
            _blank(s.fold_mean), s.folds, s.wilson.low, s.wilson.high, _blank(s.top5),
        ]  # fmt: skip
    cost: list[Any] = ["", "", ""] if c is None else [c.parameters, c.trained_parameters, c.macs / 1e9]
    compared: list[Any] = ["", "", ""]
    if pair is not None:
        compared = [pair.second.key, pair.test.p, _blank(pair.test.p_groups)]
    return [
        row.key, row.planned.row.name, int(row.planned.row.control), _blank(row.reported.ucf101),
        _blank(row.reported.hmdb51), *measured, *cost, _blank(row.seconds), row.machine,
        weights_in_words(row), settings.profile, _blank(row.siblings), *compared,
        " ".join(notes_of(row)), "; ".join(sorted(set(row.failures.values()))), row.command,
    ]  # fmt: skip


def markdown(result: TableResult, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The table with the paper's figures beside ours, the comparisons, and the command of every row.

    `pictures` are files beside it, each with its caption.
    """
    lines = [f"# {result.table.title}, on {result.data}", ""]
    of_paper = result.table.key.startswith("table")
    claim = f"The paper's claim: {result.table.claim}" if of_paper else result.table.claim or result.leak_in_points()
    lines += [claim, ""] if claim else []
    lines += [*(f"* {sentence}" for sentence in protocol_words(result)), ""]
    header = [
        "row", "paper UCF101, %", "paper HMDB51, %", "right", "top-1", "95 % interval", "top-5",
        "parameters, M (trained)", "GMAC a clip", "time a seed",
    ]  # fmt: skip
    if result.official:
        header.insert(5, "mean of splits")
    lines += [_line(header), _line(["---"] * 3 + ["---:"] * (len(header) - 3))]
    lines += [_line(markdown_cells(row, result.official)) for row in result.rows]
    lines += [
        _line([f"{one.row.name} (not run)", in_reported(None), in_reported(None), *["–"] * (len(header) - 3)])
        for one in result.not_run
    ]
    for file, caption in pictures:
        lines += ["", f"![{caption}]({file})"] + (["", caption] if result.table.key == "figures" else [])
    if result.pairs:
        lines += ["", "## Compared on the same clips", ""]
        lines += [f"* {pair.in_words()}" for pair in result.pairs]
        lines += ["", *comparison_words(result)]
    lines += ["", "## The rows, and how to repeat them", ""]
    lines += [note, ""] if (note := other_seeds_in_words(result)) else []
    for row in result.rows:
        lines += [f"**{row.name}.** {' '.join(notes_of(row))}".rstrip(), ""]
        lines += [f"Failed: {failures_in_words(row)}", ""] if row.failures else []
        lines += [f"    {row.command}", ""]
        if row.imagenet_command:
            lines += ["With timm's ImageNet weights:", "", f"    {row.imagenet_command}", ""]
    for one in result.not_run:
        lines += [f"**{one.row.name}** was not run: {one.row.note} (`--rows {one.row.key}`)", ""]
    return "\n".join(lines).rstrip() + "\n"


def markdown_cells(row: RowResult, official: bool = False) -> list[str]:
    s, c = row.score, row.cost
    cells = [row.name, in_reported(row.reported.ucf101), in_reported(row.reported.hmdb51)]
    if s is None:
        cells += ["failed" if row.failures else "not finished", "–", "–", "–"]
    else:
        top5 = "–" if s.top5 is None else f"{100 * s.top5:.1f} %"
        cells += [s.right_in_words(), in_spread(s), in_interval(s), top5]
    if official:
        cells.insert(5, "–" if s is None else in_fold_mean(s))
    cells += ["–", "–"] if c is None else [millions(row), gmac(row)]
    return [*cells, "–" if row.seconds is None else duration(row.seconds)]


def millions(row: RowResult) -> str:
    assert row.cost is not None
    return f"{row.cost.parameters / 1e6:.2f} ({row.cost.trained_parameters / 1e6:.2f})"


def gmac(row: RowResult) -> str:
    assert row.cost is not None
    return f"{row.cost.macs / 1e9:.1f}" if row.cost.macs >= 1e8 else f"{row.cost.macs / 1e9:.3f}"


def protocol_words(result: TableResult) -> list[str]:
    """Under which protocol the figures hold, in sentences."""
    s = result.protocol.settings
    usual = TrainSettings()
    shared = dataclasses.replace(s, model=usual.model, backbone_weights=usual.backbone_weights)
    size = f"{s.size} pixels" if s.size else "the backbone's own size"
    seeds = ", ".join(map(str, result.seeds))
    many = f"seeds {seeds}" if len(result.seeds) > 1 else f"seed {seeds}"
    sentences = [
        f"{result.clips} clips of {result.data}, split `{result.split}`, {many}. The seed also deals the "
        "splits that are drawn (folds, group, random) and the validation part.",
        f"{s.frames} frames at {size}, profile {s.profile} unless a row says otherwise, {s.epochs} epochs, batch "
        f"{s.batch}, rate {s.learning_rate:g} ({s.schedule}), {s.views} views. In options: "
        f"`{shlex.join(settings_words(shared)) or 'none'}`.",
    ]
    if result.copied_by:
        sentences.insert(1, f"The clips are small copies, made by `{result.copied_by}`.")
    if result.official:
        sentences.append(
            "The mean of splits is the figure customary for this data; top-1 counts the clips of all splits' tests."
        )
    siblings = {row.siblings for row in result.rows if row.score}
    if siblings == {0}:
        sentences.append("No test clip has a sibling (a clip of its group) in training.")
    elif siblings == {None}:
        sentences.append("No groups are known: whether test clips have siblings in training cannot be said.")
    elif leak := leak_in_words(result):
        sentences.append(leak)
    if result.kind not in ("ucf101", "hmdb51") and any(row.reported.ucf101 for row in result.rows):
        sentences.append(
            "The paper's figures are of UCF101 and HMDB51 under a random 3:1 split by clip, ours of "
            f"{result.data}: they stand side by side and cannot be subtracted."
        )
    if any(row.reported.ucf101 is None for row in result.rows):
        sentences.append(
            f'"{NOT_QUOTED}": the paper\'s tables are not at hand, only its abstract '
            "(`src/kinegru/reproduction/paper_figures.py` takes the rest)."
        )
    return sentences


def leak_in_words(result: TableResult) -> str:
    """How many test clips have a sibling in training; nothing where none has, or groups are not known."""
    most = max((row.siblings or 0 for row in result.rows if row.score), default=0)
    return (
        f"**Leak: {most} test clips have a sibling in training.** Figures are too good for new sources." if most else ""
    )


def comparison_words(result: TableResult) -> list[str]:
    """How the tests were made."""
    several = len(result.seeds) > 1
    tests = "p is McNemar's exact test. "
    if several:
        tests = (
            "Each seed is McNemar's exact test; p joins the seeds clip by clip (signs flipped), so that a clip tested "
            "with several seeds is one clip. "
        )
    many = "one comparison" if len(result.pairs) == 1 else f"{len(result.pairs)} comparisons"
    return [
        f"Right alone: clips that only the one, or only the other, recognised. {tests}By groups: whole persons or "
        f"sources are flipped, because their clips fail together. Corrected: the larger of the two, for {many} (Holm)."
    ]


def notes_of(row: RowResult) -> list[str]:
    """What must be said beside a row."""
    missing = [f"Seed {', '.join(map(str, row.missing))} not finished."] if row.missing else []
    source = [f"Paper: {row.reported.source}."] if row.reported.source else []
    return [note for note in (row.planned.row.note, *row.planned.notes, *source, *missing) if note]


def other_seeds_in_words(result: TableResult) -> str:
    """How to repeat the seeds after the first, which the commands are for; nothing where there is one."""
    others = " and ".join(f"--seed {seed}" for seed in result.seeds[1:])
    return f"The other seeds: the same with {others}." if others else ""


def weights_in_words(row: RowResult) -> str:
    weights = row.planned.settings.backbone_weights
    return weights if weights in ("none", "imagenet") else weights.replace("\\", "/").rsplit("/", 1)[-1]


def failures_in_words(row: RowResult) -> str:
    """Which seeds failed, and why."""
    by_reason: dict[str, list[int]] = {}
    for seed, reason in row.failures.items():
        by_reason.setdefault(reason, []).append(seed)
    return "; ".join(f"seed {', '.join(map(str, seeds))}: {reason}" for reason, seeds in by_reason.items())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _csv(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return buffer.getvalue()


def _joined(values: Any) -> str:
    return " ".join(map(str, values))


def _blank(value: Any) -> Any:
    return "" if value is None else value
