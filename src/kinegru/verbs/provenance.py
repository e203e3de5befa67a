"""Where a model came from, for its file: data, split, seed, settings, versions, and whom it has seen."""

from __future__ import annotations

import platform
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kinegru
from kinegru.data.catalog import Catalog, Clip
from kinegru.evaluation.context import RunContext
from kinegru.training.settings import TrainSettings


def provenance(
    catalog: Catalog, context: RunContext, settings: TrainSettings, clips: Iterable[Clip], metrics: dict[str, Any]
) -> dict[str, Any]:
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
            "clips": sorted({fingerprint(catalog.name(clip)) for clip in clips}),
            "groups": sorted({fingerprint(clip.group) for clip in clips if clip.group is not None}),
        },
    }


def portable(settings: TrainSettings) -> dict[str, Any]:
    """The settings without paths of this machine."""
    return settings.to_dict() | {"backbone_weights": Path(settings.backbone_weights).name, "cache": "auto"}


def fingerprint(text: str) -> str:
    """Eight hex digits for a clip's or group's name: a model file knows what it was trained on without names."""
    return f"{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}"


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    import av
    import timm
    import torch

    return {
        "kinegru": kinegru.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "av": av.__version__,
    }
