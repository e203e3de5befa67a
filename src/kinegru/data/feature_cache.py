"""The maps of a frozen network part, computed once a clip and view, read memory-mapped after that.

* Nothing stale is ever read: a file's name is a digest of the clip's bytes, the view, the sampling and transform
  settings, the weights and structure of the frozen part, and the storage precision. A changed thing is another name.
* Files appear whole (written aside, renamed), so a kill leaves no half file.
* Several processes fill one cache together: each goes through what is missing in an order of its own, and looks again
  before it decodes and before it computes. Nobody waits, and hardly anything is computed twice.
* `float16` keeps maps to 3 digits; `uint8` halves that again, with one scale a channel and clip.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
import random
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch.utils.data import Dataset

from kinegru.data.catalog import Clip
from kinegru.data.dataset import ClipDataset, Sample, load_batches
from kinegru.errors import DataError
from kinegru.files import atomic_write, content_digest

FORMAT = 1  # raise it when the layout of a file, or the meaning of its numbers, changes
BYTES_A_VALUE = {"float16": 2, "uint8": 1}
LEFT_BEHIND = 24 * 3600.0  # seconds after which a temporary file is that of a process which was killed
Item = tuple[int, int]  # a clip's position in the data set, and its view


class FeatureCache:
    """A folder of maps, one file a clip and view.

    `stage` identifies the frozen part (its structure and weights); `precision` is float16 or uint8.

    >>> import tempfile
    >>> from kinegru.video.transforms import Preprocessing
    >>> cache = FeatureCache(Path(tempfile.mkdtemp()), "trunk-1", ClipDataset([], [], Preprocessing()))
    >>> cache.estimate(items=1000, shape=(40, 728, 19, 19)) // 2**30
    19
    """

    def __init__(self, folder: Path, stage: str, dataset: ClipDataset, precision: str = "float16") -> None:
        if precision not in BYTES_A_VALUE:
            raise DataError(f"cache precision {precision!r} is unknown: choose from {', '.join(BYTES_A_VALUE)}")
        self.folder = Path(folder)
        self.precision = precision
        self.dataset = dataset
        augmentation = dataset.augmentation
        self._settings = {
            "format": FORMAT,
            "stage": stage,
            "precision": precision,
            "preprocessing": dataclasses.replace(dataset.preprocessing, windows=1).to_dict(),
        }
        self._places = dataset.preprocessing.places
        self._augmentation = dataclasses.asdict(augmentation) if augmentation is not None else None

    def over(self, clips: Sequence[Clip]) -> FeatureCache:
        """The same cache for another choice of clips."""
        dataset = copy.copy(self.dataset)
        chosen = set(clips)
        keep = [index for index, clip in enumerate(dataset.clips) if clip in chosen]
        dataset.clips = [dataset.clips[index] for index in keep]
        dataset.targets = [dataset.targets[index] for index in keep]
        other = copy.copy(self)
        other.dataset = dataset
        return other

    def path(self, clip: Clip, view: int) -> Path:
        """Where the maps of this view are, or will be."""
        view = view if self._augmentation is not None or view < 0 else 0
        named: dict[str, Any] = {"clip": content_digest(clip.path), "view": max(view, 0)}
        if view <= 0 and (place := self._places[-view]) != 0.5:
            named["place"] = place
        if view > 0:  # an augmented view also depends on the clip's name, which seeds its random numbers
            named |= {"augmentation": self._augmentation, "name": f"{clip.label}/{clip.path.name}"}
        digest = hashlib.sha256(json.dumps(self._settings | named, sort_keys=True).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """Those of the (index, view) pairs that are not in the cache yet."""
        return [(i, view) for i, view in items if not self.path(self.dataset.clips[i], view).exists()]

    def estimate(self, items: int, shape: Sequence[int]) -> int:
        """Bytes that `items` views with maps of `shape` (T, C, h, w) take."""
        scales = 8 * shape[1] + 128 if self.precision == "uint8" else 0  # two float32 a channel
        return items * (BYTES_A_VALUE[self.precision] * torch.Size(shape).numel() + scales + 88)  # 88: the header

    def require_space(self, needed: int) -> None:
        """Raise `DataError` where the disk will not hold `needed` more bytes."""
        folder = self.folder
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if needed > 0.95 * free:
            raise DataError(
                f"{self.folder}: the feature cache needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
                "take fewer --views, --cache-precision uint8, another --cache folder, or --cache off"
            )

    def write(self, clip: Clip, view: int, maps: torch.Tensor) -> None:
        """Store maps (T, C, h, w), any float dtype."""
        self._write(self.path(clip, view), maps)

    def read(self, clip: Clip, view: int) -> torch.Tensor:
        """The stored maps (T, C, h, w): float16 as they are stored, float32 from uint8; half the bytes to a GPU.

        Raises `DataError` where the file is missing or damaged.
        """
        path = self.path(clip, view)
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                return _unpack({name: file.get_tensor(name) for name in names})
        except FileNotFoundError:
            raise DataError(f"{clip.path}: view {view} is not in the feature cache {self.folder}") from None
        except (SafetensorError, OSError, KeyError) as error:
            raise DataError(f"{path}: damaged cache file ({error}); delete it and run again") from None

    def fill(
        self,
        items: Sequence[Item],
        encode: Callable[[torch.Tensor], torch.Tensor],
        batch: int = 4,
        workers: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[int, str]:
        """Compute and store what is missing of `items`; return the clips that cannot be read, with the reason.

        `encode` takes frames (n, T, 3, S, S) float32 and gives maps (n, T, C, h, w). `progress` is called with the
        views done and the views to do. A clip whose file changes meanwhile counts as unreadable: what was computed may
        be of the old content or the new. Raises `DataError` where the disk is full.
        """
        self._sweep()
        planned = {(index, view): self.path(self.dataset.clips[index], view) for index, view in items}
        todo = [item for item, path in planned.items() if not path.exists()]
        random.Random().shuffle(todo)
        groups = _StillMissing([todo[start : start + batch] for start in range(0, len(todo), batch)], planned)
        errors: dict[int, str] = {}
        done = 0
        for samples in load_batches(self.dataset, groups, workers, list):
            group, done = groups.reading.popleft()
            errors |= {sample.index: sample.error or "unreadable" for sample in samples if sample.inputs is None}
            good = [
                (item, sample)
                for item, sample in zip(group, samples, strict=True)
                if sample.inputs is not None and not planned[item].exists()
            ]
            maps = encode(torch.stack([sample.inputs for _, sample in good])) if good else ()
            for (item, sample), one in zip(good, maps, strict=True):
                clip = self.dataset.clips[sample.index]
                if self.path(clip, item[1]) == planned[item]:
                    self._write(planned[item], one)
                else:
                    errors[sample.index] = f"{clip.path}: changed while it was read; run again"
            if progress is not None:
                progress(done, len(todo))
        if progress is not None and done < len(todo):  # another process has written the last ones
            progress(len(todo), len(todo))
        return errors

    def _write(self, path: Path, maps: torch.Tensor) -> None:
        try:
            with atomic_write(path, "wb") as file:
                file.write(save(_pack(maps, self.precision)))
        except OSError as error:
            raise DataError(f"{self.folder}: the feature cache cannot be written ({error.strerror})") from None

    def _sweep(self) -> None:
        """Remove temporary files that killed processes left behind."""
        for path in self.folder.glob("*/.*.tmp"):
            with contextlib.suppress(OSError):  # another process was quicker
                if time.time() - path.stat().st_mtime > LEFT_BEHIND:
                    path.unlink()


class CachedDataset(Dataset[Sample]):
    """The same items as the `ClipDataset` behind the cache, with maps in the place of frames."""

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self.clips = cache.dataset.clips
        self.preprocessing = cache.dataset.preprocessing
        self.targets = cache.dataset.targets

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | Item) -> Sample:
        index, view = key if isinstance(key, tuple) else (key, 0)
        return Sample(index, self.targets[index], self.cache.read(self.clips[index], view))


class _StillMissing:
    """`Batches`: groups of items as a loader asks for them, without what another process has written meanwhile."""

    def __init__(self, groups: list[list[Item]], planned: dict[Item, Path]) -> None:
        self.groups, self.planned = groups, planned
        self.reading: deque[tuple[list[Item], int]] = deque()  # handed out, and how many items come before and in them

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[list[Item]]:
        done = 0
        for group in self.groups:
            done += len(group)
            missing = [item for item in group if not self.planned[item].exists()]
            if missing:
                self.reading.append((missing, done))
                yield missing


def _pack(maps: torch.Tensor, precision: str) -> dict[str, torch.Tensor]:
    maps = maps.detach().cpu()
    if precision == "float16":
        largest = torch.finfo(torch.float16).max
        return {"maps": maps.clamp(-largest, largest).half().contiguous()}
    low = maps.float().amin(dim=(0, 2, 3), keepdim=True)  # (1, C, 1, 1)
    step = ((maps.float().amax(dim=(0, 2, 3), keepdim=True) - low) / 255).clamp_min(1e-12)
    return {"maps": ((maps - low) / step).round().to(torch.uint8).contiguous(), "low": low, "step": step}


def _unpack(stored: dict[str, torch.Tensor]) -> torch.Tensor:
    maps = stored["maps"]
    return maps.float() * stored["step"] + stored["low"] if "step" in stored else maps
