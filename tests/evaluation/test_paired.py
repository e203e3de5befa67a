"""McNemar's test against counts worked out by hand, scipy and brute force; several seeds never fake more clips."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from kinegru.errors import DataError
from kinegru.evaluation.paired import compare, mcnemar, sign_flip_p
from kinegru.evaluation.predictions import Predictions


def table(right: list[bool], groups: list[str] | None = None, folds: list[str] | None = None, first: int = 0):
    """Predictions of clips c0, c1, ... of which these are right."""
    clips = [f"c{first + i}" for i in range(len(right))]
    scores = [[0.9, 0.1] if hit else [0.1, 0.9] for hit in right]
    known: list[str | None] = list(groups) if groups else [None] * len(right)
    return Predictions(["run", "walk"], clips, ["run"] * len(right), known, np.array(scores), folds or [])


def test_counts_and_p_by_hand():
    # 3 clips right by both, 5 by the first alone, 1 by the second alone, 1 by neither
    first = table([True] * 3 + [True] * 5 + [False] * 1 + [False])
    second = table([True] * 3 + [False] * 5 + [True] * 1 + [False])
    test = mcnemar(first, second)
    assert (test.clips, test.first_only, test.second_only) == (10, 5, 1)
    assert test.p == pytest.approx(2 * (comb(6, 0) + comb(6, 1)) / 2**6)  # 14/64: 5 : 1 or more lopsided, both ways


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
@settings(deadline=None, max_examples=30)
def test_one_seed_is_the_exact_binomial_test(outcomes):
    first, second = table([a for a, _ in outcomes]), table([b for _, b in outcomes])
    one, other = sum(a > b for a, b in outcomes), sum(b > a for a, b in outcomes)
    expected = binomtest(one, one + other, 0.5).pvalue if one + other else 1.0
    assert mcnemar(first, second).p == pytest.approx(expected)
    joined = compare([first], [second])
    assert joined.p == pytest.approx(expected)
    assert joined.difference == pytest.approx((one - other) / len(outcomes))
    assert mcnemar(second, first).p == pytest.approx(mcnemar(first, second).p)


@given(st.lists(st.integers(-4, 4), max_size=9))
@settings(deadline=None, max_examples=40)
def test_sign_flips_are_all_counted(differences):
    sums = [sum(pattern) for pattern in itertools.product(*((d, -d) for d in differences))]
    extreme = sum(abs(value) >= abs(sum(differences)) for value in sums)
    assert sign_flip_p(differences) == pytest.approx(extreme / len(sums))


def test_seeds_that_say_the_same_do_not_make_it_surer():
    first, second = table([True] * 7 + [False]), table([True] * 2 + [False] * 5 + [True])
    once, thrice = compare([first], [second]), compare([first] * 3, [second] * 3)
    assert thrice.p == pytest.approx(once.p)
    assert [seed.first_only for seed in thrice.seeds] == [5, 5, 5]
    assert thrice.clips == 8


def test_groups_flip_as_one():
    groups = ["ann"] * 4 + ["bob"] * 2
    first, second = table([True] * 6, groups), table([False] * 6, groups)
    test = compare([first], [second])
    assert test.p == pytest.approx(2 / 2**6)
    assert (test.p_groups, test.groups) == (pytest.approx(2 / 2**2), 2)
    assert compare([table([True] * 6)], [table([False] * 6)]).p_groups is None


def test_only_clips_of_both_count_and_a_clip_of_two_folds_counts_in_each():
    assert mcnemar(table([True] * 5), table([False] * 5, first=3)).clips == 2
    with pytest.raises(DataError, match="no test clip in common"):
        mcnemar(table([True]), table([True], first=1))
    twice = Predictions(["run", "walk"], ["a", "a"], ["run"] * 2, [None] * 2, [[1.0, 0.0]] * 2, ["one", "two"])
    wrong = Predictions(["run", "walk"], ["a", "a"], ["run"] * 2, [None] * 2, [[0.0, 1.0]] * 2, ["one", "two"])
    test = compare([twice], [wrong])
    assert (test.seeds[0].first_only, test.clips) == (2, 1)
    assert test.p == 1.0  # one clip says nothing, however often it is tested


def test_unequal_numbers_of_seeds_are_refused():
    with pytest.raises(DataError, match="cannot be compared in pairs"):
        compare([table([True])], [])
