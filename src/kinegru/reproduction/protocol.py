"""The protocol: one set of data, split, settings and weights for all rows of a table, and how it reads as a command."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kinegru.models.zoo import model_options
from kinegru.reproduction.rows import FULL, Row
from kinegru.runs.train import FREE_TO_CHANGE
from kinegru.training.settings import TrainSettings

Scratch = Literal["trained", "frozen"]


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


def protocol_options(protocol: Protocol) -> dict[str, Any]:
    """The protocol's model options; the backbone of its model, where that is not the paper's, is one for all rows."""
    settings = protocol.settings
    backbone = all_options(settings.model, settings.options).get("backbone")
    usual = all_options(FULL, {})["backbone"]
    return dict(settings.options) | ({"backbone": backbone} if backbone not in (None, usual) else {})


def row_model(protocol: Protocol) -> str:
    """The protocol's model, by the paper's name where only its backbone is another: those are the tables' own runs.

    >>> row_model(Protocol("clips", "group", Path("out"), TrainSettings(model="mobilenet_convgru_mcam_aff")))
    'sc_xception_convgru_mcam_aff'
    """
    model = protocol.settings.model
    named, paper = (all_options(name, {}) | {"backbone": None} for name in (model, FULL))
    return FULL if named == paper else model


def all_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a model, defaults included. Raises UsageError for what the model does not have."""
    return dataclasses.asdict(model_options(model, **options))


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
                words += [f"--options.{option}", as_word(chosen)]
        elif value != default[name] and (name not in FREE_TO_CHANGE or (name, value) == ("cache", "off")):
            words += [f"--{name.replace('_', '-')}", as_word(value)]
    return words


def as_word(value: Any) -> str:
    """A setting's value as it is written on a command line."""
    if isinstance(value, (bool, list, tuple, dict)) or value is None:
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
