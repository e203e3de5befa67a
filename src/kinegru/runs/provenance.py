"""Where a model came from, for its file: data, split, seed, settings, versions, and whom it has seen."""

from __future__ import annotations

import hashlib
import os
import platform
import zlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import kinegru
from kinegru.data import official
from kinegru.data.catalog import Catalog, Clip
from kinegru.evaluation.context import RunContext
from kinegru.files import content_digest
from kinegru.training.settings import TrainSettings


def provenance(
    catalog: Catalog, context: RunContext, settings: TrainSettings, clips: Iterable[Clip], metrics: dict[str, Any]
) -> dict[str, Any]:
    """For a model file's header: plain values, without names of clips or paths. `clips` trained and validated it."""
    clips = list(clips)
    return {
        "data": catalog.describe(),
        "split": context.split,
        "seed": settings.seed,
        "settings": portable(settings),
        "versions": dict(context.versions),
        "clips": {"train": context.train_clips, "validation": context.validation_clips, "test": metrics["clips"]},
        "siblings": context.siblings,
        "metrics": {name: metrics[name] for name in ("right", "clips", "top1", "top5", "wilson")},
        "trained_on": {
            "clips": sorted({fingerprint(lasting_name(catalog, clip)) for clip in clips}),
            "contents": sorted({content_digest(clip.path)[:16] for clip in clips}),
            "groups": sorted({fingerprint(clip.group) for clip in clips if clip.group is not None}),
        },
    }


def seen_in_training(
    catalog: Catalog, clips: Iterable[Clip], trained_on: dict[str, list[str]]
) -> tuple[int | None, int | None]:
    """How many of the clips a model was trained on, and how many have a sibling among those; None: not known.

    `trained_on` is what `provenance` put into the model file; validation clips count as trained on. A clip was trained
    on where one of its name or its content was. Siblings are not known where the model or the data has no groups.

    >>> clips = (Clip(Path("set/run/ann.mp4"), "run", "ann"), Clip(Path("set/run/bob.mp4"), "run", "bob"))
    >>> catalog = Catalog(Path("set"), clips, ("run",), "folder")
    >>> seen_in_training(catalog, clips, {"clips": [fingerprint("run/ann.mp4")], "groups": [fingerprint("ann")]})
    (1, 1)
    >>> seen_in_training(catalog, clips, {})
    (None, None)
    """
    clips, names, groups = list(clips), set(trained_on.get("clips", ())), set(trained_on.get("groups", ()))
    if not names:
        return None, None
    contents = set(trained_on.get("contents", ()))
    seen = sum(
        not names.isdisjoint((fingerprint(lasting_name(catalog, clip)), short_fingerprint(catalog.name(clip))))
        or (bool(contents) and content_digest(clip.path)[:16] in contents)
        for clip in clips
    )
    if not groups or not catalog.groups:
        return seen, None
    known = [clip.group for clip in clips if clip.group is not None]
    siblings = sum(not groups.isdisjoint((fingerprint(group), short_fingerprint(group))) for group in known)
    return seen, siblings if siblings or len(known) == len(clips) else None


def portable(settings: TrainSettings) -> dict[str, Any]:
    """The settings without paths of this machine."""
    return settings.to_dict() | {"backbone_weights": Path(settings.backbone_weights).name, "cache": "auto"}


def lasting_name(catalog: Catalog, clip: Clip) -> str:
    """What a clip is called in every copy of the data: its path there; in UCF101 and HMDB51 its class and stem.

    >>> clip = Clip(Path("UCF-101/HandStandPushups/v_HandStandPushups_g01_c02.avi"), "HandstandPushups")
    >>> lasting_name(Catalog(Path("UCF-101"), (clip,), (clip.label,), "ucf101"), clip)
    'handstandpushups/v_handstandpushups_g01_c02'
    """
    if catalog.kind in official.KINDS:
        return f"{clip.label}/{clip.path.stem}".lower()
    return catalog.name(clip)


def fingerprint(text: str) -> str:
    """16 hex digits for a clip's or group's name: a model file knows what it was trained on without names.

    64 bits, because one false match would refuse a sound evaluation: UCF101 compares 36 million pairs of names.

    >>> fingerprint("walk/ann.mp4")
    '1da293a094e6b52a'
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def short_fingerprint(text: str) -> str:
    """The 8 hex digits that the first model files hold in the place of `fingerprint`."""
    return f"{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}"


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = {name: metadata.version(name) for name in ("torch", "timm", "av")}
    return {"kinegru": kinegru.__version__, "python": platform.python_version(), **packages}


def machine() -> dict[str, Any]:
    """What a measured time depends on: processor, cores, how busy they are just now, versions."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load at start": round(os.getloadavg()[0], 1),
        **versions(),
    }
