"""How long the clips of a data set are; kept in the model file, so that a live camera is sampled as the clips were."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kinegru.data.catalog import Clip
from kinegru.errors import VideoError
from kinegru.video.reader import VideoInfo, probe

CLIPS = 500  # from twice as many on, not all are looked at
THREADS = 8


def clip_statistics(clips: Sequence[Clip]) -> dict[str, Any]:
    """Median length (frames), rate (frames a second) and duration (s) of clips, evenly chosen where there are many."""
    chosen = clips[:: max(1, len(clips) // CLIPS)]
    with ThreadPoolExecutor(THREADS) as pool:
        infos = [info for info in pool.map(_try_probe, (clip.path for clip in chosen)) if info is not None]
    if not infos:
        return {}
    known = [info.fps for info in infos if info.fps]
    return {
        "clips": len(infos),
        "median_frames": statistics.median(info.frames for info in infos),
        "median_fps": statistics.median(known) if known else None,
        "median_seconds": statistics.median(info.duration for info in infos if info.fps) if known else None,
    }


def _try_probe(path: Path) -> VideoInfo | None:
    try:
        return probe(path, exact=False)
    except VideoError:
        return None
