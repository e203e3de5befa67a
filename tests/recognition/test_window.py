"""Models that see motion: their stream gives what the clip model gives, and computes each thing once."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import LABELS, example_frames, small_model

from kinegru.errors import UsageError
from kinegru.models.modelfile import LoadedModel
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.recording import scan
from kinegru.recognition.speed import measure_streams
from kinegru.video import flow
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing

pytest.importorskip("cv2", reason="the extra `flow` is not installed")

STATISTICS = {"median_frames": 19, "median_fps": 25.0, "median_seconds": 0.76}


def recognizer_of(streams: str, name: str = "sc_xception_convgru_mcam_aff", frames: int = 4, **settings) -> Recognizer:
    options = {} if name == "sts" else {"streams": streams}
    excitation = settings.pop("excitation", "none")
    preprocessing = Preprocessing(frames=frames, size=32, modalities=tuple(streams.split("+")), **settings)
    model = small_model(name, excitation=excitation, **options)
    return Recognizer(LoadedModel(model, LABELS, preprocessing.to_dict(), {}, dict(STATISTICS)), "cpu")


def compare(recognizer: Recognizer, frames: np.ndarray, window: int, stride: int | None, kept: bool = True) -> None:
    stream = recognizer.stream(window, stride)
    assert stream.exact == kept
    found = {t: said for t, said in enumerate(map(stream.step, frames)) if said is not None}
    assert list(found) == list(range(window - 1, len(frames), stream.stride))
    for t, said in found.items():
        expected = recognizer.predict(frames[t + 1 - window : t + 1])
        np.testing.assert_allclose(said.scores, expected.scores, atol=1e-5)
    assert len({tuple(said.scores.round(4)) for said in found.values()}) > len(found) // 2  # they differ


@pytest.mark.parametrize(("window", "stride"), [(16, None), (16, 3), (19, 4), (12, 1), (5, 2)])
@pytest.mark.parametrize("streams", ["energy", "flow", "rgb+energy", "saliency+rgb+flow", "sg3i", "rgb+sg3i+flow"])
def test_stream_equals_offline_where_motion_is_seen(streams: str, window: int, stride: int | None) -> None:
    compare(recognizer_of(streams), example_frames(29), window, stride)


@pytest.mark.parametrize("excitation", ["parallel", "ste"])
def test_stream_equals_offline_where_motion_is_excited(excitation: str) -> None:
    compare(recognizer_of("rgb+energy", excitation=excitation), example_frames(26), 16, None)


@pytest.mark.parametrize(("name", "streams"), [("two_stream", "rgb+flow"), ("sts", "rgb+flow+saliency")])
def test_stream_equals_offline_for_streams_fused_late(name: str, streams: str) -> None:
    compare(recognizer_of(streams, name), example_frames(24), 12, None)


@pytest.mark.parametrize(("streams", "kept"), [("rgb+energy", True), ("sg3i", False)])  # fields are kept, maps are not
def test_stream_equals_offline_where_motion_is_seen_without_the_background(streams: str, kept: bool) -> None:
    compare(recognizer_of(streams, background="remove"), example_frames(24), 12, None, kept)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 20),
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from(["energy", "rgb+flow", "sg3i", "rgb+sg3i"]),
)
def test_stream_equals_offline_at_any_window_stride_and_number_of_frames(window, stride, frames, streams) -> None:
    recognizer = recognizer_of(streams, frames=frames)
    stream, shown = recognizer.stream(window, stride), example_frames(window + 2 * stride)
    found = [said.scores for frame in shown if (said := stream.step(frame)) is not None]
    expected = [recognizer.predict(shown[i * stride : i * stride + window]).scores for i in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_field_is_computed_once_and_a_frame_of_several_windows_encoded_once(monkeypatch) -> None:
    recognizer = recognizer_of("energy", frames=8)
    fields, encoded = [], []
    computed, trunk = flow.quantise, recognizer.engine.trunk
    monkeypatch.setattr(flow, "quantise", lambda field: fields.append(1) or computed(field))
    monkeypatch.setattr(recognizer.engine, "trunk", lambda frames: encoded.append(len(frames)) or trunk(frames))
    stream = recognizer.stream(32)
    predictions = [stream.step(frame) for frame in example_frames(64)]
    assert sum(said is not None for said in predictions) == 9 and stream.stride == 4
    assert len(fields) == 63
    # frames 2, 6 .. 18 have stacks of their own; 22, 26 and 30 share the window's last one, which is seldom met again
    assert encoded[0] == 6 and max(encoded[1:]) <= 2


def test_time_as_colour_needs_no_opencv_and_a_frame_of_several_windows_is_encoded_once(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    recognizer = recognizer_of("sg3i", frames=8)
    encoded = []
    trunk = recognizer.engine.trunk
    monkeypatch.setattr(recognizer.engine, "trunk", lambda frames: encoded.append(len(frames)) or trunk(frames))
    stream = recognizer.stream(32)
    predictions = [stream.step(frame) for frame in example_frames(64)]
    assert sum(said is not None for said in predictions) == 9 and stream.stride == 4
    assert encoded == [8, *[2] * 8]  # the last one looked at, and the one before: only now its neighbours are all known


def test_a_window_of_a_model_that_sees_motion_is_as_long_as_a_training_clip() -> None:
    recognizer = recognizer_of("energy")
    assert (recognizer.frame_rate, recognizer.clip_window) == (25.0, 20)  # 19 frames, of which 4 are looked at
    assert (recognizer.stream().window, recognizer.stream().stride) == (20, 5)
    part = recognizer_of("energy", rate=8.0)  # 4 frames in half a second
    assert (part.frame_rate, part.clip_window) == (25.0, 12)
    still = recognizer_of("rgb")
    assert (still.frame_rate, still.clip_window, still.stream().stride) == (4 / 0.76, 4, 1)
    recognizer.clip_statistics.clear()
    assert (recognizer.frame_rate, recognizer.clip_window) == (None, 4)


def test_a_recording_is_looked_at_at_the_rate_at_which_motion_was_learnt() -> None:
    recognizer = recognizer_of("energy")
    scanned, log = scan(recognizer, example_clip())  # 30 frames, 25 a second
    assert (scanned.rate, scanned.window, scanned.stride) == (25.0, 20, 5)
    frames = example_frames(30)
    expected = [recognizer.predict(frames[first : first + 20]).scores for first in (0, 5, 10)]
    assert log.firsts.tolist() == [0, 5, 10]
    np.testing.assert_allclose(log.rows(len(LABELS)), expected, atol=1e-5)


def test_a_prediction_may_be_left_out_and_the_next_is_the_same() -> None:
    recognizer = recognizer_of("rgb+energy")
    frames = example_frames(30)
    every, some = (recognizer.stream(12, 3) for _ in range(2))
    said = [every.step(frame) for frame in frames]
    left_out = [some.step(frame, predict=t % 2 == 0) for t, frame in enumerate(frames)]
    assert [t for t, one in enumerate(left_out) if one] == [t for t, one in enumerate(said) if one and t % 2 == 0]
    for one, other in zip(said, left_out, strict=True):
        if one and other:
            assert one.source == other.source
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_frames_of_another_size_are_refused_until_the_stream_is_reset(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        stream = recognizer_of("energy").stream(2, 1)
    assert "run anew" not in caplog.text
    with pytest.raises(UsageError, match="give a window"):
        recognizer_of("energy").stream(None)
    small = np.zeros((48, 64, 3), np.uint8)
    stream.step(np.zeros((72, 96, 3), np.uint8))
    with pytest.raises(UsageError, match="were 96x72 and this one is 64x48: reset"):
        stream.step(small)
    stream.reset()
    assert stream.step(small) is None and stream.step(small) is not None


def test_what_a_stream_saves_where_motion_is_seen_is_measured() -> None:
    torch.set_num_threads(1)
    stream = recognizer_of("energy", frames=8).stream(32)
    speed = measure_streams({"motion": stream}, example_frames(30), rounds=2, steps=1)["motion"]
    ratio = speed.ratio()
    assert speed.exact and speed.difference < 1e-5
    assert ratio is not None and ratio.median > 1
