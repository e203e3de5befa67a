"""The doctor's report for a terminal: what was checked, histograms, findings, and one line at the end that sums up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kinegru.data.doctor import KINDS, Finding, Report
from kinegru.video.container import shown


def render(report: Report, console: Console, per_kind: int = 20) -> None:
    """Print a report. Of each kind of finding `per_kind` are listed and the rest counted; JSON has them all.

    >>> report = Report({"name": "set", "kind": "folder"}, {"walk": 1}, 1, 1, 30, 1.2, 900, [("30", 1)], [("96x72", 1)],
    ...                 [("25", 1)], (Finding("few_clips", "walk", "1 readable clip"),), (), ())
    >>> import io
    >>> console = Console(file=io.StringIO(), width=80)
    >>> render(report, console)
    >>> console.file.getvalue().splitlines()[-1]
    '1 problem: 1 too few clips in class'
    """
    groups = report.data.get("groups", 0)
    console.print(
        Text(
            f"{report.data['name']} ({report.data['kind']}): {report.clips} clips, {len(report.classes)} classes, "
            f"{groups or 'no'} groups; {report.frames} frames, {_duration(report.seconds)}, {report.bytes / 1e6:.1f} MB"
        )
    )
    for title, bins in (
        ("clips a class", most_and_least(report.classes)),
        ("frames a clip", report.lengths),
        ("size", report.sizes),
        ("frames a second", report.rates),
    ):
        _bars(title, bins, console)
    for note in report.notes:
        console.print(Text(f"note: {note}"))
    for title, findings, style in (("problem", report.problems, "red"), ("remark", report.remarks, "yellow")):
        if findings:
            _findings(title, findings, style, per_kind, console)
    counts = Counter(finding.kind for finding in report.problems)
    total = len(report.problems)
    summary = ", ".join(f"{count} {KINDS[kind]}" for kind, count in counts.items())
    if total:
        console.print(Text(f"{total} problem{'s' if total > 1 else ''}: {summary}", style="bold red"))
    else:
        console.print(Text(f"no problems: all {report.clips} clips can be read", style="bold green"))


def most_and_least(classes: dict[str, int], most: int = 12) -> list[tuple[str, int]]:
    """All classes where there are few, else those with the most and the fewest clips.

    >>> most_and_least({"a": 3, "b": 1, "c": 2}, most=2)
    [('a', 3), ('... 1 more', 2), ('b', 1)]
    """
    if len(classes) <= most:
        return list(classes.items())
    ranked = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    head, middle, tail = ranked[: most // 2], ranked[most // 2 : -(most // 2)], ranked[-(most // 2) :]
    return [*head, (f"... {len(middle)} more", round(sum(count for _, count in middle) / len(middle))), *tail]


def _bars(title: str, bins: Sequence[tuple[str, int]], console: Console, width: int = 32) -> None:
    if not bins:
        return
    table = Table(box=None, show_header=False, padding=(0, 1), title=Text(title, style="bold"), title_justify="left")
    table.add_column(justify="right", min_width=12)
    table.add_column(justify="right")
    table.add_column(no_wrap=True, style="cyan")
    highest = max(count for _, count in bins)
    for label, count in bins:
        table.add_row(
            Text(shown(label)), str(count), "█" * max(round(width * count / highest), count > 0) if highest else ""
        )
    console.print(table)


def _findings(title: str, findings: Sequence[Finding], style: str, per_kind: int, console: Console) -> None:
    table = Table(box=None, padding=(0, 1))
    table.add_column(title, style=style, no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("why", overflow="fold")
    counts = Counter(finding.kind for finding in findings)
    listed: Counter[str] = Counter()
    for kind, subject, message in findings:
        listed[kind] += 1
        if listed[kind] <= per_kind:
            table.add_row(KINDS[kind], Text(shown(subject)), Text(message))  # Text: a name may hold [brackets]
        elif listed[kind] == per_kind + 1:
            table.add_row(KINDS[kind], Text(f"... and {counts[kind] - per_kind} more"), "")
    console.print(table)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {secs} s" if minutes else f"{secs} s"
