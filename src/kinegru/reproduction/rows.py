"""What stands in each of the paper's tables: rows of a model's name and the options that make the row.

Everything else (frames, pixels, epochs, rates, what is trained) is the protocol, one for all rows of a table. Rows of
different tables that mean the same model are the same run: 40 filters, "+ ConvGRU" and "Xception" are one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kinegru.errors import UsageError

FULL = "sc_xception_convgru_mcam_aff"  # the paper's model


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    key: str  # what --rows calls it
    name: str  # what the table prints
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)  # what makes the row; they win over the protocol's
    note: str = ""  # what a reader must know
    control: bool = False  # not in the paper
    profile: Literal["full"] | None = None  # where the model allows only this one
    weights: str | None = None  # "none": from scratch, whatever weights are given
    on_request: bool = False  # run only if --rows names it
    split: str | None = None  # instead of the protocol's


@dataclass(frozen=True)
class Table:
    """The rows of one table, in the paper's order, and what it claims."""

    key: str
    title: str
    claim: str
    rows: tuple[Row, ...]
    reference: str | None = None  # the row that all others are compared with, besides their neighbours
    neighbours: bool = True  # whether each row is compared with the one before it


_LINEAR = "One linear layer behind the ConvGRU (the paper's Softmax layer)."
_SCRATCH = "Xception without ImageNet weights: what an Inception row without weights can be compared with."
_TWO_STREAM = "Simonyan and Zisserman, NeurIPS 2014. The paper lists two-stream twice."

TABLE1 = Table(
    "table1",
    "Table 1: the frame encoder",
    "Xception is better than two Inceptions before the same ConvGRU.",
    (
        Row("inception_v3", "InceptionV3 + ConvGRU", "inception_v3_convgru",
            {"backbone": "inception_v3.tf_in1k"}, f"{_LINEAR} The encoder is trunk as a whole."),
        Row("inception_resnet_v2", "Inception-ResNet-v2 + ConvGRU", "inception_resnet_v2_convgru",
            {"backbone": "inception_resnet_v2"}, f"{_LINEAR} The encoder is trunk as a whole."),
        Row("xception", "Xception + ConvGRU", "xception_convgru", {}, _LINEAR),
        Row("xception_scratch", "Xception + ConvGRU, from scratch", "xception_convgru", {}, _SCRATCH,
            control=True, weights="none", on_request=True),
    ),
    reference="xception",
)  # fmt: skip

TABLE2 = Table(
    "table2",
    "Table 2: filters of the ConvGRU",
    "40 filters are best.",
    tuple(
        Row(f"filters_{n}", f"{n} filters", "xception_convgru", {"hidden_channels": n}, _LINEAR)
        for n in (20, 30, 40, 50)
    ),
    reference="filters_40",
)

TABLE3 = Table(
    "table3",
    "Table 3: other methods",
    "The method is better than six others.",
    (
        Row("lrcn", "LRCN", "lrcn", {"readout": "mean", "differences": False},
            "Donahue et al., CVPR 2015: frame CNN, LSTM, mean of step scores. RGB alone."),
        Row("two_stream_spatial", "Two-stream, spatial", "two_stream", {"streams": "rgb"}, _TWO_STREAM),
        Row("two_stream_temporal", "Two-stream, temporal", "two_stream", {"streams": "flow"}, _TWO_STREAM),
        Row("two_stream", "Two-stream, fused", "two_stream", {"streams": "rgb+flow"}, _TWO_STREAM),
        Row("stc_resnet18", "STC-ResNet18", "stc_resnet18", {"backbone": "stc_resnet18"},
            "Diba et al., ECCV 2018, at depth 18. Trained whole (profile full), from scratch: it has no frame encoder.",
            profile="full", weights="none"),
        Row("stc_resnet101", "STC-ResNet101", "stc_resnet101", {"backbone": "stc_resnet101"},
            "Diba et al., ECCV 2018, the paper's row: built and tested by shapes, run only where --rows asks for it. "
            "Trained whole (profile full), from scratch.", profile="full", weights="none", on_request=True),
        Row("sts", "STS", "sts", {"streams": "rgb+flow+saliency"},
            "Probably Liu et al., 2020: RGB, flow and saliency streams."),
        Row("stam", "STAM", "stam", {}, "Spatial gate and temporal attention; our reading of an unsettled name."),
        Row("tsn", "TSN, RGB", "tsn_xception", {}, "Wang et al., ECCV 2016: mean of frame scores. No order in it.",
            control=True),
        Row("ours_flow", "The paper's model over flow", FULL, {"streams": "flow"}, "Optical flow in the place of RGB.",
            control=True),
        Row("ours_energy", "The paper's model over motion energy", FULL, {"streams": "energy"},
            "How fast something moves against the camera, in the place of RGB.", control=True),
        Row("ours", "The paper's model", FULL, {}, ""),
    ),
    reference="ours",
)  # fmt: skip

TABLE4 = Table(
    "table4",
    "Table 4: what every module adds",
    "Every module helps.",
    (
        Row("xception_lstm", "Xception + LSTM", "xception_lstm", {}, "LSTM on pooled maps, one linear layer."),
        Row("xception_gru", "Xception + GRU", "xception_gru", {},
            "Separates GRU for LSTM from convolution for full connection.", control=True),
        Row("xception_convgru", "Xception + ConvGRU", "xception_convgru", {}, _LINEAR),
        Row("sc_xception", "SC-Xception + ConvGRU", "sc_xception_convgru", {},
            "Excitation, and two fully connected layers in a row: from here on only their join changes."),
        Row("add", "+ add", "sc_xception_convgru", {"classifier": "add"},
            "The two layers added: a skip without attention.", control=True),
        Row("aff", "+ AFF", "sc_xception_convgru_aff", {}, "Joined by AFF with MS-CAM."),
        Row("mcam_aff", "+ MCAM-AFF (the paper's model)", FULL, {}, "Joined by AFF with MCAM."),
    ),
    reference="mcam_aff",
)  # fmt: skip

TABLES = {table.key: table for table in (TABLE1, TABLE2, TABLE3, TABLE4)}

CHOICES: dict[str, tuple[Any, ...]] = {  # option -> its readings; docs/model.md says which one is the default
    "excitation": ("parallel", "serial", "ste", "ce", "none"),
    "excitation_place": ("branch", "block"),
    "excitation_rescale": (True, False),
    "readout": ("last", "mean", "max"),
    "variant": ("reset_after", "reset_before"),
    "classifier_on": ("maps", "vectors"),
    "aff_scale": (1.0, 2.0),
    "attention_global": ("pooled_local", "separate"),
}


def choices_table(model: str, baseline: Mapping[str, Any]) -> Table:
    """One row a reading that differs from the `baseline` (all options of the model as the protocol has them).

    Without an excitation its place and scale mean nothing, and are left out.

    >>> table = choices_table(FULL, {name: values[0] for name, values in CHOICES.items()})
    >>> len(table.rows), table.rows[0].key, table.rows[-1].options
    (13, 'baseline', {'attention_global': 'separate'})
    """
    rows = [Row("baseline", "The paper's model as the protocol has it", model)]
    for option, values in CHOICES.items():
        if option in ("excitation_place", "excitation_rescale") and baseline["excitation"] == "none":
            continue
        for value in values:
            if value != baseline[option]:
                word = f"{value:g}" if isinstance(value, float) else str(value).lower()
                name = f"{option.replace('_', ' ')}: {word}"
                rows.append(Row(f"{option}_{word}", name, model, {option: value}, f"Instead of {baseline[option]}."))
    claim = "Each default of the model is compared with its other readings, one at a time."
    return Table("choices", "Choices the paper leaves open", claim, tuple(rows), "baseline", neighbours=False)


def leak_table(model: str) -> Table:
    """The model split by whole groups and by single clips: the difference is what siblings in training are worth.

    >>> [row.split for row in leak_table(FULL).rows]
    ['group', 'random']
    """
    rows = (
        Row("by_group", "Whole groups (new sources)", model, {}, "3:1, no test clip has a sibling in training.",
            split="group"),
        Row("by_clip", "Single clips, at random", model, {}, "3:1, as the paper splits.", split="random"),
    )  # fmt: skip
    return Table("leak", "The leak: random clips against whole groups", "", rows, None, neighbours=False)


def figures_table(model: str) -> Table:
    """The one row that figures 9 to 11 are drawn from.

    >>> figures_table(FULL).rows[0].key
    'ours'
    """
    return Table("figures", "Figures 9 to 11", "", (Row("ours", "The paper's model", model),), None)


def chosen_rows(table: Table, keys: list[str] | None) -> tuple[Row, ...]:
    """The rows to run: those named, else all that need no asking. Raises UsageError for an unknown name.

    >>> [row.key for row in chosen_rows(TABLES["table1"], None)]
    ['inception_v3', 'inception_resnet_v2', 'xception']
    """
    known = {row.key: row for row in table.rows}
    for key in keys or []:
        if key not in known:
            raise UsageError(f"{table.key} has no row {key!r}; it has {', '.join(known)}")
    return tuple(row for row in table.rows if (row.key in keys if keys else not row.on_request))


def compared_pairs(table: Table, keys: list[str]) -> list[tuple[str, str]]:
    """Which of the rows at hand are compared: each with the one before it, and with the table's reference.

    >>> compared_pairs(TABLES["table2"], ["filters_20", "filters_30", "filters_40"])
    [('filters_30', 'filters_20'), ('filters_40', 'filters_30'), ('filters_40', 'filters_20')]
    """
    pairs = [(later, earlier) for earlier, later in itertools.pairwise(keys)] if table.neighbours else []
    if table.reference in keys:
        reference = str(table.reference)
        order = (reference, None) if table.neighbours else (None, reference)
        for key in keys:
            pair = (order[0] or key, order[1] or key)
            if key != reference and pair not in pairs and pair[::-1] not in pairs:
                pairs.append(pair)
    return pairs
