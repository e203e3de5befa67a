"""`kinegru check DATA`: every clip decoded, everything wrong named, exit status 1 if anything is."""

from __future__ import annotations

import sys

from kinegru.console import progress_bar
from kinegru.data.doctor import Report, check_data


def check(
    data: str,
    *,
    group_pattern: str | None = None,
    workers: int | None = None,
    min_frames: int = 8,
    min_clips: int = 4,
    lists: str | None = None,
) -> Report:
    """Decode every clip of DATA and report what is wrong with it.

    Unreadable, empty, truncated, too short, duplicated, mis-cased, unlabelled and missing clips and classes with too
    few clips are named; lengths, sizes and frame rates are counted.

    Args:
        data: Folder of class folders, CSV with path,label[,group,split], UCF101 or HMDB51 root.
        group_pattern: Regular expression whose first group, found in a clip's path, is its group.
        workers: Decoding processes; by default one a core, 0 decodes in this one.
        min_frames: Fewest frames a clip should have.
        min_clips: Fewest clips a class should have.
        lists: Folder of the official split lists, where it is not beside the clips.

    Raises:
        DataError: where DATA holds no clips.
    """
    with progress_bar("checking") as track:
        return check_data(
            data,
            group_pattern=group_pattern,
            workers=workers,
            min_frames=min_frames,
            min_clips=min_clips,
            lists=lists,
            progress=track,
        )


def show(report: Report) -> None:
    """Print the report for people."""
    from rich.console import Console

    from kinegru.data.doctor_table import render

    render(report, Console(width=None if sys.stdout.isatty() else 200))
