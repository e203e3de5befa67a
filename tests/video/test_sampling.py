"""MODEL.md §6: one frame from each of T equal segments, any L, any T."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.video.sampling import Jitter, Sampling, draw_jitter, uniform_indices

lengths = st.integers(1, 3000)
counts = st.integers(1, 200)


@settings(deadline=None, max_examples=60)
@given(lengths, counts)
def test_uniform_is_the_printed_formula(length: int, count: int) -> None:
    expected = [floor((i + Fraction(1, 2)) * length / count) for i in range(count)]
    indices = uniform_indices(length, count)
    assert indices.tolist() == expected
    assert indices.dtype == np.int64


@settings(deadline=None, max_examples=60)
@given(lengths, counts, st.integers(0, 2**32))
def test_jitter_stays_in_its_segment(length: int, count: int, seed: int) -> None:
    indices = draw_jitter(count, np.random.default_rng(seed)).indices(length)
    segments = np.arange(count)
    assert indices.shape == (count,)
    assert indices.dtype == np.int64
    assert (indices >= np.floor(segments * length / count) - 1e-9).all()
    assert (indices <= np.minimum(np.ceil((segments + 1) * length / count), length - 1)).all()


def test_jitter_reaches_every_frame_and_the_middle_is_its_mean() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([draw_jitter(6, rng).indices(60) for _ in range(2000)])
    assert set(draws.ravel().tolist()) == set(range(60))
    np.testing.assert_allclose(draws.mean(0), np.arange(6) * 10 + 4.5, atol=0.3)


def test_short_clips_repeat_frames_by_the_same_formula() -> None:
    assert uniform_indices(3, 7).tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert uniform_indices(1, 5).tolist() == [0] * 5
    assert draw_jitter(5, np.random.default_rng(0)).indices(1).tolist() == [0] * 5


def test_half_offsets_are_the_uniform_indices() -> None:
    for length, count in ((1, 1), (7, 40), (40, 7), (99, 40)):
        assert np.array_equal(Jitter(np.full(count, 0.5)).indices(length), uniform_indices(length, count))


def test_largest_offset_never_leaves_the_clip() -> None:
    almost_one = np.full(40, np.nextafter(1.0, 0.0))
    for length in (1, 39, 40, 41, 10**9):
        assert Jitter(almost_one).indices(length).max() == length - 1


@settings(deadline=None, max_examples=60)
@given(lengths, counts, st.integers(0, 2**32), st.floats(0.1, 1.0))
def test_even_steps_differ_by_at_most_one_frame(length: int, count: int, seed: int, shortest: float) -> None:
    indices = draw_jitter(count, np.random.default_rng(seed), shortest, even=True).indices(length)
    assert indices.min() >= 0 and indices.max() < length
    assert count == 1 or np.ptp(np.diff(indices)) <= 1


def test_a_part_of_the_clip_is_no_shorter_than_asked_and_lies_anywhere() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([draw_jitter(50, rng, shortest=0.6, even=True).indices(1000) for _ in range(500)])
    spans = np.ptp(draws, axis=1)
    assert 570 < spans.min() < 600 and 950 < spans.max() < 1000
    assert draws.min() < 20 and draws.max() > 980


@settings(deadline=None, max_examples=80)
@given(lengths, st.integers(1, 60), st.sampled_from([10.0, 12.5, 25.0, 60.0]), st.sampled_from([0.0, 24.0, 25.0, 50.0]))
def test_a_rate_keeps_the_steps_between_frames_whatever_the_length(length, count, rate, fps) -> None:
    indices = Sampling(count, rate).indices(length, fps)
    assert indices.min() >= 0 and indices.max() < length
    if fps and count * fps / rate < length:
        np.testing.assert_allclose(np.diff(indices), fps / rate, atol=1)
    else:  # too short for it, or of unknown rate: the whole clip
        assert np.array_equal(indices, uniform_indices(length, count))


def test_windows_lie_at_the_beginning_the_middle_and_the_end() -> None:
    first, middle, last = (Sampling(10, 25.0, place).indices(100, 25.0) for place in (0.0, 0.5, 1.0))
    assert (first[0], first[-1], last[0], last[-1]) == (0, 9, 90, 99)
    assert middle.mean() == pytest.approx(49.5, abs=0.6)


def test_a_jittered_part_keeps_the_rate_and_lies_anywhere() -> None:
    rng = np.random.default_rng(0)
    draws = [Sampling(10, 12.5, jitter=draw_jitter(10, rng, even=True)).indices(100, 25.0) for _ in range(300)]
    assert all(np.abs(np.diff(draw) - 2).max() <= 1 for draw in draws)
    assert min(draw.min() for draw in draws) < 3 and max(draw.max() for draw in draws) > 96


@pytest.mark.parametrize(("length", "count"), [(0, 5), (5, 0), (-1, 5)])
def test_nothing_cannot_be_sampled(length: int, count: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        uniform_indices(length, count)
    with pytest.raises(ValueError, match="at least 1"):
        draw_jitter(count, np.random.default_rng(0)).indices(length)
