"""Which clips there are: DATA, in any of its forms, becomes a tuple of `Clip(path, label, group, split)`.

* DATA is a folder of class folders, the same below `train/`, `val/` and `test/`, a CSV with `path,label[,group,split]`,
  or a UCF101 or HMDB51 root; the two benchmarks are known by their file names and carry their official lists along.
* A group is what clips share beyond their action (a person, a source video). Clips of one group in training and in
  test make accuracy a measure of memory. The group comes from `group_pattern`, else from the CSV, else from
  `groups.csv` in the root, else in a UCF101 or HMDB51 root from the files' names; None means unknown.
* Nothing is opened here, and a path that does not exist stays in: whoever reads the clip says so.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kinegru.data import official
from kinegru.data.copies import shrink_command
from kinegru.data.tables import Fault, read_clip_table, read_rows
from kinegru.errors import DataError, UsageError

_SUFFIXES = "3gp asf avi divx flv gif m2ts m4v mjpeg mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split(" "))
_SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class Clip:
    """One labelled video file.

    >>> Clip(Path("walk/daria.avi"), "walk", group="daria").label
    'walk'
    """

    path: Path
    label: str
    group: str | None = None  # what must not lie on both sides of a split; None: unknown
    split: str | None = None  # "train", "val" or "test" where the data says so


@dataclass(frozen=True)
class Catalog:
    """All clips of a data set, sorted by name, and its classes in the order of the model's outputs (sorted).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("run/ann_1.mp4", "walk/ann_1.mp4", "walk/bob_1.mp4"):
    ...         path = Path(folder, name)
    ...         path.parent.mkdir(exist_ok=True)
    ...         path.touch()
    ...     catalog = load_catalog(folder, group_pattern=r"/([a-z]+)_")
    >>> catalog.labels, [clip.group for clip in catalog.clips]
    (('run', 'walk'), ['ann', 'ann', 'bob'])
    """

    root: Path  # the folder that holds the class folders, or the CSV
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    kind: str  # "folder", "csv", "ucf101" or "hmdb51"
    lists: Path | None = None  # where the official split lists of UCF101 or HMDB51 lie
    notes: tuple[str, ...] = ()  # what a user should know, one line each
    copied_by: str | None = None  # the command that made the clips, where they are small copies

    def name(self, clip: Clip) -> str:
        """The clip's path relative to the data set, with `/`: stable across machines."""
        return clip_name(clip.path, self.root)

    @property
    def groups(self) -> tuple[str, ...]:
        """The known groups, sorted."""
        return tuple(sorted({clip.group for clip in self.clips if clip.group is not None}))

    @property
    def digest(self) -> str:
        """16 hex digits that change with any clip's name, label, group or split (not with its content)."""
        rows = sorted(f"{self.name(c)}\t{c.label}\t{c.group or ''}\t{c.split or ''}\n" for c in self.clips)
        return hashlib.sha256("".join(rows).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def describe(self) -> dict[str, str | int]:
        """Kind, name, number of clips, classes and groups, and the digest: provenance without a machine path."""
        return {
            "kind": self.kind,
            "name": self.root.resolve().name,
            "clips": len(self.clips),
            "classes": len(self.labels),
            "groups": len(self.groups),
            "digest": self.digest,
        }


def load_catalog(
    data: str | os.PathLike[str],
    group_pattern: str | None = None,
    lists: str | os.PathLike[str] | None = None,
    faults: list[Fault] | None = None,
) -> Catalog:
    """Read a folder, a CSV, or a UCF101 or HMDB51 root.

    `group_pattern` is a regular expression searched in each clip's relative path (`walk/daria_walk.avi`); what its
    first parentheses match is the clip's group. `lists` is the folder of the official split lists where it lies
    neither in the root nor beside it. With `faults` the lines of a CSV that cannot be used are left out and appended
    there; without, the first of them is an error.

    Raises DataError where there are no clips, the CSV is faulty (naming its line) or the pattern matches no clip, and
    UsageError for a pattern that is no regular expression or has no parentheses.

    >>> load_catalog("nowhere")
    Traceback (most recent call last):
    kinegru.errors.DataError: nowhere: no such folder or CSV file
    """
    data = Path(data).expanduser()
    pattern = _compile(group_pattern)
    notes: list[str] = []
    if data.is_dir():
        root = _video_root(data)
        clips = list(_walk(root))
        if not clips:
            raise DataError(_no_clips(data))
        kind = official.kind_of((clip.path for clip in clips), root, data)
        if kind == "ucf101":
            clips = [replace(clip, label=official.canonical_label(clip.label)) for clip in clips]
        table = next((path for path in (root / "groups.csv", data / "groups.csv") if path.is_file()), None)
        if pattern is None and table is not None:
            clips = _groups_from_table(table, clips, root, notes)
        elif pattern is None and kind != "folder":
            clips = [replace(clip, group=official.group_of(kind, clip.path, clip.label)) for clip in clips]
    elif data.is_file():
        root, kind = data, "csv"
        rows, faulty = read_clip_table(data)
        clips = [Clip(*row) for row in rows]
        if faults is not None:
            faults.extend(faulty)
        elif faulty:
            more = f" (and {len(faulty) - 1} more such lines; `kinegru check` lists them)" if len(faulty) > 1 else ""
            raise DataError(f"{data}:{faulty[0].line}: {faulty[0].message}{more}")
        if not clips and not faults:
            raise DataError(f"{data}: has no line that names a clip and its label")
    else:
        raise DataError(f"{data}: no such folder or CSV file")
    if pattern is not None and clips:
        clips = _groups_from_pattern(pattern, clips, root, data, notes)
    unknown = sum(clip.group is None for clip in clips)
    if 0 < unknown < len(clips):
        notes.append(
            f"{unknown} of {len(clips)} clips have no group: each counts as a group of its own, and with "
            "leave-one-group-out they only train"
        )
    copied_by = shrink_command(data)
    if copied_by is not None:
        notes.append(f"the clips are small copies, made by: {copied_by}")
    clips.sort(key=lambda clip: clip_name(clip.path, root))
    if lists is not None and kind not in official.KINDS:
        raise UsageError(f"--lists {lists}: {data} is neither UCF101 nor HMDB51, which have lists")
    where = official.find_lists(kind, root, data, lists) if kind in official.KINDS else None
    labels = tuple(sorted({clip.label for clip in clips}))
    return Catalog(root, tuple(clips), labels, kind, where, tuple(notes), copied_by)


def clip_name(path: Path, root: Path) -> str:
    """`path` relative to `root` (a folder or a CSV) with `/`; a path outside of it as it is.

    >>> clip_name(Path("set/walk/a.avi"), Path("set"))
    'walk/a.avi'
    """
    for base in (root, root.parent):  # the parent for a CSV
        try:
            return path.relative_to(base).as_posix()
        except ValueError:
            continue
    return path.as_posix()


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without hidden files and those that operating systems leave behind."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    return [path for path in paths if not path.name.startswith(".") and path.name.lower() not in _SYSTEM_FILES]


def is_video(path: Path) -> bool:
    """Whether the file's name ends as a video's does.

    >>> is_video(Path("a.AVI")), is_video(Path("notes.txt"))
    (True, False)
    """
    return path.suffix.lower() in VIDEO_SUFFIXES


def class_folders(root: Path) -> list[tuple[Path, str | None]]:
    """Every class folder and the split it stands under (`train/walk`), None where there are no split folders."""
    folders = [path for path in visible(root) if path.is_dir()]
    if len(folders) > 1 and all(path.name.lower() in _SPLIT_FOLDERS for path in folders):
        return [(inner, _SPLIT_FOLDERS[f.name.lower()]) for f in folders for inner in visible(f) if inner.is_dir()]
    return [(path, None) for path in folders]


def _walk(root: Path) -> Iterator[Clip]:
    for folder, split in class_folders(root):
        for path in visible(folder):
            if is_video(path) and not path.is_dir():  # a broken link stays: the doctor names it
                yield Clip(path, folder.name, split=split)


def _video_root(data: Path) -> Path:
    """UCF101 and HMDB51 are unpacked into a folder of their own beside the lists."""
    for path in visible(data):
        if path.is_dir() and path.name.lower() in official.VIDEO_FOLDERS and any(p.is_dir() for p in visible(path)):
            return path
    return data


def _no_clips(data: Path) -> str:
    if any(is_video(path) for path in visible(data)):
        return f"{data}: the videos lie in no class folder; put those of one class into a folder with the class's name"
    deeper = next((p for p in sorted(data.glob("*/*/*")) if is_video(p)), None)
    if deeper is not None:
        where = clip_name(deeper, data)
        return f"{data}: the videos lie a folder deeper ({where}); give the folder that holds the class folders"
    return (
        f"{data}: holds no class folder with videos (clips are <class>/<name>.mp4, or lines of a CSV with path,label)"
    )


def _groups_from_table(table: Path, clips: list[Clip], root: Path, notes: list[str]) -> list[Clip]:
    """`groups.csv`: path and group, whatever the header calls them."""
    header, rows = read_rows(table)
    names = {clip_name(clip.path, root) for clip in clips}
    groups: dict[str, str] = {}
    for line, cells in [(1, header), *rows]:
        cells = [cell.strip() for cell in cells]
        name = cells[0].replace("\\", "/") if cells else ""
        if line == 1 and name not in names:
            continue  # the header
        if len(cells) != 2 or not all(cells):
            raise DataError(f"{table}:{line}: must hold a path and a group")
        if groups.setdefault(name, cells[1]) != cells[1]:
            raise DataError(f"{table}:{line}: {name} was in group {groups[name]!r} before and is in {cells[1]!r} now")
    if stale := sorted(groups.keys() - names):
        notes.append(f"{table.name} names {len(stale)} clips that are not there, e.g. {stale[0]}")
    return [replace(clip, group=groups.get(clip_name(clip.path, root))) for clip in clips]


def _compile(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"group pattern {pattern!r} is no regular expression: {error}") from None
    if compiled.groups == 0:
        raise UsageError(f"group pattern {pattern!r} needs parentheses around the part that names the group")
    return compiled


def _groups_from_pattern(
    pattern: re.Pattern[str], clips: Iterable[Clip], root: Path, data: Path, notes: list[str]
) -> list[Clip]:
    found: list[Clip] = []
    missed: list[str] = []
    for clip in clips:
        name = clip_name(clip.path, root)
        match = pattern.search(name)
        if match is None or not match[1]:
            missed.append(name)
        found.append(replace(clip, group=match[1] if match is not None and match[1] else name))
    if len(missed) == len(found):
        raise DataError(f"{data}: group pattern {pattern.pattern!r} matches no clip (the first is {missed[0]})")
    if missed:
        notes.append(
            f"{len(missed)} of {len(found)} clips do not match the group pattern (e.g. {missed[0]}): each its own group"
        )
    return found
