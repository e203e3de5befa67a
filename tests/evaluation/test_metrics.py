"""Every measure against a value worked out by hand or by an independent, slow computation."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import DataError
from kinegru.evaluation.intervals import bootstrap_intervals, wilson_interval
from kinegru.evaluation.metrics import compute_metrics
from kinegru.evaluation.predictions import Predictions
from kinegru.evaluation.reliability import reliability


def make(labels: list, scores: list, classes: str = "abc", groups: list | None = None, **more: object) -> Predictions:
    clips = [f"{number}.mp4" for number in range(len(labels))]
    return Predictions(list(classes), clips, labels, groups or [None] * len(labels), scores, **more)


# True a a a b b c; predicted a a b b c c. Scores chosen by hand.
HAND = make(
    ["a", "a", "a", "b", "b", "c"],
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.1, 0.4, 0.5], [0.2, 0.2, 0.6]],
)


def test_measures_equal_those_worked_out_by_hand() -> None:
    m = compute_metrics(HAND)
    assert (m.clips, m.right, m.top1) == (6, 4, 4 / 6)
    assert m.confusion_matrix == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert m.mean_class_accuracy == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert m.majority == 0.5
    assert [(row.label, row.support, row.predicted) for row in m.per_class] == [("a", 3, 2), ("b", 2, 2), ("c", 1, 2)]
    assert [row.precision for row in m.per_class] == pytest.approx([1, 1 / 2, 1 / 2])
    assert [row.recall for row in m.per_class] == pytest.approx([2 / 3, 1 / 2, 1])
    assert [row.f1 for row in m.per_class] == pytest.approx([4 / 5, 1 / 2, 2 / 3])
    assert m.log_loss == pytest.approx(-sum(map(math.log, (0.8, 0.6, 0.2, 0.9, 0.4, 0.6))) / 6, rel=1e-6)
    assert [(row.true, row.predicted, row.count) for row in m.confusions] == [("a", "b", 1), ("b", "c", 1)]
    assert [row.share for row in m.confusions] == pytest.approx([1 / 3, 1 / 2])
    # bins of 1/15: 0.5 wrong; 0.6 twice right; 0.7 wrong; 0.8 right; 0.9 right
    assert m.calibration_error == pytest.approx((0.5 + 0.7 + 2 * 0.4 + 0.2 + 0.1) / 6, abs=1e-6)


def test_worst_clips_are_sure_errors_first_then_unsure_hits() -> None:
    worst = compute_metrics(HAND, worst=4).worst
    assert [(row.clip, row.correct) for row in worst] == [
        ("2.mp4", False),
        ("4.mp4", False),
        ("1.mp4", True),
        ("5.mp4", True),
    ]
    assert (worst[0].label, worst[0].predicted) == ("a", "b")
    assert (worst[0].confidence, worst[0].label_score) == pytest.approx((0.7, 0.2))


def test_top5_counts_the_five_best_and_all_classes_where_there_are_fewer() -> None:
    scores = [[0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]] * 7  # class a best, g last
    m = compute_metrics(make(list("abcdefg"), scores, "abcdefg"))
    assert (m.top1, m.top5, m.top5_of) == (1 / 7, 5 / 7, 5)
    m = compute_metrics(make(list("ab"), [[0.9, 0.1]] * 2, "ab"))
    assert (m.top1, m.top5, m.top5_of) == (0.5, 1.0, 2)


def test_equal_scores_go_to_the_first_class_in_top1_and_top5_alike() -> None:
    m = compute_metrics(make(list("abcdefgh"), [[1 / 8] * 8] * 8, "abcdefgh"))
    assert (m.top1, m.top5) == (1 / 8, 5 / 8)


@pytest.mark.parametrize(("hit", "top1", "wilson"), [(True, 1.0, (0.7224672, 1.0)), (False, 0.0, (0.0, 0.2775328))])
def test_all_right_and_all_wrong(hit: bool, top1: float, wilson: tuple) -> None:
    labels = ["a", "b"] * 5
    scores = [[0.9, 0.1] if (label == "a") == hit else [0.1, 0.9] for label in labels]
    m = compute_metrics(make(labels, scores, "ab"))
    assert m.top1 == m.mean_class_accuracy == top1
    assert (m.wilson.low, m.wilson.high) == pytest.approx(wilson, abs=1e-6)
    assert (m.bootstrap.low, m.bootstrap.high) == (top1, top1)
    assert len(m.confusions) == (0 if hit else 2)
    assert m.calibration_error == pytest.approx(0.1 if hit else 0.9, abs=1e-6)


def test_one_clip_of_one_class_is_measured() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = compute_metrics(make(["a"], [[1.0]], "a", groups=["ann"]))
    assert (m.top1, m.top5, m.log_loss, m.calibration_error) == (1, 1, 0, 0)
    assert (m.bootstrap.unit, m.bootstrap.units) == ("clip", 1)
    assert [(part.name, part.clips, part.right) for part in m.groups] == [("ann", 1, 1)]


def test_classes_without_test_clips_count_for_nothing_and_nothing_is_nan() -> None:
    m = compute_metrics(make(["a", "a"], [[0.9, 0.1, 0.0], [0.4, 0.6, 0.0]]))
    assert m.mean_class_accuracy == 0.5  # of class a alone
    absent, never = m.per_class[1], m.per_class[2]
    assert (absent.support, absent.recall, absent.predicted, absent.precision) == (0, 0, 1, 0)
    assert (never.support, never.predicted, never.precision, never.f1) == (0, 0, 0, 0)
    assert "NaN" not in json.dumps(m.to_dict())


def test_clips_without_a_label_are_counted_and_left_out() -> None:
    table = make(["a", None, "b"], [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], "ab")
    m = compute_metrics(table)
    assert (m.clips, m.unlabelled, m.right) == (2, 1, 1)
    with pytest.raises(DataError, match="none of the 1 predicted clips has a label"):
        compute_metrics(make([None], [[0.9, 0.1]], "ab"))


def test_folds_are_pooled_not_averaged() -> None:
    one = make(["a"], [[0.9, 0.1]], "ab")  # 1 of 1
    two = make(["a", "a", "b"], [[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]], "ab")  # 1 of 3
    m = compute_metrics(Predictions.concatenate([one, two], folds=["1", "2"]))
    assert m.top1 == 2 / 4
    assert [(fold.name, fold.clips, fold.right) for fold in m.folds] == [("1", 1, 1), ("2", 3, 1)]
    assert (m.clips, m.distinct_clips) == (4, 3)  # "0.mp4" was tested in both


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_any_table_agrees_with_a_slow_count(classes: int, clips: int, seed: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    names = [f"c{k}" for k in range(classes)]
    scores = rng.dirichlet(np.ones(classes), size=clips).astype(np.float32)
    labels = [names[k] for k in rng.integers(0, classes, clips)]
    groups = [f"g{g}" if grouped else None for g in rng.integers(0, 5, clips)]
    m = compute_metrics(make(labels, scores, names, groups), bootstrap=50)

    hits = ranked = 0
    matrix = [[0] * classes for _ in names]
    for label, row in zip(labels, scores.tolist(), strict=True):
        order = sorted(range(classes), key=lambda k: -row[k])
        hits += names[order[0]] == label
        ranked += label in [names[k] for k in order[:5]]
        matrix[names.index(label)][order[0]] += 1
    assert (m.right, m.top1, m.top5) == (hits, hits / clips, ranked / clips)
    assert m.confusion_matrix == matrix
    assert sum(map(sum, m.confusion_matrix)) == clips == m.right + sum(row.count for row in m.confusions)
    recalls = [matrix[k][k] / sum(matrix[k]) for k in range(classes) if sum(matrix[k])]
    assert m.mean_class_accuracy == pytest.approx(sum(recalls) / len(recalls))
    for k, row in enumerate(m.per_class):
        column = sum(matrix[t][k] for t in range(classes))
        assert (row.support, row.predicted) == (sum(matrix[k]), column)
        assert row.recall == pytest.approx(matrix[k][k] / max(1, row.support))
        assert row.precision == pytest.approx(matrix[k][k] / max(1, column))
    assert sum(row.count for row in m.reliability) == clips
    assert 0 <= m.wilson.low <= m.top1 <= m.wilson.high <= 1
    assert 0 <= m.bootstrap.low <= m.bootstrap.high <= 1
    assert m.bootstrap.unit == ("group" if grouped and len(set(groups)) > 1 else "clip")
    assert [row.correct for row in m.worst] == sorted(row.correct for row in m.worst)
    if grouped:
        assert (sum(g.clips for g in m.groups), sum(g.right for g in m.groups)) == (clips, hits)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(deadline=None)
def test_wilson_ends_solve_its_equation(counts: tuple[int, int]) -> None:
    right, total = counts
    interval = wilson_interval(right, total)
    share, z = right / total, 1.959963984540054
    for end in (interval.low, interval.high):  # the ends are where |share - p| = z sqrt(p (1 - p) / n)
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / total), abs=1e-9)
    assert 0 <= interval.low <= share <= interval.high <= 1


def test_wilson_of_a_published_example() -> None:
    interval = wilson_interval(81, 263)  # Newcombe, Statistics in Medicine 1998, table I: 0.2553 to 0.3662
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        correct = rng.random(120) < 0.8
        top1, _ = bootstrap_intervals(correct, np.zeros(120, dtype=int), resamples=300, seed=trial)
        covered += top1.low <= 0.8 <= top1.high
    assert 0.90 <= covered / 200 <= 0.99


def test_bootstrap_by_group_covers_where_clips_of_a_group_fail_together() -> None:
    rng, by_group, by_clip = np.random.default_rng(0), 0, 0
    groups = [str(number // 10) for number in range(300)]  # 30 groups of 10 clips, right or wrong as one
    truth = np.zeros(300, dtype=int)
    for trial in range(100):
        correct = np.repeat(rng.random(30) < 0.7, 10)
        one, _ = bootstrap_intervals(correct, truth, groups, resamples=200, seed=trial)
        two, _ = bootstrap_intervals(correct, truth, None, resamples=200, seed=trial)
        by_group += one.low <= 0.7 <= one.high
        by_clip += two.low <= 0.7 <= two.high
    assert by_group / 100 >= 0.88 and by_clip / 100 <= 0.6


def test_bootstrap_by_group_equals_drawing_groups_one_by_one() -> None:
    rng = np.random.default_rng(3)
    groups, truth = rng.integers(0, 8, 100), rng.integers(0, 3, 100)
    correct = rng.random(100) < 0.4 + 0.07 * groups
    top1, mean_class = bootstrap_intervals(correct, truth, [f"g{g}" for g in groups], resamples=4000, seed=1)
    slow, slow_mean = [], []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 8, 8)])
        slow.append(correct[rows].mean())
        slow_mean.append(np.mean([correct[rows][truth[rows] == k].mean() for k in np.unique(truth[rows])]))
    assert (top1.low, top1.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.012)
    assert (mean_class.low, mean_class.high) == pytest.approx(tuple(np.quantile(slow_mean, [0.025, 0.975])), abs=0.012)


def test_same_seed_same_interval() -> None:
    correct, truth = np.random.default_rng(0).random(50) < 0.6, np.zeros(50, dtype=int)
    one, two, other = (bootstrap_intervals(correct, truth, resamples=40, seed=seed)[0] for seed in (5, 5, 6))
    assert one == two != other


def test_calibrated_scores_have_a_small_error_and_sure_guesses_a_large_one() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 40000)
    right = rng.random(40000) < sure
    assert reliability(sure, right)[1] < 0.02
    assert reliability(np.full(40000, 1.0), right)[1] == pytest.approx(0.25, abs=0.01)


def test_bins_are_open_below_and_closed_above() -> None:
    table, _ = reliability(np.array([1 / 15, 1 / 15 + 1e-9, 1.0]), np.array([True, True, False]))
    assert [row.count for row in table] == [1, 1, 1]
    assert [round(15 * row.high) for row in table] == [1, 2, 15]
