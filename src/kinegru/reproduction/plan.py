"""From a table and one protocol to jobs: a row with a seed, its settings, its folder, and what is finished already.

Notable:
* The protocol is one `TrainSettings` for all rows; a row changes the model, its options and what they force.
* Options of the protocol that a model does not have (a projection before an LSTM) are left out, and the row says so.
* A job's identity is everything that decides its result: settings, split, groups, the clips' names, labels and
  contents, the weights' content. A finished job whose identity still holds is never run again.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kinegru.data.catalog import Catalog
from kinegru.data.splits import Split, digest_of_splits, folder_names, make_splits
from kinegru.errors import KineGRUError, UsageError
from kinegru.files import atomic_write, content_digest
from kinegru.models.zoo import model_options
from kinegru.reproduction.rows import FULL, Row
from kinegru.training.settings import TrainSettings
from kinegru.verbs.train import FREE_TO_CHANGE

Scratch = Literal["trained", "frozen"]
State = Literal["finished", "begun", "changed", "new"]

IDENTITY = "identity.json"  # in a job's folder, written before anything else is


@dataclass(frozen=True)
class Protocol:
    """What holds for every row: data, split, settings, weights."""

    data: str
    split: str
    out: Path
    settings: TrainSettings = field(default_factory=TrainSettings)
    group_pattern: str | None = None
    lists: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)  # backbone -> file, imagenet or none
    scratch: Scratch = "trained"  # a backbone without weights: trained whole, or frozen as it is drawn

    def of(self, row: Row) -> Protocol:
        """The protocol as it holds for a row, which may have a split of its own."""
        return dataclasses.replace(self, split=row.split) if row.split else self

    def command(self, settings: TrainSettings, out: str) -> str:
        """The `kinegru train` command that trains and tests with these settings."""
        words = ["kinegru", "train", self.data, "--split", self.split]
        words += ["--group-pattern", self.group_pattern] if self.group_pattern else []
        words += ["--lists", self.lists] if self.lists else []
        return shlex.join([*words, *settings_words(settings), "--out", out])


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


def plan_row(row: Row, protocol: Protocol) -> Planned:
    """A row's settings under the protocol; what cannot be built gives a `Planned` with an error.

    >>> from kinegru.reproduction.rows import TABLES
    >>> lstm = plan_row(TABLES["table4"].rows[0], Protocol("clips", "group", Path("out"),
    ...                 TrainSettings(options={"projection": 128, "readout": "max"})))
    >>> lstm.slug, lstm.settings.options, lstm.notes
    ('xception_lstm', {'readout': 'max'}, ('The protocol says projection 128, which this model does not have.',))
    """
    try:
        return _plan_row(row, protocol)
    except KineGRUError as error:
        return Planned(row, row.model, protocol.settings, (), error=str(error))


def _plan_row(row: Row, protocol: Protocol) -> Planned:
    common, notes = {}, []
    for name, value in protocol_options(protocol).items():
        if _takes(row.model, {name: value}):
            common[name] = value
        elif name not in row.options:
            notes.append(f"The protocol says {name} {_word(value)}, which this model does not have.")
    plain = _asdict(row.model, common)
    options = common | {name: value for name, value in row.options.items() if value != plain.get(name)}
    chosen = _asdict(row.model, options)  # what a row says and the model is anyway makes no run of its own
    backbone = chosen.get("backbone")
    weights = row.weights or weights_of(backbone, row.model, protocol)
    settings = dataclasses.replace(
        protocol.settings, model=row.model, options=options, backbone_weights=weights, seed=0,
        profile=row.profile or protocol.settings.profile,
    )  # fmt: skip
    scratch = weights == "none" and row.profile is None
    if scratch and protocol.scratch == "trained":
        settings = dataclasses.replace(settings, profile="full")
    if scratch and backbone:
        how = "trained whole from random weights" if settings.profile == "full" else "frozen at random weights"
        notes.append(f"{backbone} has no ImageNet weights here: it is {how}.")
    if backbone != (usual := _asdict(row.model, {})["backbone"]) and "backbone" not in row.options:
        notes.append(f"Here on {backbone} in place of {usual}.")
    notes += _excitation_notes(row, chosen, settings)
    changed = {name: value for name, value in chosen.items() if value != plain.get(name)}
    parts = [
        row.model,
        *([row.split] if row.split else []),
        *(f"{name}-{_word(value)}" for name, value in sorted(changed.items())),
    ]
    slug = re.sub(r"[^\w.+-]+", "-", "-".join(parts + ["scratch"] * bool(row.weights and not row.profile)))
    return Planned(row, slug, settings, tuple(notes), imagenet=scratch and bool(backbone) and row.weights != "none")


def plan_jobs(rows: Sequence[Planned], seeds: Sequence[int], protocol: Protocol, catalog: Catalog) -> list[Job]:
    """Every row with every seed; all rows with the first seed come first, so that there is a whole table early."""
    digest = data_digest(catalog)
    splits = {protocol.of(planned.row).split for planned in rows}
    folds = {(split, seed): tuple(make_splits(catalog, split, seed)) for split in splits for seed in seeds}

    def job(planned: Planned, seed: int) -> Job:
        own = protocol.of(planned.row)
        dealt = folds[own.split, seed]
        identity = job_identity(planned.with_seed(seed), own, digest)
        if own.split.startswith("official"):  # the lists deal, and `--lists` may name others
            identity["dealt"] = digest_of_splits(catalog, dealt)
        return Job(planned, seed, protocol.out / "runs" / planned.slug / f"seed-{seed}", dealt, identity)

    return [job(planned, seed) for seed in seeds for planned in rows if planned.error is None]


def protocol_options(protocol: Protocol) -> dict[str, Any]:
    """The protocol's model options; the backbone of its model, where that is not the paper's, is one for all rows."""
    settings = protocol.settings
    backbone = _asdict(settings.model, settings.options).get("backbone")
    usual = _asdict(FULL, {})["backbone"]
    return dict(settings.options) | ({"backbone": backbone} if backbone not in (None, usual) else {})


def row_model(protocol: Protocol) -> str:
    """The protocol's model, by the paper's name where only its backbone is another: those are the tables' own runs.

    >>> row_model(Protocol("clips", "group", Path("out"), TrainSettings(model="mobilenet_convgru_mcam_aff")))
    'sc_xception_convgru_mcam_aff'
    """
    model = protocol.settings.model
    named, paper = (_asdict(name, {}) | {"backbone": None} for name in (model, FULL))
    return FULL if named == paper else model


def weights_of(backbone: str | None, model: str, protocol: Protocol) -> str:
    """Which weights a backbone starts from: the file named for it, else those of the protocol.

    `--backbone-weights FILE` is of the protocol's own backbone; as soon as a file is named, a backbone without one
    starts from scratch. `imagenet` and `none` hold for all.

    >>> protocol = Protocol("clips", "group", Path("out"), weights={"inception_v3": "inception.pth"})
    >>> [weights_of(name, "", protocol) for name in ("inception_v3.tf_in1k", "legacy_xception")]
    ['inception.pth', 'none']
    """
    if backbone is None:
        return protocol.weights.get(model, "none")
    for name in (backbone, backbone.split(".")[0], model):
        if name in protocol.weights:
            return protocol.weights[name]
    general = protocol.settings.backbone_weights
    if general in ("imagenet", "none"):
        return "none" if general == "imagenet" and protocol.weights else general
    main = protocol_options(protocol).get("backbone") or _asdict(FULL, {})["backbone"]
    return general if backbone == main else "none"


def check_weights(protocol: Protocol, planned: Sequence[Planned]) -> None:
    """Raise UsageError where a weights file does not exist, or is for nothing that is run: now, not hours later."""
    models = {one.row.model for one in planned} | {one.settings.model for one in planned}
    backbones = {_asdict(one.settings.model, one.settings.options)["backbone"] for one in planned if not one.error}
    known = sorted(models | backbones | {name.split(".")[0] for name in backbones})
    for name in protocol.weights:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1) or known
            raise UsageError(f"--weights.{name}: no row has such a backbone or model: did you mean {', '.join(close)}?")
    given = {**protocol.weights, "backbone-weights": protocol.settings.backbone_weights}
    for name, value in given.items():
        if value not in ("imagenet", "none") and not Path(value).is_file():
            raise UsageError(f"{value}: no such weights file (given for {name}; a file, imagenet or none)")


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


def settings_words(settings: TrainSettings) -> list[str]:
    """The settings as words of a command: those that differ from the defaults of `kinegru train`.

    >>> settings_words(TrainSettings(options={"readout": "max"}, frames=16, augment=False))
    ['--options.readout', 'max', '--frames', '16', '--augment', 'false']
    """
    words: list[str] = []
    default = TrainSettings().to_dict()
    for name, value in settings.to_dict().items():
        if name == "options":
            for option, chosen in value.items():
                words += [f"--options.{option}", _word(chosen)]
        elif value != default[name] and (name not in FREE_TO_CHANGE or (name, value) == ("cache", "off")):
            words += [f"--{name.replace('_', '-')}", _word(value)]
    return words


def _whole(file: Path) -> bool:
    """Whether there is such a file, and it is JSON still."""
    try:
        return isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _word(value: Any) -> str:
    if isinstance(value, (bool, list, tuple, dict)) or value is None:
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _asdict(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a model, defaults included. Raises UsageError for what the model does not have."""
    return dataclasses.asdict(model_options(model, **options))


def _takes(model: str, options: Mapping[str, Any]) -> bool:
    model_options(model)  # an unknown model is not the option's fault
    try:
        model_options(model, **options)
    except UsageError:
        return False
    return True


def _excitation_notes(row: Row, chosen: Mapping[str, Any], settings: TrainSettings) -> list[str]:
    if chosen.get("excitation") == "none" and model_options(row.model).excitation != "none":
        stated = "excitation" in row.options
        return [] if stated else ["The protocol runs it without excitation."]
    if chosen.get("excitation", "none") != "none" and settings.profile == "head":
        return ["Profile head leaves the excitation at its start, the identity: this row cannot show what it does."]
    return []
