"""The page of a table: one self-contained HTML file in the look of the evaluation report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kinegru import __version__
from kinegru.console import duration
from kinegru.evaluation.page import page_part, render
from kinegru.reproduction.results import (
    PairResult,
    RowResult,
    TableResult,
    in_fold_mean,
    in_interval,
    in_p,
    in_reported,
)
from kinegru.reproduction.sheets import (
    comparison_words,
    failures_in_words,
    gmac,
    leak_in_words,
    notes_of,
    other_seeds_in_words,
    protocol_words,
    weights_in_words,
)


@dataclass(frozen=True)
class PageFigure:
    """A drawing on the page."""

    anchor: str
    heading: str
    svg: str  # our own, from `inline_svg`
    caption: str = ""


def page(result: TableResult, figures: Sequence[PageFigure] = ()) -> str:
    """The HTML text."""
    of_paper = result.table.key.startswith("table")
    claim = f"The paper's claim: {result.table.claim}" if of_paper else result.table.claim or result.leak_in_points()
    machines = sorted({row.machine for row in result.rows if row.machine})
    return render(
        "table.html.jinja",
        table_css=Markup(page_part("table.css").strip()),
        title=result.table.title,
        data=result.data,
        subtitle=[
            f"{result.clips} clips of {result.data}",
            f"split {result.split}",
            _seeds(result),
            result.date,
        ],
        leak=leak_in_words(result).replace("*", ""),
        claim=claim,
        protocol=[sentence.replace("`", "").replace("*", "") for sentence in protocol_words(result)],
        figures=[
            {"anchor": f.anchor, "heading": f.heading, "svg": Markup(f.svg), "caption": f.caption} for f in figures
        ],
        accuracy_caption=f"In per cent. {_spread_in_words(result)}Wilson's interval for the clips of one seed.",
        official=result.official,
        top5=any(row.score and row.score.top5 is not None for row in result.rows),
        rows=[_row(row, result) for row in result.rows],
        pairs=[_pair(pair) for pair in result.pairs],
        comparison_words=comparison_words(result),
        cost_caption=f"A clip is {result.protocol.settings.frames} frames; time is of training and testing all folds",
        not_run=[{"name": one.row.name, "key": one.row.key, "note": one.row.note} for one in result.not_run],
        version=__version__,
        date=result.date,
        machine=", ".join(machines),
    )


def _row(row: RowResult, result: TableResult) -> dict[str, Any]:
    s, c = row.score, row.cost
    score = None
    if s is not None:
        spread = "" if s.top1_spread is None else f"± {100 * s.top1_spread:.1f}"
        spread += "" if s.fold_spread is None else f" (± {100 * s.fold_spread:.1f})"
        score = {
            "top1": f"{100 * s.top1:.1f}", "top1_value": s.top1, "spread": spread.strip(), "low": s.wilson.low,
            "fold_mean": in_fold_mean(s).removesuffix(" %"), "fold_mean_value": s.fold_mean or 0,
            "interval": in_interval(s).removesuffix(" %"), "right": s.right_in_words(),
            "right_value": s.seeds[0].right, "top5": "–" if s.top5 is None else f"{100 * s.top5:.1f}",
            "top5_value": s.top5 or 0,
        }  # fmt: skip
    return {
        "name": row.planned.row.name,
        "control": row.planned.row.control,
        "ucf101": in_reported(row.reported.ucf101),
        "ucf101_value": row.reported.ucf101 or 0,
        "hmdb51": in_reported(row.reported.hmdb51),
        "hmdb51_value": row.reported.hmdb51 or 0,
        "score": score,
        "state": "failed" if row.failures else "not finished",
        "failed": failures_in_words(row),
        "parameters": "–" if c is None else f"{c.parameters / 1e6:.2f}",
        "trained": "–" if c is None else f"{c.trained_parameters / 1e6:.2f}",
        "gmac": "–" if c is None else gmac(row),
        "seconds": "–" if row.seconds is None else duration(row.seconds),
        "seconds_value": row.seconds or 0,
        "profile": row.planned.settings.profile,
        "weights": weights if (weights := weights_in_words(row)) in ("none", "imagenet") else "file",
        "notes": notes_of(row),
        "command": row.command,
        "imagenet_command": row.imagenet_command,
        "seeds_note": other_seeds_in_words(result),
    }


def _pair(pair: PairResult) -> dict[str, Any]:
    test = pair.test
    return {
        "first": pair.first.planned.row.name,
        "second": pair.second.planned.row.name,
        "difference": f"{100 * test.difference:+.1f}",
        "counts": ", ".join(f"{seed.first_only} : {seed.second_only}" for seed in test.seeds),
        "p": in_p(test.p),
        "p_groups": "–" if test.p_groups is None else f"{in_p(test.p_groups)} ({test.groups})",
        "p_corrected": in_p(pair.corrected),
        "verdict": pair.verdict(),
        "more": pair.more_than_chance(),
    }


def _spread_in_words(result: TableResult) -> str:
    seeds = any(row.score and row.score.top1_spread is not None for row in result.rows)
    folds = any(row.score and row.score.fold_spread is not None for row in result.rows)
    over = ["over seeds"] * seeds + ["in brackets" * seeds + " over folds"] * folds
    return f"±: standard deviation {', '.join(over)}. " if over else ""


def _seeds(result: TableResult) -> str:
    return ("seeds " if len(result.seeds) > 1 else "seed ") + ", ".join(map(str, result.seeds))
