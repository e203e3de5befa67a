"""A row of a table is counted from its predictions: recounted here with other means."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from kinegru.errors import DataError
from kinegru.evaluation.intervals import wilson_interval
from kinegru.evaluation.predictions import Predictions
from kinegru.evaluation.tables import score_row

CLASSES = ["bend", "jack", "jump", "run", "side", "walk"]


def random_table(seed: int, clips: int = 40, folds: int = 4) -> Predictions:
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(len(CLASSES)) * 0.5, clips)
    labels = rng.choice(CLASSES, clips).tolist()
    names = [f"fold {i % folds}" for i in range(clips)] if folds > 1 else []
    return Predictions(CLASSES, [f"c{i}" for i in range(clips)], labels, [None] * clips, scores, names)


def test_a_row_is_what_its_predictions_say():
    tables = {seed: random_table(seed) for seed in (0, 1, 2)}
    row = score_row(tables)
    shares, fold_spreads, top5 = [], [], []
    for table in tables.values():
        hits = [CLASSES[int(np.argmax(s))] == label for s, label in zip(table.scores, table.labels, strict=True)]
        shares.append(sum(hits) / 40)
        by_fold = [[hit for hit, fold in zip(hits, table.folds, strict=True) if fold == f"fold {f}"] for f in range(4)]
        fold_spreads.append(statistics.stdev(sum(fold) / len(fold) for fold in by_fold))
        top5.append(sum(CLASSES[int(np.argmin(s))] != y for s, y in zip(table.scores, table.labels, strict=True)) / 40)
    assert row.top1 == pytest.approx(statistics.mean(shares))
    assert row.top1_spread == pytest.approx(statistics.stdev(shares))
    assert row.fold_spread == pytest.approx(statistics.mean(fold_spreads))
    assert row.top5 == pytest.approx(statistics.mean(top5))
    assert [seed.right for seed in row.seeds] == [round(40 * share) for share in shares]
    assert (row.clips, row.folds) == (40, 4)


def test_more_seeds_do_not_narrow_the_interval():
    table = random_table(0)
    one, three = score_row({0: table}), score_row({0: table, 1: table, 2: table})
    assert one.wilson == three.wilson == wilson_interval(one.seeds[0].right, 40)
    assert (one.top1_spread, three.top1_spread) == (None, 0)


def test_one_fold_has_no_spread_over_folds_and_five_classes_no_top5():
    assert score_row({0: random_table(0, folds=1)}).fold_spread is None
    two = Predictions(["run", "walk"], ["a"], ["run"], [None], [[0.9, 0.1]])
    assert score_row({0: two}).top5 is None


def test_the_mean_of_folds_weighs_each_fold_alike():
    one, many = random_table(0, 10, folds=1), random_table(1, 30, folds=1)
    table = Predictions.concatenate([one, many], folds=["official:1", "official:2"])
    shares = [score_row({0: part}).top1 for part in (one, many)]
    row = score_row({0: table})
    assert row.fold_mean == pytest.approx(statistics.mean(shares))
    assert abs(row.fold_mean - row.top1) > 0.01
    assert score_row({0: one}).fold_mean is None


def test_test_sets_of_different_sizes_are_named_one_by_one():
    words = score_row({0: random_table(0, 40), 1: random_table(1, 20)}).right_in_words()
    assert words.count(" of ") == 2 and words.endswith("of 20")


def test_no_seed_is_no_row():
    with pytest.raises(DataError):
        score_row({})


def test_a_clip_that_several_folds_test_counts_once_for_the_interval():
    once = random_table(0)
    twice = Predictions.concatenate([once, once], folds=["official:1", "official:2"])
    row, alone = score_row({0: twice}), score_row({0: once})
    assert (row.clips, row.top1) == (80, alone.top1)
    assert (row.wilson.low, row.wilson.high) == pytest.approx((alone.wilson.low, alone.wilson.high))
