"""What is wrong with a data set, before a training run finds out: every clip is decoded from end to end.

* Clips are decoded in worker processes (examine.py); one that crashes the decoder is a finding like any other.
* Files with the same bytes are found by hash; the same bytes under two labels, or in two groups, are named as such.
* *Problems* need mending and make `Report.ok` false; *remarks* are worth knowing and do no harm.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kinegru.console import counted
from kinegru.data import official
from kinegru.data.catalog import Catalog, Clip, class_folders, clip_name, is_video, load_catalog, visible
from kinegru.data.examine import Examination, examine_all
from kinegru.data.tables import Fault

KINDS = {  # of findings, in the order in which they are shown
    "missing": "missing",
    "mis_cased": "upper or lower case differs",
    "empty": "empty",
    "unreadable": "unreadable",
    "truncated": "truncated or damaged",
    "too_short": "too short",
    "duplicate": "same content twice",
    "conflict": "same content, two labels",
    "unlabelled": "without a label",
    "table": "faulty line of the table",
    "few_clips": "too few clips in class",
    "not_video": "no video",
}


class Finding(NamedTuple):
    """One thing that is wrong."""

    kind: str  # a key of KINDS
    subject: str  # a clip's name relative to the data, a class, or a line of the table
    message: str


@dataclass(frozen=True)
class Report:
    """What `check_data` found. Histograms are lists of (label, count), ready to be drawn or written."""

    data: dict[str, Any]  # Catalog.describe()
    classes: dict[str, int]  # clips a class
    clips: int
    readable: int  # clips of which frames decode
    frames: int
    seconds: float
    bytes: int
    lengths: list[tuple[str, int]]  # frames a clip
    sizes: list[tuple[str, int]]  # width x height in pixels
    rates: list[tuple[str, int]]  # frames a second
    problems: tuple[Finding, ...]
    remarks: tuple[Finding, ...]
    notes: tuple[str, ...]  # of the catalog

    @property
    def ok(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.problems

    @property
    def exit_status(self) -> int:
        """0 if there is nothing to mend, else 1."""
        return 0 if self.ok else 1

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, strings and numbers, for JSON."""
        plain = asdict(self)
        plain["problems"] = [finding._asdict() for finding in self.problems]
        plain["remarks"] = [finding._asdict() for finding in self.remarks]
        return {"ok": self.ok, **plain}


def check_data(
    data: str | os.PathLike[str],
    group_pattern: str | None = None,
    workers: int | None = None,
    min_frames: int = 8,
    min_clips: int = 4,
    progress: Callable[[int, int], None] | None = None,
    lists: str | os.PathLike[str] | None = None,
) -> Report:
    """Decode every clip of DATA and report what is wrong.

    `workers` processes decode (None: one a core; 0: all is done in this process, where a crashing codec is fatal).
    A clip below `min_frames` frames is too short; a class with fewer than `min_clips` readable clips has too few for a
    3:1 split. `progress(done, total)` is called after every clip. Raises DataError and UsageError as `load_catalog`
    does, but faulty lines of a CSV are findings here.

    >>> import shutil, tempfile
    >>> from kinegru.video.synthetic import example_clip
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for label in ("run", "walk"):
    ...         Path(folder, label).mkdir()
    ...         _ = shutil.copy(example_clip(), Path(folder, label, "a.mp4"))
    ...     report = check_data(folder, workers=0, min_clips=1)
    >>> report.readable, [finding.kind for finding in report.problems]
    (2, ['conflict'])
    """
    faults: list[Fault] = []
    catalog = load_catalog(data, group_pattern, lists, faults)
    examinations = examine_all([clip.path for clip in catalog.clips], workers, progress)
    found = dict(zip(catalog.clips, examinations, strict=True))
    problems = [*_table(catalog, faults), *_clips(catalog, found, min_frames), *_same_content(catalog, found)]
    problems += [*_layout(catalog), *_few_clips(catalog, found, min_clips)]
    remarks = list(_not_used(catalog))
    if catalog.lists is not None:
        _compare_lists(catalog, problems, remarks)
    infos = [examination.info for examination in found.values() if examination.info is not None]
    order = list(KINDS)
    return Report(
        data=catalog.describe(),
        classes=dict(sorted(Counter(clip.label for clip in catalog.clips).items())),
        clips=len(catalog.clips),
        readable=len(infos),
        frames=sum(info.frames for info in infos),
        seconds=round(sum(info.duration for info in infos), 3),
        bytes=sum(examination.bytes for examination in found.values()),
        lengths=histogram([info.frames for info in infos]),
        sizes=most_common(f"{info.width}x{info.height}" for info in infos),
        rates=most_common(f"{info.fps:.2f}".rstrip("0").rstrip(".") if info.fps else "unknown" for info in infos),
        problems=tuple(sorted(problems, key=lambda finding: order.index(finding.kind))),
        remarks=tuple(sorted(remarks, key=lambda finding: order.index(finding.kind))),
        notes=catalog.notes,
    )


def histogram(values: Sequence[int], bins: int = 10) -> list[tuple[str, int]]:
    """Count whole numbers in at most `bins` equal ranges.

    >>> histogram([1, 2, 2, 25], bins=3)
    [('1-9', 3), ('10-18', 0), ('19-27', 1)]
    """
    if not values:
        return []
    low = min(values)
    width = -(-(max(values) - low + 1) // bins)  # rounded up
    counts = Counter((value - low) // width for value in values)
    starts = [low + width * i for i in range(max(counts) + 1)]
    return [(f"{a}-{a + width - 1}" if width > 1 else f"{a}", counts[i]) for i, a in enumerate(starts)]


def most_common(values: Iterable[str], shown: int = 10) -> list[tuple[str, int]]:
    """Count values, the most frequent first, all beyond `shown` together.

    >>> most_common(["25", "30", "25", "24"], shown=1)
    [('25', 2), ('2 others', 2)]
    """
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    rest = counts[shown:] if len(counts) > shown + 1 else []
    shown += len(counts) == shown + 1
    return counts[:shown] + ([(f"{len(rest)} others", sum(count for _, count in rest))] if rest else [])


def _table(catalog: Catalog, faults: Iterable[Fault]) -> Iterator[Finding]:
    for fault in faults:
        kind = fault.kind if fault.kind in ("unlabelled", "duplicate") else "table"
        yield Finding(kind, f"{catalog.root.name}:{fault.line}", fault.message)


def _clips(catalog: Catalog, found: dict[Clip, Examination], min_frames: int) -> Iterator[Finding]:
    for clip, (info, _, _, error) in found.items():
        name = catalog.name(clip)
        if error is not None:
            yield Finding(error[0], name, error[1])
        elif info is not None:
            if info.damaged is not None:
                yield Finding("truncated", name, f"{info.damaged}; {counted(info.frames, 'frame')} can be used")
            if info.frames < min_frames:
                yield Finding("too_short", name, f"{counted(info.frames, 'frame')}, at least {min_frames} are needed")


def _same_content(catalog: Catalog, found: dict[Clip, Examination]) -> Iterator[Finding]:
    same: dict[str, list[Clip]] = defaultdict(list)
    for clip, examination in found.items():
        if examination.digest is not None:
            same[examination.digest].append(clip)
    for first, *others in same.values():
        for clip in others:
            message = f"the same as {catalog.name(first)}"
            if clip.label != first.label:
                yield Finding("conflict", catalog.name(clip), f"{message}, labelled {first.label!r}")
            elif clip.group != first.group:
                yield Finding("duplicate", catalog.name(clip), f"{message}, in another group ({first.group})")
            else:
                yield Finding("duplicate", catalog.name(clip), message)


def _layout(catalog: Catalog) -> Iterator[Finding]:
    """Videos outside of the class folders, and labels that differ in upper and lower case only."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in catalog.labels:
        spellings[label.casefold()].append(label)
    for first, *others in spellings.values():
        for label in others:
            yield Finding("mis_cased", label, f"a class beside {first!r}")
    if catalog.root.is_dir():
        known = {clip.path for clip in catalog.clips}
        for folder, inner, files in os.walk(catalog.root):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for path in (Path(folder, name) for name in sorted(files) if not name.startswith(".")):
                if is_video(path) and path not in known:
                    yield Finding(
                        "unlabelled", clip_name(path, catalog.root), "lies in no class folder, or deeper than one"
                    )


def _few_clips(catalog: Catalog, found: dict[Clip, Examination], min_clips: int) -> Iterator[Finding]:
    readable = Counter(clip.label for clip, examination in found.items() if examination.info is not None)
    for label in catalog.labels:
        if readable[label] < min_clips:
            count = counted(readable[label], "readable clip")
            yield Finding("few_clips", label, f"{count}, at least {min_clips} are needed")


def _not_used(catalog: Catalog) -> Iterator[Finding]:
    """Folders without a video, and files beside the clips that are not named as videos."""
    if catalog.root.is_dir():
        used = {clip.path.parent for clip in catalog.clips}
        for folder, _ in class_folders(catalog.root):
            if folder not in used and folder != catalog.lists:
                yield Finding("not_video", clip_name(folder, catalog.root), "a folder without videos, so no class")
        for path in (path for folder in sorted(used) for path in visible(folder)):
            if path.is_file() and not is_video(path):
                yield Finding("not_video", clip_name(path, catalog.root), "not named as a video, not used")


def _compare_lists(catalog: Catalog, problems: list[Finding], remarks: list[Finding]) -> None:
    """What the official lists name and the data lacks."""
    assert catalog.lists is not None
    listed = {
        n for number in (1, 2, 3) for side in official.read_lists(catalog.kind, catalog.lists, number) for n in side
    }
    found, missing, absent = official.match(catalog.clips, sorted(listed))
    problems += [Finding("missing", name, "is in the official lists") for name in missing]
    remarks += [Finding("missing", label, "no clip of this class of the official lists") for label in sorted(absent)]
    for name, clip in found.items():
        on_disk = f"{clip.path.parent.name}/{clip.path.stem}"
        if on_disk != name.rpartition(".")[0]:
            remarks.append(Finding("mis_cased", catalog.name(clip), f"the official lists name it {name}"))
