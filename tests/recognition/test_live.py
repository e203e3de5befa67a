"""Live recognition says what the stream says, at once or not at all, and again after a break."""

from __future__ import annotations

import dataclasses
import logging
import time

import numpy as np
import pytest
from colour_engine import ColourEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_server import COLOURS, serving

from kinegru.errors import UsageError, VideoError
from kinegru.recognition.live import Latencies, Live
from kinegru.recognition.recognizer import Recognizer, example_recognizer
from kinegru.recognition.timeline import decide, tempered
from kinegru.video.overlay import caption
from kinegru.video.pacing import Recording
from kinegru.video.reader import iter_frames, probe
from kinegru.video.writer import write_video


def colours(seconds: float = 0.0, rate: float = 10.0) -> Recognizer:
    found = example_recognizer()  # windows of 4 frames, "run" for red and "walk" for blue
    found.engine = ColourEngine(seconds)
    found.clip_statistics = {"median_seconds": 4 / rate}
    return found


def plain(colour: str, count: int) -> np.ndarray:
    return np.full((count, 48, 64, 3), COLOURS[colour], np.uint8)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory):
    """Two seconds of slowly changing noise, 25 frames a second."""
    parts = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), dtype=np.uint8)
    return write(tmp_path_factory.mktemp("noise") / "noise.mp4", parts)


def write(path, frames, fps: float = 25.0):
    write_video(path, frames, fps)
    return path


# -- the same as the stream ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "stride", "fps"), [("clip", 1, 10.0), (3, 2, 25.0), (None, 3, 12.5)])
def test_asap_on_a_file_equals_the_stream_on_the_same_frames(noise, window, stride, fps):
    recognizer = example_recognizer()
    recognizer.provenance["calibration"] = {"temperature": 0.2}
    options = {"window": window, "stride": stride, "threshold": 0.55, "margin": 0.02}
    with Live(recognizer, str(noise), fps=fps, pace="asap", **options) as live:
        found = list(live)
    stream = recognizer.stream(window, stride)
    with Recording(noise) as recording:
        expected = [(f.number, p) for f in recording.frames(fps) if (p := stream.step(f.image)) is not None]
    assert len(found) == len(expected) and live.drops == 0
    scores = tempered(np.stack([p.scores for _, p in expected]), 0.2)
    np.testing.assert_allclose([seen.scores for seen in found], scores, atol=1e-6)
    assert [seen.time for seen in found] == pytest.approx([(number + 0.5) / fps for number, _ in expected])
    classes = decide(scores, 0.55, 0.02)  # the timeline's rule, over the whole
    assert [seen.label for seen in found] == [("run", "walk", "unknown")[c] for c in classes]
    expected_scores = [row[c] if c >= 0 else row.max() for row, c in zip(scores, classes, strict=True)]
    assert [seen.score for seen in found] == pytest.approx(expected_scores)


def test_frames_come_at_the_models_rate_and_fps_overrides_it(noise):
    for fps, frames in ((None, 20), (5.0, 10), (50.0, 100)):
        with Live(colours(), str(noise), fps=fps, pace="asap") as live:
            list(live)
        assert live.capture.rate == (fps or 10.0)
        assert live.stream.count == frames  # of a file of two seconds, some of them several times


def test_a_model_without_a_rate_takes_the_sources(noise):
    recognizer = colours()
    recognizer.clip_statistics = {}
    with Live(recognizer, str(noise), pace="asap") as live:
        list(live)
    assert live.capture.rate == 25.0 and live.frames == 50


def test_a_model_that_keeps_nothing_says_that_it_runs_every_window_anew(noise, caplog):
    recognizer = example_recognizer()
    with Live(recognizer, str(noise), fps=10.0, pace="asap") as live:
        kept = [seen.scores for seen in live]
    recognizer.engine.radius = None
    with caplog.at_level(logging.WARNING), Live(recognizer, str(noise), fps=10.0, pace="asap") as live:
        anew = [seen.scores for seen in live]
    assert "every window is run anew" in caplog.text
    np.testing.assert_allclose(anew, kept, atol=1e-5)
    with pytest.raises(UsageError, match="keeps no state that could be carried; give a window"):
        Live(recognizer, str(noise), window=None)


# -- late, but never later ----------------------------------------------------------------------------------------


def test_a_slow_recogniser_drops_frames_and_does_not_fall_behind(tmp_path):
    work = 0.12  # seconds a frame, which is three frames of the source
    clip = write(tmp_path / "a.mp4", plain("red", 75))
    with Live(colours(work, rate=25.0), str(clip)) as live:
        found = list(live)
    assert live.frames + live.drops == 75 and live.drops > 30
    assert live.predictions == len(found) == live.frames - 3
    latencies = [seen.latency for seen in found]
    assert min(latencies) >= work
    assert np.median(latencies) < 3 * work  # one that waits, one in work; in a queue the last were 6 s late
    assert max(latencies[-5:]) < 4 * work
    assert live.latencies.quantile(0.5) == pytest.approx(np.median(latencies), rel=0.05)


def test_a_slow_recogniser_of_motion_sees_every_frame_and_predicts_less_often(tmp_path):
    pytest.importorskip("cv2", reason="the extra `flow` is not installed")
    parts = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), dtype=np.uint8)
    clip = write(tmp_path / "a.mp4", parts)

    def motion(seconds: float) -> Recognizer:
        found = colours(seconds)
        found.preprocessing = dataclasses.replace(found.preprocessing, modalities=("energy",))
        found.clip_statistics = {"median_fps": 25.0, "median_frames": 32}
        return found

    with Live(motion(0.0), str(clip), stride=2, pace="asap") as live:
        expected = {seen.time: seen.scores for seen in live}
    assert len(expected) == 35 and live.drops == 0
    with Live(motion(0.25), str(clip), stride=2) as live:  # while six frames come, of which three are due
        found = list(live)
    assert (live.frames, live.drops) == (100, 0)
    assert 3 <= len(found) <= 12
    for seen in found:
        np.testing.assert_allclose(seen.scores, expected[seen.time], atol=1e-6)
    assert np.median([seen.latency for seen in found]) < 1.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(1e-4, 100), min_size=1, max_size=300), st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_quantiles_are_right_to_a_hundredth(delays, part):
    latencies = Latencies()
    for delay in delays:
        latencies.add(delay)
    exact = np.quantile(delays, part, method="inverted_cdf")
    assert latencies.quantile(part) == pytest.approx(exact, rel=0.01)


def test_no_delay_is_counted_where_there_was_none():
    assert Latencies().quantile(0.5) is None


# -- cut and back -------------------------------------------------------------------------------------------------


def test_a_stream_that_is_cut_and_comes_back_is_recognised_again(tmp_path):
    with serving("red") as (address, server):
        port = int(address.rpartition(":")[2])
        with Live(colours(), f"{address}/live", timeout=3.0, record=tmp_path / "seen.mkv") as live:
            before = until(live, 8)
            server.kill()
            server.wait()
            with serving("blue", port):
                after = until(live, 8, lambda: live.reconnects)
    assert {seen.label for seen in before} == {"run"} and {seen.label for seen in after} == {"walk"}
    np.testing.assert_allclose(after[0].scores, after[-1].scores, atol=0.02)  # nothing red is left in the state
    assert after[0].time < 3 and live.reconnects == 1  # time begins anew
    frames = list(iter_frames(tmp_path / "seen.mkv"))
    first, last = frames[0][:30].mean((0, 1)), frames[-1][:30].mean((0, 1))
    assert first[0] > 180 > last[0] and last[2] > 180 > first[2]


def until(live: Live, count: int, ready=lambda: True, limit: float = 30.0):
    found, deadline = [], time.monotonic() + limit
    while len(found) < count:
        assert time.monotonic() < deadline, (live.capture.trouble, live.frames)
        seen = live.wait(0.1)
        found += seen if ready() else []
    return found


def test_a_source_that_is_lost_for_good_is_an_error():
    with serving() as (address, server), Live(colours(), f"{address}/live", retries=0) as live:
        until(live, 2)
        server.kill()
        with pytest.raises(VideoError, match="connection refused; gave up after 1 try"):
            list(live)


def test_a_file_that_is_no_video_is_an_error(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match="is no video"), Live(colours(), str(tmp_path / "text.mp4")) as live:
        list(live)


# -- recorded -----------------------------------------------------------------------------------------------------


def test_the_recording_holds_every_picture_with_the_label_of_its_time(tmp_path):
    frames = np.concatenate([plain("red", 50), plain("blue", 50)]).repeat(4, axis=1).repeat(4, axis=2)
    clip = write(tmp_path / "a.mp4", frames)
    with Live(colours(), str(clip), pace="asap", record=tmp_path / "out.mp4") as live:
        found = list(live)
    before, after = probe(clip), probe(tmp_path / "out.mp4")
    assert (after.frames, after.fps, after.width, after.height) == (100, 25.0, before.width, before.height)
    drawn, originals = (list(iter_frames(path)) for path in (tmp_path / "out.mp4", clip))
    for place, label, clock in ((40, "run", "0:01"), (90, "walk", "0:03")):
        score = next(seen.score for seen in found if seen.time > place / 25)
        far = {
            text: np.abs(drawn[place].astype(int) - caption(originals[place], text, clock)).mean()
            for text in (f"{label} {score:.0%}", f"{label} 1%", "", "unknown")
        }
        assert min(far, key=far.__getitem__) == f"{label} {score:.0%}" and min(far.values()) < 4


def test_a_recording_that_cannot_be_written_ends_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    clip = write(tmp_path / "a.mp4", plain("red", 50))
    with pytest.raises(OSError), Live(colours(), str(clip), record=tmp_path / "file" / "out.mp4") as live:
        list(live)
    assert live.frames < 15


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fps": 0.0}, "--fps is 0.0"),
        ({"fps": float("nan")}, "--fps is nan"),
        ({"window": 0}, "window is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"threshold": 1.5}, "--threshold is 1.5"),
        ({"margin": -0.1}, "--margin is -0.1"),
        ({"retries": -2}, "--retries is -2"),
        ({"timeout": 0.0}, "--timeout is 0.0"),
        ({"pace": "asapp"}, "--pace is 'asapp': give one of auto, live, real, asap"),
        ({"window": "none"}, "window is none"),
        ({"record": "out.txt"}, "give a name that ends in"),
    ],
)
def test_settings_out_of_range_are_wrong_use(noise, options, words):
    with pytest.raises(UsageError, match=words):
        Live(colours(), str(noise), **options)


def test_a_source_may_be_a_path_or_a_cameras_number(noise):
    assert Live(colours(), noise).source == Live(colours(), str(noise)).source
    assert Live(colours(), 7).source == Live(colours(), "7").source


def test_live_outside_its_block_says_so_and_does_not_hang(noise):
    with pytest.raises(UsageError, match="with Live"):
        next(iter(Live(colours(), noise)))


def test_the_source_is_never_written_over(tmp_path):
    clip = write(tmp_path / "a.mp4", plain("red", 5))
    with pytest.raises(UsageError, match="is the source itself"):
        Live(colours(), str(clip), record=tmp_path / "." / "a.mp4")
