"""Scores become the timeline they should; frames come by the clock; a scan goes on where it was killed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_engine import ColourEngine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_set import write_timed

from kinegru.errors import UsageError, VideoError
from kinegru.recognition.recognizer import Recognizer, example_recognizer
from kinegru.recognition.recording import ScoreLog, digest, scan
from kinegru.recognition.timeline import (
    UNKNOWN,
    Piece,
    Rules,
    WindowScores,
    decide,
    drop,
    make_segments,
    merge,
    smooth,
    tempered,
)
from kinegru.verbs.timeline import subtitles
from kinegru.video.pacing import Recording
from kinegru.video.writer import write_video

PLAIN = Rules(smooth=1, margin=0.0, gap=0.0, shortest=0.0)
RED, BLUE, GREY = (220, 30, 30), (30, 30, 220), (128, 128, 128)


def scores_of(probabilities: list[float], step: float = 1.0, window: float = 2.0) -> WindowScores:
    """Windows of two classes, the first with these probabilities."""
    p = np.array(probabilities)
    starts = np.arange(len(p)) * step
    return WindowScores(
        np.stack([starts, starts + window], 1), np.stack([p, 1 - p], 1), step, (len(p) - 1) * step + window
    )


def labels_of(segments) -> list[tuple[str, float, float]]:
    return [(s.label, round(s.start, 3), round(s.end, 3)) for s in segments]


# -- the rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [1, 2, 3, 4, 7, 50])
def test_smoothing_is_the_mean_over_the_neighbours_there_are(windows):
    p = np.random.default_rng(0).random((9, 3))
    found = smooth(p, windows)
    for i in range(9):
        near = p[max(0, i - (windows - 1) // 2) : i + windows // 2 + 1]
        np.testing.assert_allclose(found[i], near.mean(axis=0))


def test_hysteresis_enters_at_the_threshold_and_leaves_below_it_by_the_margin():
    p = np.array([0.55, 0.6, 0.55, 0.51, 0.49, 0.55, 0.6])
    two = np.stack([p, np.zeros(7)], axis=1)
    assert decide(two, 0.6, 0.1).tolist() == [UNKNOWN, 0, 0, 0, UNKNOWN, UNKNOWN, 0]
    assert decide(two, 0.6, 0.0).tolist() == [UNKNOWN, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0]


def test_another_label_takes_over_only_when_it_wins_clearly():
    p = np.array([[0.9, 0.1], [0.48, 0.52], [0.46, 0.54], [0.4, 0.6], [0.52, 0.48], [0.6, 0.4]])
    assert decide(p, 0.5, 0.15).tolist() == [0, 0, 0, 1, 1, 0]
    assert decide(p, 0.5, 0.0).tolist() == [0, 1, 1, 1, 0, 0]


def test_a_label_that_fell_too_low_gives_way_to_any_that_has_reached_the_threshold():
    assert decide(np.array([[0.9, 0.05, 0.05], [0.3, 0.5, 0.2]]), 0.5, 0.3).tolist() == [0, 0]
    assert decide(np.array([[0.9, 0.05, 0.05], [0.1, 0.5, 0.4]]), 0.5, 0.3).tolist() == [0, 1]
    assert decide(np.array([[0.9, 0.05, 0.05], [0.1, 0.45, 0.45]]), 0.5, 0.3).tolist() == [0, UNKNOWN]


def test_merging_joins_one_label_over_short_gaps_only():
    pieces = [Piece(0, 0, 2, 0.9, 2), Piece(0, 2.5, 3.5, 0.6, 1), Piece(0, 5, 6, 0.5, 1), Piece(1, 6, 7, 0.5, 1)]
    assert [(p.label, p.start, p.end, round(p.score, 9)) for p in merge(pieces, 0.5)] == [
        (0, 0, 3.5, 0.8), (0, 5, 6, 0.5), (1, 6, 7, 0.5)
    ]  # fmt: skip
    assert [p.label for p in merge(pieces, 9)] == [0, 1]
    assert [p.start for p in drop(pieces, 1.5)] == [0]


def test_a_short_intruder_is_dropped_and_what_it_parted_is_one_again():
    scores = scores_of([0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9])
    assert len(make_segments(scores, "ab", PLAIN)) == 3
    rules = Rules(smooth=1, margin=0.0, gap=1.0, shortest=1.5)
    assert labels_of(make_segments(scores, "ab", rules)) == [("a", 0.0, 8.0)]


def test_a_short_gap_between_two_labels_is_shared_by_them():
    scores = scores_of([0.9, 0.9, 0.9, 0.5, 0.1, 0.1, 0.1])
    rules = Rules(threshold=0.6, margin=0.0, smooth=1, gap=1.0, shortest=0.5)
    assert labels_of(make_segments(scores, "ab", rules)) == [("a", 0.0, 4.0), ("b", 4.0, 8.0)]


def test_a_class_named_unknown_is_a_class():
    first = [0.9] * 5 + [0.45] * 5 + [0.1] * 5
    found = make_segments(
        scores_of(first), ["unknown", "walk"], Rules(0.8, smooth=1, margin=0.0, gap=0.0, shortest=0.0)
    )
    assert [(segment.label, segment.known) for segment in found] == [
        ("unknown", True), ("unknown", False), ("walk", True),
    ]  # fmt: skip
    assert "unknown 90 %" in subtitles(found)


def test_below_the_threshold_is_unknown():
    scores = scores_of([0.9, 0.9, 0.55, 0.55, 0.1, 0.1])
    rules = Rules(threshold=0.6, margin=0.0, smooth=1, gap=0, shortest=0)
    found = make_segments(scores, "ab", rules)
    assert labels_of(found) == [("a", 0.0, 2.5), ("unknown", 2.5, 4.5), ("b", 4.5, 7.0)]
    assert [round(s.score, 6) for s in found] == [0.9, 0.55, 0.9]


def test_nothing_reaches_over_a_cut():
    times = np.array([[0, 2], [1, 3], [30, 32], [31, 33]], dtype=float)
    scores = WindowScores(times, np.array([[0.9, 0.1]] * 2 + [[0.2, 0.8]] * 2), 1.0, 33.5)
    found = make_segments(scores, "ab", Rules(smooth=3, shortest=0))
    assert labels_of(found) == [("a", 0.0, 4.0), ("unknown", 4.0, 30.0), ("b", 30.0, 33.5)]
    assert [round(s.score, 6) for s in found] == [0.9, 0.0, 0.8]


@settings(deadline=None, max_examples=200)
@given(
    starts=st.lists(st.integers(0, 60), min_size=0, max_size=25, unique=True).map(sorted),
    window=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    classes=st.integers(1, 4),
    rules=st.builds(
        Rules, threshold=st.floats(0, 1), margin=st.floats(0, 0.5), smooth=st.integers(1, 6), gap=st.floats(0, 5),
        shortest=st.floats(0, 5),
    ),
)  # fmt: skip
@example(starts=[0, 1, 3], window=5, seed=1, classes=2, rules=Rules(0.0, 0.0, 1, 0.0, 0.0))
@example(starts=[0, 1, 2, 4], window=9, seed=1, classes=2, rules=Rules(0.0, 0.0, 1, 0.0, 0.0))
def test_segments_tile_the_recording_in_order(starts, window, seed, classes, rules):
    times = np.array([[start, start + window] for start in starts], dtype=float).reshape(-1, 2) / 4
    p = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), len(starts))
    duration = (times[-1, 1] if starts else 5.0) + 0.1
    names = "abcd"[:classes]
    found = make_segments(WindowScores(times, p, 0.25, duration), names, rules)
    assert found[0].start == 0 and found[-1].end == pytest.approx(duration)
    for one, other in pairwise(found):
        assert one.end == other.start and not one.label == other.label == "unknown"
    for segment in found:
        assert segment.start < segment.end and 0 <= segment.score <= 1 + 1e-9
        if segment.label != "unknown":
            assert segment.end - segment.start >= min(rules.shortest, duration) - 1e-6
    if rules.threshold == 0 and rules.shortest == 0 and len(starts):  # then every moment has a label
        assert any(segment.label != "unknown" for segment in found)


def test_a_rule_out_of_range_is_wrong_use():
    for rules in (Rules(threshold=1.1), Rules(margin=-0.1), Rules(smooth=0), Rules(gap=-1), Rules(shortest=-1)):
        with pytest.raises(UsageError, match="give a number"):
            rules.check()


def test_a_temperature_divides_the_logits():
    logits = torch.randn(5, 4, dtype=torch.float64) * 3
    found = tempered(logits.softmax(1).numpy(), 2.5)
    np.testing.assert_allclose(found, (logits / 2.5).softmax(1).numpy(), atol=1e-9)
    assert np.isfinite(tempered(np.array([[1.0, 0.0]]), 0.05)).all()


# -- frames by the clock ------------------------------------------------------------------------------------------


def plain(colour: tuple[int, int, int], count: int) -> np.ndarray:
    return np.full((count, 32, 48, 3), colour, np.uint8)


def seen(path: Path, rate: float | None, **options) -> tuple[list[tuple[int, bool, int]], float]:
    """(number, cut, brightness) of each frame at a rate, and the duration."""
    with Recording(path) as recording:
        found = [(f.number, f.cut, round(float(f.image.mean()))) for f in recording.frames(rate, **options)]
        return found, recording.duration


@pytest.mark.parametrize(("ending", "fps"), [(".mp4", 25.0), (".mkv", 30000 / 1001), (".avi", 12.5)])
def test_at_its_own_rate_every_frame_comes_once(tmp_path, ending, fps):
    levels = np.linspace(20, 230, 40).round()
    frames = np.stack([np.full((32, 48, 3), level, np.uint8) for level in levels])
    write_video(tmp_path / f"a{ending}", frames, fps)
    found, duration = seen(tmp_path / f"a{ending}", None)
    assert [number for number, _, _ in found] == list(range(40)) and not any(cut for _, cut, _ in found)
    np.testing.assert_allclose([level for _, _, level in found], levels, atol=4)
    assert duration == pytest.approx(40 / fps, abs=0.005)


def test_frames_follow_the_timestamps_of_a_variable_rate(tmp_path):
    times = [*np.arange(0, 2, 0.04), *np.arange(2, 4, 0.25)]  # 25 frames a second, then 4
    path = write_timed(tmp_path / "a.mkv", np.concatenate([plain((40,) * 3, 50), plain((200,) * 3, 8)]), times)
    found, _ = seen(path, 10.0)
    levels = np.array([level for _, _, level in found])
    assert (levels[:20] < 60).all() and (levels[20:] > 180).all() and 36 <= len(found) <= 40
    assert [number for number, _, _ in found] == list(range(len(found)))


def test_a_long_pause_is_a_cut_and_time_goes_on_behind_it(tmp_path):
    times = [*np.arange(0, 1, 0.1), *np.arange(31, 32, 0.1)]
    path = write_timed(tmp_path / "a.mkv", plain(RED, 20), times)
    found, duration = seen(path, 10.0)
    numbers = [number for number, _, _ in found]
    assert numbers[-10:] == list(range(310, 320)) and max(numbers[:-10]) <= 10
    assert [number for number, cut, _ in found if cut] == [310] and duration == pytest.approx(32, abs=0.2)
    filled, _ = seen(path, 10.0, longest_gap=float("inf"))
    assert [number for number, _, _ in filled] == list(range(len(filled))) and len(filled) >= 319


# -- recordings ---------------------------------------------------------------------------------------------------


@pytest.fixture
def recognizer() -> Recognizer:
    found = example_recognizer()  # windows of 4 frames, "run" and "walk"
    found.engine = ColourEngine()
    found.clip_statistics = {"median_seconds": 0.4}  # 10 frames a second
    return found


def test_a_joined_recording_gives_back_its_parts(recognizer, tmp_path):
    parts = [(RED, 75), (BLUE, 50), (GREY, 75), (RED, 50)]
    write_video(tmp_path / "joined.mp4", np.concatenate([plain(*part) for part in parts]))
    found = recognizer.timeline(tmp_path / "joined.mp4", rules=Rules(threshold=0.8))
    assert [s.label for s in found] == ["run", "walk", "unknown", "run"]
    truth = np.cumsum([0, 3, 2, 3, 2])
    np.testing.assert_allclose([s.start for s in found] + [found[-1].end], truth, atol=0.25)


def test_shorter_windows_find_shorter_actions(recognizer, tmp_path):
    parts = [(RED, 50), (BLUE, 5), (RED, 50)]  # blue for 0.2 s, half of a training clip
    write_video(tmp_path / "short.mp4", np.concatenate([plain(*part) for part in parts]))
    rules = Rules(threshold=0.9, smooth=1, gap=0.0, shortest=0.0)
    of_clips = recognizer.timeline(tmp_path / "short.mp4", stride=1, rules=rules)
    shorter = recognizer.timeline(tmp_path / "short.mp4", window=2, stride=1, rules=rules)
    assert "walk" not in [s.label for s in of_clips] and "walk" in [s.label for s in shorter]


def test_a_variable_rate_moves_no_boundary(recognizer, tmp_path):
    times = [*np.arange(0, 2, 0.04), *np.arange(2, 5, 0.2)]
    path = write_timed(tmp_path / "a.mkv", np.concatenate([plain(RED, 50), plain(BLUE, 15)]), times)
    found = recognizer.timeline(path)
    assert [s.label for s in found] == ["run", "walk"]
    assert found[0].end == pytest.approx(2.0, abs=0.25) and found[1].end == pytest.approx(5.0, abs=0.3)


def test_shorter_than_a_window_is_one_prediction(recognizer, tmp_path):
    write_video(tmp_path / "short.mp4", plain(RED, 5))
    (found,) = recognizer.timeline(tmp_path / "short.mp4", rules=Rules(threshold=0.0))
    expected = recognizer.predict(tmp_path / "short.mp4")
    assert (found.label, found.start) == (expected.label, 0.0) and found.end == pytest.approx(0.2, abs=0.01)
    assert found.score == pytest.approx(expected.score)


def test_the_models_temperature_calibrates_the_scores(recognizer, tmp_path):
    write_video(tmp_path / "a.mp4", plain(RED, 50))
    (sure,) = recognizer.timeline(tmp_path / "a.mp4")
    recognizer.provenance["calibration"] = {"temperature": 4.0}
    (mild,) = recognizer.timeline(tmp_path / "a.mp4")
    odds = [s.score / (1 - s.score) for s in (sure, mild)]
    assert np.log(odds[0]) == pytest.approx(4 * np.log(odds[1]), rel=1e-3)


def test_a_model_that_keeps_nothing_gives_the_same_by_running_anew(tmp_path, caplog):
    write_video(tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8))
    recognizer = example_recognizer()
    exact, _ = scan(recognizer, tmp_path / "a.mp4", fps=25.0, stride=2)
    recognizer.engine.radius = None
    anew, _ = scan(recognizer, tmp_path / "a.mp4", fps=25.0, stride=2)
    assert "cannot reuse" in caplog.text and len(exact.scores.times) == 9
    np.testing.assert_allclose(anew.scores.probabilities, exact.scores.probabilities, atol=1e-5)


@pytest.mark.parametrize("stride", [2, 7])
def test_a_scan_goes_on_from_any_place_with_the_same_result(tmp_path, stride):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    times = [*np.arange(17) / 10, *(20 + np.arange(13) / 10)]  # a cut in the middle
    path = write_timed(tmp_path / "a.mkv", frames, times)
    recognizer, log = example_recognizer(), tmp_path / "log"
    whole, kept = scan(recognizer, path, 10.0, stride=stride, log_path=log)
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + len(whole.scores.times) and not kept.resumed
    middle = len(lines) // 2
    for done in sorted({0, 1, middle - 1, middle, middle + 1, len(lines) - 1}):
        log.write_bytes(b"".join(lines[: done + 1]) + lines[-1][:9])  # killed in the middle of a line
        again, kept = scan(recognizer, path, 10.0, stride=stride, log_path=log)
        assert kept.resumed == done
        np.testing.assert_array_equal(again.scores.times, whole.scores.times)
        np.testing.assert_allclose(again.scores.probabilities, whole.scores.probabilities, atol=1e-6)


def test_a_log_of_something_else_is_started_anew(tmp_path):
    for bound in ({"stride": 1}, {"stride": 2}):
        with ScoreLog(tmp_path / "log", bound) as log:
            assert not log.resumed
            log.append(0, np.array([0.5, 0.5]))
    (tmp_path / "log").write_bytes(b"\x00\xff not a log")
    with ScoreLog(tmp_path / "log", {"stride": 2}) as log:
        assert not log.resumed


def test_a_digest_tells_recordings_apart(tmp_path):
    content = bytearray(3 << 20)
    paths = []
    for number, at in enumerate((None, 5, 1572864, len(content) - 1)):
        other = bytearray(content)
        if at is not None:
            other[at] = 1
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(other)
    (tmp_path / "longer").write_bytes(content + b"\0")
    assert len({digest(path) for path in [*paths, tmp_path / "longer"]}) == 5


@pytest.mark.parametrize(("fps", "stride"), [(0.0, None), (-1.0, None), (float("nan"), None), (None, 0)])
def test_settings_out_of_range_are_wrong_use(recognizer, tmp_path, fps, stride):
    write_video(tmp_path / "a.mp4", plain(RED, 5))
    with pytest.raises(UsageError):
        recognizer.timeline(tmp_path / "a.mp4", fps=fps, stride=stride)


def test_no_video_is_a_video_error(recognizer, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="is no video"):
        recognizer.timeline(tmp_path / "text.mp4")
