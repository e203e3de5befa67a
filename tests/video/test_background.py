"""Of a camera that stands, only what moves is seen: the same in files, in memory, in training and in a stream."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import UsageError
from kinegru.video.background import GREY, without_background
from kinegru.video.loading import clip_input, load_clip
from kinegru.video.reader import iter_frames
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Augmentation, Preprocessing, augment_clip

REMOVE = Preprocessing(frames=6, size=40, background="remove")


def passing(background: np.ndarray, frames: int = 7) -> np.ndarray:
    """A white block of 8 pixels that passes before a background (H, W, 3) and is nowhere for half of the clip."""
    clip = np.repeat(background[None], frames, axis=0)
    for t in range(frames):
        clip[t, 8:16, 8 * t : 8 * t + 8] = np.minimum(background[8:16, 8 * t : 8 * t + 8].astype(int) + 60, 255)
    return clip


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_what_stands_still_is_grey(frames: int, height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    seen = without_background(torch.from_numpy(np.repeat(image[None], frames, axis=0)))
    assert seen.dtype == torch.uint8 and seen.shape == (frames, height, width, 3)
    assert (seen == GREY).all()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.integers(0, 99))
def test_the_same_motion_is_seen_alike_before_any_background(one: int, other: int) -> None:
    seen = []
    for seed in (one, other):
        wall = np.random.default_rng(seed).integers(0, 190, (24, 64, 3), dtype=np.uint8)
        seen.append(without_background(torch.from_numpy(passing(wall))))
    assert torch.equal(*seen)
    assert (seen[0] == GREY + 90).sum() == 7 * 8 * 8 * 3


def test_darker_and_brighter_are_told_apart_alike() -> None:
    clip = torch.tensor([100, 100, 100, 99, 101, 0, 255], dtype=torch.uint8)
    assert (without_background(clip).int() - GREY).tolist() == [0, 0, 0, -1, 1, -127, 128]  # clipped at both ends


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_file_memory_and_training_see_the_same(fit: str) -> None:
    preprocessing = dataclasses.replace(REMOVE, fit=fit)
    frames = np.stack(list(iter_frames(example_clip())))
    seen = load_clip(example_clip(), preprocessing)
    assert torch.equal(seen, clip_input(frames, preprocessing))
    sampled = frames[preprocessing.sampling().indices(len(frames), 25.0)]
    assert torch.equal(seen, preprocessing(sampled))
    nothing = Augmentation(crop_scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    assert torch.equal(seen, augment_clip(sampled, preprocessing, nothing, np.random.default_rng(0)))
    kept = load_clip(example_clip(), dataclasses.replace(preprocessing, background="keep"))
    assert not torch.equal(seen, kept)


def test_colours_of_a_training_view_change_after_the_background_is_gone() -> None:
    wall = np.random.default_rng(0).integers(0, 190, (24, 64, 3), dtype=np.uint8)
    preprocessing = dataclasses.replace(REMOVE, size=24, frames=7)
    brighter = Augmentation(crop_scale=(1.0, 1.0), flip=1.0, brightness=0.5, contrast=0.0, saturation=0.0)
    view = augment_clip(passing(wall), preprocessing, brighter, np.random.default_rng(3))
    ground = view.flatten().mode().values  # of one colour, whatever the wall is, and no longer the plain grey
    assert ground != preprocessing.normalise(torch.full((1, 1, 1, 3), GREY, dtype=torch.uint8)).flatten()[0]
    assert 0.6 < (view == ground).float().mean() < 1


def test_it_travels_in_the_model_file_and_older_files_stay_valid() -> None:
    assert Preprocessing.from_dict(REMOVE.to_dict()) == REMOVE
    assert "background" not in dataclasses.replace(REMOVE, background="keep").to_dict()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"background": "blur"}, "background must be keep or remove, not 'blur'"),
        ({"frames": 2}, "needs at least 3 frames, not 2"),
        ({"modalities": ("flow",)}, "background remove is for rgb"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dataclasses.replace(REMOVE, **changes)


def test_a_single_frame_has_no_background() -> None:
    with pytest.raises(UsageError, match="whole clips"):
        REMOVE.frame(np.zeros((8, 8, 3), np.uint8))
