"""The live form gives what the clip model gives, for every window."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import LABELS, example_frames, small_model

from kinegru.errors import UsageError
from kinegru.models.modelfile import LoadedModel
from kinegru.models.zoo import create_model
from kinegru.recognition.engines import TorchEngine
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.stream import Stream
from kinegru.video.reader import iter_frames
from kinegru.video.transforms import Preprocessing

PREPROCESSING = Preprocessing(frames=4, size=32)
TOLERANCE = 1e-5


def scores_of_clip(model, frames: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(PREPROCESSING(frames)[None])[0].softmax(0).numpy()


def compare(model, frames: np.ndarray, window: int | None, stride: int = 1) -> None:
    stream = Stream(TorchEngine(model, torch.device("cpu")), PREPROCESSING, LABELS, window, stride)
    for t, frame in enumerate(frames):
        found = stream.step(frame)
        first = 0 if window is None else t + 1 - window
        due = first >= 0 and (t + 1 - (window or 1)) % stride == 0
        assert (found is not None) == due
        if found is not None:
            expected = scores_of_clip(model, frames[first : t + 1])
            np.testing.assert_allclose(found.scores, expected, atol=TOLERANCE)
            assert found.source == f"frames {first} to {t}"


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 8, None])
@pytest.mark.parametrize("excitation", ["parallel", "serial", "ste", "ce", "none"])
def test_stream_equals_offline_in_every_excitation_mode(excitation: str, window: int | None) -> None:
    compare(small_model(excitation=excitation), example_frames(11), window)


@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("readout", ["last", "mean", "max"])
@pytest.mark.parametrize("variant", ["reset_after", "reset_before"])
def test_stream_equals_offline_for_every_readout_and_variant(variant: str, readout: str, differences: bool) -> None:
    model = small_model(variant=variant, readout=readout, differences=differences)
    compare(model, example_frames(9), 5)
    compare(model, example_frames(7), None)


@pytest.mark.parametrize("window", [1, 4, None])
@pytest.mark.parametrize(
    "name", ["xception_lstm", "xception_gru", "tsn_xception", "xception_convgru", "sc_xception_convgru_aff", "stam"]
)
def test_stream_equals_offline_for_other_models(name: str, window: int | None) -> None:
    compare(small_model(name), example_frames(8), window)


@pytest.mark.parametrize("window", [4, None])
@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("name", ["sc_xception_convgru_mcam_aff", "xception_lstm"])
def test_stream_equals_offline_for_committees(name: str, differences: bool, window: int | None) -> None:
    compare(small_model(name, members=3, differences=differences), example_frames(8), window)


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(["parallel", "serial", "none"]),
    st.one_of(st.none(), st.integers(1, 9)),
    st.integers(1, 4),
    st.integers(1, 12),
    st.sampled_from(["branch", "block"]),
)
def test_stream_equals_offline_for_any_window_and_stride(excitation, window, stride, count, place) -> None:
    compare(small_model(excitation=excitation, excitation_place=place), example_frames(count), window, stride)


def test_reset_forgets_every_frame() -> None:
    stream = Stream(TorchEngine(small_model(), torch.device("cpu")), PREPROCESSING, LABELS, 3)
    frames = example_frames(8)
    fresh = [stream.step(frame) for frame in frames[:5]]
    for frame in frames[5:]:
        stream.step(frame)
    stream.reset()
    again = [stream.step(frame) for frame in frames[:5]]
    assert [p and p.scores.tolist() for p in again] == [p and p.scores.tolist() for p in fresh]


def test_a_frame_is_encoded_once_whatever_the_window() -> None:
    class Counting(TorchEngine):
        seen = 0

        def trunk(self, frames):
            self.seen += len(frames)
            return super().trunk(frames)

    engine = Counting(small_model(), torch.device("cpu"))
    stream = Stream(engine, PREPROCESSING, LABELS, 6)
    for frame in example_frames(10):
        stream.step(frame)
    assert engine.seen == 10


@pytest.mark.parametrize(("stride", "most"), [(1, 6), (3, 2)])
def test_all_open_windows_take_a_frame_in_one_step(stride: int, most: int) -> None:
    class Counting(TorchEngine):
        windows: ClassVar[list[int]] = []

        def advance(self, parts, state=None):
            if state is not None and len(state.frames) > 1:
                self.windows.append(len(state.frames))
            return super().advance(parts, state)

    engine = Counting(small_model(), torch.device("cpu"))
    stream = Stream(engine, PREPROCESSING, LABELS, 8, stride)
    for frame in example_frames(20):
        before = len(engine.windows)
        stream.step(frame)
        assert len(engine.windows) - before <= 1
    assert max(engine.windows) == most  # of 8: the newest is at its first frame, one waits for its second


def test_a_model_without_parts_is_run_anew_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = create_model("stc_resnet18", len(LABELS)).eval()
    with caplog.at_level(logging.WARNING):
        compare(model, example_frames(5), 4)
    assert "run anew" in caplog.text
    with pytest.raises(UsageError, match="give a window"):
        Stream(TorchEngine(model, torch.device("cpu")), PREPROCESSING, LABELS, None)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (-1, 1), (4, 0)])
def test_impossible_windows_are_refused(window: int, stride: int) -> None:
    with pytest.raises(UsageError, match="give a number of frames"):
        Stream(TorchEngine(small_model(), torch.device("cpu")), PREPROCESSING, LABELS, window, stride)


@pytest.mark.parametrize("value", [2.5, "all", True])
def test_a_window_is_a_whole_number_of_frames(value: object) -> None:
    engine = TorchEngine(small_model(), torch.device("cpu"))
    for window, stride in ((value, 1), (4, value)):
        with pytest.raises(UsageError, match="give a number of frames"):
            Stream(engine, PREPROCESSING, LABELS, window, stride)  # type: ignore[arg-type]


WRONG_FRAMES = [
    np.zeros((72, 96), np.uint8), np.zeros((72, 96, 4), np.uint8), np.zeros((3, 72, 96), np.uint8),
    np.zeros((72, 96, 3), np.float32), np.zeros((0, 96, 3), np.uint8), torch.zeros(72, 96, 3, dtype=torch.uint8),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_FRAMES, ids=lambda frame: f"{frame.dtype} {tuple(frame.shape)}")
@pytest.mark.parametrize(("window", "stride", "place"), [(4, 1, 1), (4, 2, 4), (4, 6, 2), (2, 1, 0), (None, 1, 3)])
def test_a_refused_frame_leaves_the_stream_as_it_was(wrong, window, stride, place) -> None:
    model, frames = small_model(), example_frames(9)
    engine = TorchEngine(model, torch.device("cpu"))
    disturbed, calm = (Stream(engine, PREPROCESSING, LABELS, window, stride) for _ in range(2))
    for number, frame in enumerate(frames):
        if number == place:
            with pytest.raises(UsageError, match="a frame must be a NumPy array, uint8"):
                disturbed.step(wrong)
        found, expected = disturbed.step(frame), calm.step(frame)
        assert (found is None) == (expected is None)
        if found is not None:
            assert found.source == expected.source
            np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_stream_that_fails_half_way_begins_anew() -> None:
    class Failing(TorchEngine):
        fails = False

        def advance(self, parts, state=None):
            if self.fails:
                raise MemoryError
            return super().advance(parts, state)

    model, frames = small_model(), example_frames(8)
    engine = Failing(model, torch.device("cpu"))
    stream = Stream(engine, PREPROCESSING, LABELS, 4)
    for frame in frames[:3]:
        stream.step(frame)
    engine.fails = True
    with pytest.raises(MemoryError):
        stream.step(frames[3])
    engine.fails = False
    found = [stream.step(frame) for frame in frames[4:]]
    assert found[:3] == [None] * 3 and found[3] is not None
    np.testing.assert_allclose(found[3].scores, scores_of_clip(model, frames[4:]), atol=TOLERANCE)


@pytest.mark.parametrize("name", ["sc_xception_convgru_mcam_aff", "stc_resnet18"])
def test_the_caller_may_fill_the_same_array_again(name: str) -> None:
    torch.manual_seed(0)
    model = small_model() if name.startswith("sc_") else create_model(name, len(LABELS)).eval()
    frames = example_frames(5)
    stream = Stream(TorchEngine(model, torch.device("cpu")), PREPROCESSING, LABELS, 4)
    buffer = np.empty_like(frames[0])
    for frame in frames:
        buffer[:] = frame
        found = stream.step(buffer)
    np.testing.assert_allclose(found.scores, scores_of_clip(model, frames[1:]), atol=TOLERANCE)


def test_a_window_of_frames_of_two_sizes_is_refused_where_it_is_run_anew() -> None:
    stream = Stream(TorchEngine(create_model("stc_resnet18", 3).eval(), torch.device("cpu")), PREPROCESSING, LABELS, 4)
    stream.step(np.zeros((72, 96, 3), np.uint8))
    with pytest.raises(UsageError, match="were 96x72 and this one is 64x48: reset"):
        stream.step(np.zeros((48, 64, 3), np.uint8))
    stream.reset()
    assert stream.step(np.zeros((48, 64, 3), np.uint8)) is None


@pytest.fixture(scope="module")
def without_background() -> Recognizer:
    preprocessing = Preprocessing(frames=4, size=32, background="remove")
    return Recognizer(LoadedModel(small_model(), LABELS, preprocessing.to_dict()))


@pytest.mark.parametrize(("window", "stride"), [("clip", 1), (3, 1), (7, 2)])
def test_stream_equals_offline_where_the_background_is_taken_away(window, stride, without_background) -> None:
    frames, length = example_frames(11), 4 if window == "clip" else window
    stream = without_background.stream(window, stride)
    assert not stream.exact
    found = {t: said for t, said in enumerate(map(stream.step, frames)) if said is not None}
    assert list(found) == list(range(length - 1, len(frames), stride))
    preprocessing = dataclasses.replace(without_background.preprocessing, frames=length)
    for t, said in found.items():
        with torch.inference_mode():
            clip = preprocessing(frames[t + 1 - length : t + 1])[None]
            expected = without_background.model(clip)[0].softmax(0).numpy()
        np.testing.assert_allclose(said.scores, expected, atol=TOLERANCE)
    if window == "clip":
        last = without_background.predict(frames[-4:])
        np.testing.assert_allclose(found[10].scores, last.scores, atol=TOLERANCE)


@pytest.mark.parametrize(("window", "words"), [(2, "at least 3 frames, not 2"), (None, "give a window")])
def test_windows_too_short_for_a_background_are_refused(window, words, without_background) -> None:
    with pytest.raises(UsageError, match=words):
        without_background.stream(window)


def test_stream_equals_offline_on_a_real_clip_at_full_size(shared: Path) -> None:
    """The paper's model, 299 pixels, with ImageNet weights, on every window of eight frames of a recording."""
    weights = shared / "weights" / "legacy_xception_imagenet_to_block12.safetensors"
    clip = sorted((shared / "data" / "weizmann").rglob("*.avi"))[0]
    preprocessing = Preprocessing(frames=8, size=299)
    torch.manual_seed(0)
    model = create_model("sc_xception_convgru_mcam_aff", 10, backbone_weights=str(weights)).eval()
    frames = np.stack([frame for frame, _ in zip(iter_frames(clip), range(10), strict=False)])
    stream = Stream(TorchEngine(model, torch.device("cpu")), preprocessing, [str(n) for n in range(10)], 8)
    for t, frame in enumerate(frames):
        found = stream.step(frame)
        if found is not None:
            with torch.inference_mode():
                expected = model(preprocessing(frames[t - 7 : t + 1])[None])[0].softmax(0).numpy()
            np.testing.assert_allclose(found.scores, expected, atol=TOLERANCE)
