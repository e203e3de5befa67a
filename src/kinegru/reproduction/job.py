"""A job: a row with a seed, its folder, and what of it is finished already.

A job's identity is everything that decides its result: settings, split, groups, the clips' names, labels and contents,
the weights' content. A finished job whose identity still holds is never run again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kinegru.data.catalog import Catalog
from kinegru.data.splits import Split, folder_names
from kinegru.files import atomic_write, content_digest
from kinegru.reproduction.protocol import Protocol
from kinegru.reproduction.rows import Row
from kinegru.runs.train import FREE_TO_CHANGE
from kinegru.training.settings import TrainSettings

State = Literal["finished", "begun", "changed", "new"]

IDENTITY = "identity.json"  # in a job's folder, written before anything else is


@dataclass(frozen=True)
class Planned:
    """A row as it will be run here: its settings for any seed, and what must be said about it."""

    row: Row
    slug: str  # of its folder: the same for rows of different tables that are the same
    settings: TrainSettings
    notes: tuple[str, ...]
    imagenet: bool = False  # whether the row would need timm's weights to be what the paper ran
    error: str | None = None  # why it cannot be run

    def with_seed(self, seed: int) -> TrainSettings:
        return dataclasses.replace(self.settings, seed=seed)


@dataclass(frozen=True)
class Job:
    """A row with a seed: one model a fold."""

    planned: Planned
    seed: int
    folder: Path
    folds: tuple[Split, ...]
    identity: Mapping[str, Any]

    @property
    def settings(self) -> TrainSettings:
        return self.planned.with_seed(self.seed)

    def fold_folder(self, fold: Split) -> Path:
        """Of one fold's run; the job's own folder where there is only one."""
        if len(self.folds) == 1:
            return self.folder
        return self.folder / folder_names(self.folds)[[one.name for one in self.folds].index(fold.name)]

    def finished_folds(self) -> list[Split]:
        """All of a finished job, also where only its pooled result was kept."""
        if _whole(self.folder / "metrics.json"):
            return list(self.folds)
        return [fold for fold in self.folds if _whole(self.fold_folder(fold) / "metrics.json")]

    def state(self) -> State:
        """Where the job stands, from its folder."""
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return "new"
        if self.changes():
            return "changed"
        return "finished" if _whole(self.folder / "metrics.json") else "begun"

    def set_aside(self) -> Path:
        """Where results of other settings go: SEED-before, or SEED-before-2 and so on."""
        places = (f"{self.folder.name}-before{'' if n == 1 else f'-{n}'}" for n in itertools.count(1))
        return next(place for name in places if not (place := self.folder.with_name(name)).exists())

    def changes(self) -> list[str]:
        """What decides the result and differs from what lies in the folder, in words."""
        try:
            before = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ["nothing says with which settings it was run"]
        now = json.loads(json.dumps(self.identity))
        usual = {f"settings.{name}": value for name, value in TrainSettings().to_dict().items()}  # one that came later
        before, now = usual | before, usual | now
        return [
            f"{name.removeprefix('settings.')} was {before.get(name)!r} and is {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name) and name.removeprefix("settings.") not in FREE_TO_CHANGE
        ]

    def why_again(self) -> str:
        """Why a changed job is run once more, and where its results are kept."""
        return f"run again, because {'; '.join(self.changes())}; what was finished goes to {self.set_aside().name}"

    def open(self) -> None:
        """Make the folder this job's own: what was run with other settings is set aside, if any of it was finished."""
        if self.state() == "changed":
            if next(self.folder.rglob("metrics.json"), None) is None:
                shutil.rmtree(self.folder)
            else:
                self.folder.rename(self.set_aside())
        if not (self.folder / IDENTITY).exists():
            with atomic_write(self.folder / IDENTITY) as file:
                json.dump(self.identity, file, ensure_ascii=False, indent=1)


def job_identity(settings: TrainSettings, protocol: Protocol, digest: str) -> dict[str, Any]:
    """Everything that decides a job's result, as a flat table of plain values."""
    values = {name: value for name, value in settings.to_dict().items() if name not in FREE_TO_CHANGE}
    weights = settings.backbone_weights
    if weights not in ("imagenet", "none"):
        values["backbone_weights"] = f"{Path(weights).name}, digest {content_digest(Path(weights))[:16]}"
    named = {f"settings.{name}": value for name, value in values.items()}
    if settings.cache == "off":  # cached maps are rounded
        named["cached"] = False
    return named | {"split": protocol.split, "group_pattern": protocol.group_pattern, "data": digest}


def data_digest(catalog: Catalog) -> str:
    """16 hex digits that change with any clip's name, label, group, split or content."""
    digest = hashlib.sha256(catalog.digest.encode())
    for clip in catalog.clips:
        digest.update(content_digest(clip.path).encode())
    return digest.hexdigest()[:16]


def _whole(file: Path) -> bool:
    """Whether there is such a file, and it is JSON still."""
    try:
        return isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False
