"""From a table and one protocol to jobs: a row's settings under the protocol, its weights, and its name for folders.

Notable:
* The protocol is one `TrainSettings` for all rows; a row changes the model, its options and what they force.
* Options of the protocol that a model does not have (a projection before an LSTM) are left out, and the row says so.
* A backbone without weights here is run all the same, and the row says how.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kinegru.data.catalog import Catalog
from kinegru.data.splits import digest_of_splits, make_splits
from kinegru.errors import KineGRUError, UsageError
from kinegru.models.backbones import import_timm
from kinegru.models.zoo import list_models, model_options
from kinegru.reproduction.job import Job, Planned, data_digest, job_identity
from kinegru.reproduction.protocol import Protocol, all_options, as_word, protocol_options
from kinegru.reproduction.rows import FULL, Row
from kinegru.training.settings import TrainSettings


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
            notes.append(f"The protocol says {name} {as_word(value)}, which this model does not have.")
    plain = all_options(row.model, common)
    options = common | {name: value for name, value in row.options.items() if value != plain.get(name)}
    chosen = all_options(row.model, options)  # what a row says and the model is anyway makes no run of its own
    backbone = chosen.get("backbone")
    weights = row.weights or weights_of(backbone, row.model, protocol)
    settings = dataclasses.replace(
        protocol.settings, model=row.model, options=options, backbone_weights=weights, seed=0,
        profile=row.profile or protocol.settings.profile,
    )  # fmt: skip
    scratch = weights == "none" and row.profile is None
    if scratch and protocol.scratch == "trained":
        settings = dataclasses.replace(settings, profile="full")
    if weights == "none" and settings.profile == "full" and settings.encoder_rate != 1:
        settings = dataclasses.replace(settings, encoder_rate=1.0)  # a lower one spares what was learnt before
        notes.append("Its encoder has learnt nothing that a lower rate would spare, and learns at the full one.")
    if scratch and backbone:
        how = "trained whole from random weights" if settings.profile == "full" else "frozen at random weights"
        notes.append(f"{backbone} has no ImageNet weights here: it is {how}.")
    if backbone != (usual := all_options(row.model, {})["backbone"]) and "backbone" not in row.options:
        notes.append(f"Here on {backbone} in place of {usual}.")
    notes += _excitation_notes(row, chosen, settings)
    changed = {name: value for name, value in chosen.items() if value != plain.get(name)}
    parts = [
        row.model,
        *([row.split] if row.split else []),
        *(f"{name}-{as_word(value)}" for name, value in sorted(changed.items())),
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
    main = protocol_options(protocol).get("backbone") or all_options(FULL, {})["backbone"]
    return general if backbone == main else "none"


def check_weights(protocol: Protocol, planned: Sequence[Planned]) -> None:
    """Raise UsageError where a weights file does not exist, or is for a backbone that does not: now, not hours later.

    One for a backbone that none of the `planned` rows has is no mistake: rows may be left out.
    """
    rows = {all_options(one.settings.model, one.settings.options)["backbone"] for one in planned if not one.error}
    here = sorted({*list_models(), *rows, *(name.split(".")[0] for name in rows)})
    for name in protocol.weights:
        if name not in here and not import_timm().is_model(name.split(".")[0]):
            close = difflib.get_close_matches(name, here, n=1) or here
            raise UsageError(f"--weights.{name}: no such backbone or model: did you mean {', '.join(close)}?")
    given = {**protocol.weights, "backbone-weights": protocol.settings.backbone_weights}
    for name, value in given.items():
        if value not in ("imagenet", "none") and not Path(value).is_file():
            raise UsageError(f"{value}: no such weights file (given for {name}; a file, imagenet or none)")


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
