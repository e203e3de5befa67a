"""Small copies of a data set's clips: where training decodes them again in every epoch, decoding is what it waits for.

* Names, classes, groups and official lists stay, and so do the number of frames and their rate. Clips become H.264 in
  `.mp4`, without sound; a short side that is small enough already stays what it is.
* The resize is the network input's own, the loss of the codec comes on top: a model trained on copies is one of copies.
* A copy appears under its name when it is whole. The same call goes on with what is missing or older than its clip.
"""

from __future__ import annotations

import csv
import functools
import json
import multiprocessing
import os
import shlex
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kinegru.data import official
from kinegru.data.catalog import Catalog, clip_name, load_catalog
from kinegru.data.copies import SETTINGS, said_of, words_of
from kinegru.data.examine import Examination, attempt, examine_all
from kinegru.errors import DataError, UsageError
from kinegru.files import atomic_write, is_occupied
from kinegru.video.container import Decoder
from kinegru.video.reader import VideoInfo, probe
from kinegru.video.transforms import scale
from kinegru.video.writer import write_video

USUAL_RATE = 25.0  # frames a second, of a clip that does not say its own
X264 = {"preset": "medium", "tune": "fastdecode", "x264-params": "mbtree=0"}  # 7 % larger, read 1.8 times as fast


@dataclass(frozen=True)
class Shrunk:
    """What `shrink_data` did. `data` is what to give to the verbs in place of the clips."""

    data: str
    clips: int
    copied: int  # now
    kept: int  # were there already
    bytes_before: int  # of the clips that have a copy
    bytes_after: int
    unreadable: dict[str, str]  # clip -> reason; these have no copy
    damaged: dict[str, str]  # copied now, as far as they decode: clip -> what was wrong

    @property
    def exit_status(self) -> int:
        """0 if every clip has its copy, else 1."""
        return 1 if self.unreadable else 0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, strings and numbers, for JSON."""
        return asdict(self)


def shrink_data(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    short_side: int = 256,
    crf: int = 18,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    lists: str | os.PathLike[str] | None = None,
) -> Shrunk:
    """Copy every clip of DATA to the folder `out`, its short side `short_side` pixels; `crf` is x264's quality.

    Raises UsageError where `out` holds copies made with other settings or is DATA itself, DataError where two clips
    would have one copy, or a clip of a CSV lies outside of the CSV's folder.

    >>> import shutil, tempfile
    >>> from kinegru.video.synthetic import example_clip
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "clips", "walk").mkdir(parents=True)
    ...     _ = shutil.copy(example_clip(), Path(folder, "clips", "walk", "ann.mp4"))
    ...     shrunk = shrink_data(Path(folder, "clips"), Path(folder, "small"), short_side=36, workers=0)
    ...     info = probe(Path(folder, "small", "walk", "ann.mp4"))
    >>> shrunk.copied, info.width, info.height, info.frames, info.fps
    (1, 48, 36, 30, 25.0)
    """
    if short_side < 16 or short_side % 2:
        raise UsageError(f"--short-side {short_side}: give an even number of pixels, at least 16")
    if not 0 <= crf <= 51:
        raise UsageError(f"--crf {crf}: it is 0 (lossless) to 51 (worst)")
    catalog = load_catalog(data, lists=lists)
    out = Path(out)
    inside = catalog.root if catalog.root.is_dir() else catalog.root.parent
    if out.resolve().is_relative_to(inside.resolve()) and (catalog.root.is_dir() or out.resolve() == inside.resolve()):
        raise UsageError(f"{out}: lies in the folder of the clips; give one beside it")
    copies = _copies(catalog, out)
    _claim(out, str(data), {"short_side": short_side, "crf": crf})
    todo = [path for path, copy in copies.items() if not _is_current(path, copy)]
    work = functools.partial(_copy_at, root=catalog.root, out=out, short_side=short_side, crf=crf)
    found = dict(zip(todo, examine_all(todo, workers, progress, work), strict=True))
    failed = {path: answer.error[1] for path, answer in found.items() if answer.error is not None}
    there = {path: copy for path, copy in copies.items() if path not in failed}
    _write_tables(catalog, there, out)
    return Shrunk(
        data=str(out / "clips.csv" if catalog.kind == "csv" else out),
        clips=len(copies),
        copied=len(todo) - len(failed),
        kept=len(copies) - len(todo),
        bytes_before=sum(path.stat().st_size for path in there),
        bytes_after=sum(copy.stat().st_size for copy in there.values()),
        unreadable={clip_name(path, catalog.root): reason for path, reason in failed.items()},
        damaged={
            clip_name(path, catalog.root): answer.info.damaged
            for path, answer in found.items()
            if answer.info is not None and answer.info.damaged
        },
    )


def shrink_clip(path: Path, copy: Path, short_side: int, crf: int) -> VideoInfo:
    """Write one clip's copy; gives what is known of the clip. Raises VideoError where nothing decodes."""
    info = probe(path, exact=False)
    if not info.fps:  # the container does not say, the timestamps do
        info = probe(path)
    with Decoder(path) as decoder:
        frames = (_smaller(decoder.rgb(frame), short_side) for frame in decoder)
        write_video(copy, frames, info.fps or USUAL_RATE, "libx264", X264 | {"crf": str(crf)})
        return replace(info, damaged=decoder.damage)


def smaller_sides(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of the copy of a frame: both even, as 4:2:0 video has them, and not larger than they were.

    >>> smaller_sides(1080, 1920, 256), smaller_sides(145, 180, 256)
    ((256, 456), (144, 180))
    """
    factor = min(1.0, short_side / min(height, width))
    return max(2, 2 * round(height * factor / 2)), max(2, 2 * round(width * factor / 2))


def _smaller(frame: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    height, width = smaller_sides(frame.shape[0], frame.shape[1], short_side)
    return scale(torch.from_numpy(frame[None].copy()), height, width)[0].numpy()


def _copy_at(path: Path, root: Path, out: Path, short_side: int, crf: int) -> Examination:
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # there is a process for every core
    return attempt(path, lambda clip: shrink_clip(clip, _place(clip, root, out), short_side, crf))


def _is_current(path: Path, copy: Path) -> bool:
    try:
        return copy.stat().st_mtime_ns >= path.stat().st_mtime_ns
    except OSError:
        return False


def _place(path: Path, root: Path, out: Path) -> Path:
    return (out / clip_name(path, root)).with_suffix(".mp4")


def _copies(catalog: Catalog, out: Path) -> dict[Path, Path]:
    """Where each clip's copy goes."""
    copies: dict[Path, Path] = {}
    taken: dict[Path, str] = {}
    for clip in catalog.clips:
        name = catalog.name(clip)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{catalog.root}: {name} lies outside of the table's folder, so its copy has no place")
        copy = _place(clip.path, catalog.root, out)
        if copy in taken and clip.path not in copies:
            raise DataError(f"{catalog.root}: {taken[copy]} and {name} would both be copied to {copy}; rename one")
        copies[clip.path], taken[copy] = copy, name
    return copies


def _claim(out: Path, data: str, settings: dict[str, int]) -> None:
    """Copies of one size do not mix with those of another, nor with anybody's own clips."""
    if is_occupied(out):
        before = {name: value for name, value in said_of(out).items() if name != "data"}
        if not before:
            raise UsageError(f"{out}: is there and holds no copies made by this verb; give a new folder")
        if before != settings:
            said = shlex.join(words_of(before))
            raise UsageError(f"{out}: holds copies made with {said}; give another folder, or these settings")
    with atomic_write(out / SETTINGS) as file:
        json.dump({"data": data} | settings, file)


def _write_tables(catalog: Catalog, copies: dict[Path, Path], out: Path) -> None:
    """Groups, splits and labels that the files' places do not tell; the official lists."""
    if catalog.lists is not None:
        folder = out / official.usual_list_folder(catalog.kind)
        folder.mkdir(exist_ok=True)
        for path in catalog.lists.glob("*.txt"):  # they may lie in the root, among the clips
            shutil.copy(path, folder)
    clips = [clip for clip in catalog.clips if clip.path in copies]
    rows = ((copies[clip.path].relative_to(out).as_posix(), clip) for clip in clips)
    if catalog.kind == "csv":
        table = ((name, clip.label, clip.group or "", clip.split or "") for name, clip in rows)
        _write_csv(out / "clips.csv", ("path", "label", "group", "split"), table)
    elif catalog.kind == "folder" and catalog.groups:
        _write_csv(out / "groups.csv", ("path", "group"), ((name, clip.group) for name, clip in rows if clip.group))


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
