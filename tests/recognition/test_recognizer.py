"""What is handed to a recogniser by mistake is refused in one line; what it hands back can be kept and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import kinegru
from kinegru.errors import ModelFileError, UsageError
from kinegru.models.modelfile import save_model
from kinegru.models.zoo import create_model
from kinegru.recognition.recognizer import Recognizer, choose_device, example_recognizer
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Preprocessing

FRAMES = np.zeros((4, 48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return example_recognizer()


@pytest.mark.parametrize(
    "wrong",
    [FRAMES.astype(np.float32), FRAMES[0], FRAMES[:, :0], FRAMES[:0], FRAMES[..., :2], list(FRAMES), torch.zeros(4)],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'shape', '')}",
)
def test_what_are_no_frames_is_refused(wrong, recognizer) -> None:
    with pytest.raises(UsageError, match=r"frames must be a NumPy array, uint8 \(L, H, W, 3\)"):
        recognizer.predict(wrong)


def test_one_file_is_not_taken_for_a_list_of_files(recognizer) -> None:
    with pytest.raises(UsageError, match="is one file"):
        next(recognizer.predict_many(str(example_clip())))
    for options in ({"batch": 0}, {"threads": 0}):
        with pytest.raises(UsageError, match="give 1 or more"):
            next(recognizer.predict_many([example_clip()], **options))


def test_predictions_can_be_compared_and_kept_in_a_set(recognizer) -> None:
    first, second = (recognizer.predict(FRAMES) for _ in range(2))
    assert first == first and first != second and len({first, second}) == 2


def test_an_example_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    example_recognizer()
    assert torch.equal(torch.rand(2), expected)


def test_an_unknown_device_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="device 'gpu' is unknown: give auto, cpu"):
        choose_device("gpu")


@pytest.mark.parametrize("change", [{"newer": 1}, {"size": "64"}, {"frames": 0}])
def test_preprocessing_that_cannot_be_used_is_the_files_fault(change, tmp_path: Path) -> None:
    model = create_model("sc_xception_convgru_mcam_aff", 2, backbone="xception_small", hidden_channels=4, width=8)
    path = tmp_path / "model.safetensors"
    save_model(path, model, ["a", "b"], Preprocessing(frames=4, size=64).to_dict() | change)
    with pytest.raises(ModelFileError, match=r"model\.safetensors: its preprocessing cannot be used") as caught:
        Recognizer.load(path, "cpu")
    assert "\n" not in str(caught.value)


def test_the_public_names_can_be_completed() -> None:
    assert set(kinegru.__all__) <= set(dir(kinegru))
