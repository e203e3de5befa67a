"""What the frozen part of a model gives for the clips, through the feature cache, before training starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from kinegru.data.dataset import ClipDataset
from kinegru.data.feature_cache import CachedDataset, FeatureCache


def default_cache_folder() -> Path:
    """`$KINEGRU_CACHE`, else `kinegru/features` in the user's cache folder."""
    if chosen := os.environ.get("KINEGRU_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kinegru" / "features"


def encode_with(model: Any, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """The frozen part as a function: frames (n, T, C, S, S) -> maps (n, T, C, h, w) on the CPU."""
    model.to(device).eval()

    def encode(frames: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model.cacheable(frames.to(device, non_blocking=True)).float().cpu()

    return encode


def fill_cache(
    model: Any,
    dataset: ClipDataset,
    views: list[int],
    folder: Path,
    accelerator: Accelerator,
    *,
    precision: str = "float16",
    workers: int = 0,
    say: Callable[[str], None] | None = None,
    track: Callable[[int, int], None] | None = None,
) -> tuple[CachedDataset, dict[int, str]]:
    """Compute what is missing of the clips' `views`; give the cached data set without the clips that cannot be read,
    and those with the reason.

    Raises `DataError` where the disk will not hold it. With several processes each computes its share.
    """
    cache = FeatureCache(folder, model.cache_fingerprint(), dataset, precision)
    items = [(index, view) for view in views for index in range(len(dataset))]
    # one process looks: another that looked later would see what this one has written, and take another share
    missing = broadcast_object_list([cache.missing(items) if accelerator.is_main_process else None])[0]
    errors: dict[int, str] = {}
    if missing:
        p = dataset.preprocessing
        encode = encode_with(model, accelerator.device)
        shape = encode(torch.zeros(1, 1, p.channels, p.size, p.size)).shape[2:]  # (C, h, w)
        needed = cache.estimate(len(missing), (p.frames, *shape))
        cache.require_space(needed)
        accelerator.wait_for_everyone()
        if say is not None and accelerator.is_main_process:
            size = f"{needed / 1e9:.2f} GB in {cache.folder}"
            say(f"feature cache: {len(missing)} of {len(items)} views to compute, {size}")
        mine = missing[accelerator.process_index :: accelerator.num_processes]
        errors = cache.fill(mine, encode, workers=workers, progress=track)
        errors = dict(gather_object(list(errors.items())))
        accelerator.wait_for_everyone()
    good = [clip for index, clip in enumerate(dataset.clips) if index not in errors]
    return CachedDataset(cache.over(good)), errors
