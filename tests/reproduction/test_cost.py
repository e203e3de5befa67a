"""Multiplications and parameters are those of docs/model.md; an estimate counts shared features once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_runs import PATTERN, write_empty_clips, write_job

from kinegru.reproduction.cost import CostBook, Machine, ModelCost, count_cost, estimate
from kinegru.reproduction.plan import plan_jobs, plan_row
from kinegru.reproduction.protocol import Protocol
from kinegru.reproduction.rows import FULL, TABLES, chosen_rows
from kinegru.training.settings import TrainSettings


def test_the_papers_model_costs_what_is_published():
    cost = count_cost(TrainSettings(FULL, backbone_weights="none", frames=2), 101)
    assert cost.frozen_macs / 2 == pytest.approx(7.34e9, rel=0.01)  # the trunk, a frame at 299 pixels
    assert 1.01e9 < (cost.macs - cost.frozen_macs) / 2 < 1.4e9  # tail, ConvGRU and classifier
    assert cost.cached_values == 2 * 728 * 19 * 19
    assert cost.parameters - cost.trained_parameters == pytest.approx(14.02e6, rel=0.001)


def test_a_recurrence_is_counted_step_by_step():
    two, four = (
        count_cost(
            TrainSettings("xception_lstm", {"backbone": "xception_small"}, "none", "head", frames=frames, size=32), 2
        )
        for frames in (2, 4)
    )
    head = [cost.macs - cost.frozen_macs for cost in (two, four)]
    assert head[0] > 2 * 4 * 256 * 256 and head[1] - head[0] == pytest.approx(head[0], rel=0.05)


def test_profile_full_caches_nothing():
    options = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}
    cost = count_cost(TrainSettings(FULL, options, "none", "full", frames=2, size=32), 2)
    assert (cost.frozen_macs, cost.cached_values) == (0, 0)
    assert cost.parameters == cost.trained_parameters


class Book(CostBook):
    def of(self, planned):
        if planned.settings.profile == "full":
            return ModelCost(1000, 0, 10, 10, cached_values=0)
        return ModelCost(1000, 900, 10, 5, cached_values=64)


def test_an_estimate_counts_shared_features_once_and_then_goes_by_what_was_measured(tmp_path):
    catalog = write_empty_clips(tmp_path / "set", ("run", "walk"), ("ann", "bob", "cyd"))
    (tmp_path / "xception.pth").write_bytes(b"weights")
    settings = TrainSettings(backbone_weights=str(tmp_path / "xception.pth"), views=3, validation=0.0, epochs=10)
    protocol = Protocol("set", "leave-one-group-out", tmp_path / "out", settings, PATTERN)
    planned = [plan_row(row, protocol) for row in chosen_rows(TABLES["table4"], ["xception_lstm", "xception_gru"])]
    jobs = plan_jobs(planned, [0, 1], protocol, catalog)

    def now():
        return estimate(jobs, Book(Path("none"), 2), lambda: Machine(1000.0, 0.0), catalog, keep_models=False)

    before = now()
    fold = 100 * (10 * 3 * 4 + 2) / 1000  # epochs × (forward and backward) × 4 clips, and 2 tests
    features = 6 * 4 * 900 / 1000  # clips × (1 + 3 views), for all four jobs together
    assert before.seconds == pytest.approx(4 * 3 * (fold + 5) + features)
    assert before.cache_bytes == 6 * 4 * 64 * 2 and not before.measured
    write_job(jobs[0], catalog, lambda job, name: True, seconds=25.0)
    after = now()
    assert after.measured and after.by_job[jobs[0].folder] == 0
    assert after.by_job[jobs[2].folder] == pytest.approx(3 * 30)  # the same row: as long as it took
    assert after.by_job[jobs[1].folder] == pytest.approx(3 * 30)  # another row: guessed, to the same scale
    assert after.cache_bytes == 0


def test_a_fold_that_filled_the_cache_is_no_measure_of_other_folds_or_of_rows_without_a_cache(tmp_path):
    catalog = write_empty_clips(tmp_path / "set", ("run", "walk"), ("ann", "bob", "cyd"))
    (tmp_path / "xception.pth").write_bytes(b"weights")
    weights = str(tmp_path / "xception.pth")
    settings = TrainSettings(backbone_weights=weights, profile="head", views=3, validation=0.0, epochs=10)
    protocol = Protocol("set", "leave-one-group-out", tmp_path / "out", settings, PATTERN)
    rows = chosen_rows(TABLES["table3"], ["lrcn", "stc_resnet18", "stam"])
    jobs = plan_jobs([plan_row(row, protocol) for row in rows], [0], protocol, catalog)

    def seconds_left():
        found = estimate(jobs, Book(Path("none"), 2), lambda: Machine(1000.0, 0.0), catalog, keep_models=False)
        return [found.by_job[job.folder] for job in jobs]

    _, whole, _ = seconds_left()
    write_job(jobs[0], catalog, lambda job, name: True, seconds=25.0)
    path = jobs[0].fold_folder(jobs[0].folds[0]) / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["context"]["seconds"] = 10_000.0
    path.write_text(json.dumps(metrics))
    assert seconds_left() == [0, whole, pytest.approx(3 * 30)]


def test_costs_are_remembered_and_what_cannot_be_built_is_named(tmp_path, monkeypatch):
    settings = TrainSettings(options={"backbone": "xception_small"}, frames=2, size=32, backbone_weights="none")
    protocol = Protocol("set", "group", tmp_path, settings)
    planned = plan_row(chosen_rows(TABLES["table4"], ["xception_gru"])[0], protocol)
    counted = CostBook(tmp_path / "costs.json", 2).of(planned)
    monkeypatch.setattr("kinegru.reproduction.cost.count_cost", lambda *_: pytest.fail("counted again"))
    assert CostBook(tmp_path / "costs.json", 2).of(planned) == counted
    monkeypatch.undo()
    broken = plan_row(chosen_rows(TABLES["table1"], ["inception_v3"])[0], protocol)
    book = CostBook(tmp_path / "costs.json", 2, keep=False)
    assert book.of(broken) is None and "size" in book.errors[broken.slug]
