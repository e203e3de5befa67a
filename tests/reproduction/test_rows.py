"""Every row is a model that exists, rows that are the same share a run, and a command repeats exactly its settings."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from kinegru.cli import _complete_switches, make_parser
from kinegru.errors import UsageError
from kinegru.models.zoo import model_options
from kinegru.reproduction.paper_figures import REPORTED
from kinegru.reproduction.plan import plan_row
from kinegru.reproduction.protocol import Protocol, row_model
from kinegru.reproduction.results import with_imagenet
from kinegru.reproduction.rows import CHOICES, FULL, TABLES, choices_table, chosen_rows, compared_pairs, figures_table
from kinegru.runs.train import train
from kinegru.training.settings import TrainSettings

ROWS = [(table.key, row) for table in TABLES.values() for row in table.rows]


def protocol(tmp_path: Path = Path("out"), weights: dict[str, str] | None = None, **settings) -> Protocol:
    return Protocol("clips", "group", tmp_path, TrainSettings(**settings), weights=weights or {})


def planned(table: str, key: str, **changes):
    row = next(row for row in TABLES[table].rows if row.key == key)
    return plan_row(row, protocol(**changes))


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{table}-{row.key}" for table, row in ROWS])
def test_a_row_is_a_model_with_options_it_has(table, row):
    assert model_options(row.model, **row.options)
    assert plan_row(row, protocol()).error is None


def test_the_papers_figures_belong_to_rows():
    known = {(table, row.key) for table, row in ROWS} | {("figures", figures_table(FULL).rows[0].key)}
    assert REPORTED.keys() <= known
    assert all(0 < value < 100 for r in REPORTED.values() for value in (r.ucf101, r.hmdb51) if value is not None)
    assert all(figures.source for figures in REPORTED.values())


def test_rows_that_are_the_same_share_a_run():
    same = [("table1", "xception"), ("table2", "filters_40"), ("table4", "xception_convgru")]
    assert {planned(*row).slug for row in same} == {"xception_convgru"}
    assert planned(*same[0]).settings == planned(*same[1]).settings == planned(*same[2]).settings
    assert planned("table3", "ours").slug == planned("table4", "mcam_aff").slug == FULL
    slugs = [plan_row(row, protocol()).slug for _, row in ROWS]
    assert len(set(slugs)) == len(slugs) - 3  # all others differ
    wide = {"options": {"hidden_channels": 20}}  # a protocol with another width: "40 filters" is a row of its own then
    assert planned("table2", "filters_40", **wide).slug != planned("table1", "xception", **wide).slug


def test_the_protocols_options_reach_the_rows_that_have_them():
    options = {"projection": 64, "differences": True, "readout": "max"}
    lstm = planned("table4", "xception_lstm", options=options)
    assert lstm.settings.options == {"differences": True, "readout": "max"}
    assert any("projection 64" in note for note in lstm.notes)
    assert planned("table3", "lrcn", options=options).settings.options == {"readout": "mean", "differences": False}
    assert planned("table2", "filters_20", options=options).settings.options == {**options, "hidden_channels": 20}


def test_the_recipes_backbone_takes_xceptions_place_and_the_row_says_so():
    recipe = {"model": "mobilenet_convgru_mcam_aff"}
    row = planned("table4", "xception_lstm", **recipe)
    assert row.settings.options["backbone"] == "mobilenetv2_100"
    assert any("mobilenetv2_100 in place of legacy_xception" in note for note in row.notes)
    assert planned("table1", "inception_v3", **recipe).settings.options["backbone"] == "inception_v3.tf_in1k"
    assert planned("table3", "stc_resnet18", **recipe).settings.options["backbone"] == "stc_resnet18"


def test_figures_on_another_backbone_are_of_the_tables_run():
    recipe = protocol(model="mobilenet_convgru_mcam_aff")
    figures = plan_row(figures_table(row_model(recipe)).rows[0], recipe)
    full = planned("table4", "mcam_aff", model="mobilenet_convgru_mcam_aff")
    assert (figures.slug, figures.settings) == (full.slug, full.settings)
    assert row_model(protocol(model="xception_lstm")) == "xception_lstm"


def test_a_backbone_without_a_file_is_from_scratch_as_soon_as_a_file_is_given():
    assert planned("table1", "inception_v3").settings.backbone_weights == "imagenet"
    own = {"backbone_weights": "xception.safetensors"}
    assert planned("table1", "xception", **own).settings.backbone_weights == "xception.safetensors"
    scratch = planned("table1", "inception_v3", **own)
    assert (scratch.settings.backbone_weights, scratch.settings.profile) == ("none", "full")
    assert scratch.imagenet and any("no ImageNet weights here: it is trained whole" in note for note in scratch.notes)
    frozen = plan_row(scratch.row, dataclasses.replace(protocol(**own), scratch="frozen"))
    assert frozen.settings.profile == "tail" and any("frozen at random" in note for note in frozen.notes)
    named = planned("table1", "inception_v3", weights={"inception_v3": "timm.pth"}, **own)
    assert named.settings.backbone_weights == "timm.pth"
    control = planned("table1", "xception_scratch", **own)
    assert (control.settings.backbone_weights, control.slug) == ("none", "xception_convgru-scratch")


def test_a_lower_rate_for_the_encoder_spares_what_it_has_learnt_and_nothing_else():
    own = {"backbone_weights": "xception.safetensors", "encoder_rate": 0.1}
    assert planned("table1", "xception", **own).settings.encoder_rate == 0.1
    for table, key in (("table1", "inception_v3"), ("table1", "xception_scratch"), ("table3", "stc_resnet18")):
        row = planned(table, key, **own)
        assert row.settings.encoder_rate == 1.0 and any("learns at the full" in note for note in row.notes), key
    again = with_imagenet(planned("table1", "inception_v3", **own).row, protocol(**own), seed=0)
    assert (again.backbone_weights, again.encoder_rate, again.profile) == ("imagenet", 0.1, "tail")
    frozen = plan_row(planned("table1", "inception_v3").row, dataclasses.replace(protocol(**own), scratch="frozen"))
    assert frozen.settings.encoder_rate == 0.1


def test_an_excitation_that_cannot_show_is_named():
    assert any("cannot show" in note for note in planned("table4", "sc_xception", profile="head").notes)
    off = planned("table4", "sc_xception", options={"excitation": "none"})
    assert any("without excitation" in note for note in off.notes)
    assert not planned("table4", "sc_xception").notes


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{table}-{row.key}" for table, row in ROWS])
def test_the_printed_command_gives_exactly_the_rows_settings(table, row, tmp_path):
    weights = str(tmp_path / "some weights.safetensors")
    given = protocol(
        backbone_weights=weights, frames=16, size=160, learning_rate=5e-4, augment=False, validation=0.0,
        options={"differences": True, "projection": 128, "attention_kernels": [3, 5], "dropout": 0.3}, workers=0,
    )  # fmt: skip
    mine = plan_row(row, given).with_seed(2)
    words = shlex.split(given.command(mine, "runs/again"))
    assert words[:2] == ["kinegru", "train"]
    values = make_parser("train", train).parse_arguments(_complete_switches(words[2:], train))
    fields = {field.name for field in dataclasses.fields(TrainSettings)}
    again = TrainSettings(**{name: value for name, value in values.items() if name in fields})
    assert dataclasses.replace(again, workers=0) == mine


def test_choices_switch_one_default_at_a_time():
    baseline = dataclasses.asdict(model_options(FULL)) | {"excitation_place": "branch"}
    table = choices_table(FULL, baseline)
    assert table.rows[0].options == {}
    for row in table.rows[1:]:
        (option, value), *more = row.options.items()
        assert not more and value in CHOICES[option] and value != baseline[option]
    assert len(table.rows) == 1 + sum(len(values) - 1 for values in CHOICES.values())
    assert len({plan_row(row, protocol()).slug for row in table.rows}) == len(table.rows)
    keys = [row.key for row in table.rows]
    assert compared_pairs(table, keys) == [(key, "baseline") for key in keys[1:]]


def test_the_default_of_every_choice_is_the_models():
    options = dataclasses.asdict(model_options(FULL))
    assert all(options[name] in (*values, "auto") for name, values in CHOICES.items())


def test_rows_by_name_and_rows_that_run_only_on_request():
    assert "stc_resnet101" not in [row.key for row in chosen_rows(TABLES["table3"], None)]
    assert [row.key for row in chosen_rows(TABLES["table3"], ["stc_resnet101"])] == ["stc_resnet101"]
    with pytest.raises(UsageError, match=r"no row 'nonsense'; it has lrcn, .*"):
        chosen_rows(TABLES["table3"], ["nonsense"])


def test_neighbours_and_the_reference_are_compared_once():
    keys = [row.key for row in TABLES["table4"].rows]
    pairs = compared_pairs(TABLES["table4"], keys)
    assert pairs[: len(keys) - 1] == list(zip(keys[1:], keys[:-1], strict=True))
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert all("mcam_aff" in pair for pair in pairs[len(keys) - 1 :])
