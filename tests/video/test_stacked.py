"""Time as colour: what stands still is grey, what moves is coloured, and one path serves files, memory and training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.video.loading import clip_input, load_clip, load_images
from kinegru.video.reader import iter_frames
from kinegru.video.sampling import Sampling, uniform_indices
from kinegru.video.stacked import STEP, SamplingAround, around, stacked_grey
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Augmentation, Preprocessing
from kinegru.video.writer import write_video

BOTH = Preprocessing(frames=5, size=40, modalities=("rgb", "sg3i"))
TIME = dataclasses.replace(BOTH, modalities=("sg3i",))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 90), st.integers(1, 12), st.sampled_from([None, 5.0, 12.5]))
def test_each_sampled_frame_stands_between_its_neighbours(length: int, frames: int, rate: float | None) -> None:
    sampling = Sampling(frames, rate)
    middle = sampling.indices(length, 25.0)
    found = SamplingAround(sampling).indices(length, 25.0).reshape(frames, 3)
    assert np.array_equal(found, around(middle, length)) and np.array_equal(found[:, 1], middle)
    assert found.min() >= 0 and found.max() < length
    inside = (middle >= STEP) & (middle < length - STEP)
    assert np.array_equal(found[inside], middle[inside][:, None] + [-STEP, 0, STEP])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_red_green_and_blue_are_before_now_and_after(frames: int, height: int, width: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (3 * frames, height, width, 3), dtype=np.uint8)
    luma = images @ np.array([0.299, 0.587, 0.114])  # (3 T, H, W)
    expected = luma.reshape(frames, 3, height, width).transpose(0, 2, 3, 1)
    found = stacked_grey(torch.from_numpy(images))
    assert found.dtype == torch.uint8 and np.abs(found.numpy() - expected).max() <= 0.5 + 1e-3


def test_what_moves_faster_has_wider_edges_of_colour(tmp_path: Path) -> None:
    shares = []
    for speed in (0, 1, 3):  # pixels a frame
        clip = np.full((30, 64, 160, 3), 60, np.uint8)
        for t, frame in enumerate(clip):
            frame[16:48, 10 + speed * t : 40 + speed * t] = (200, 190, 40)
        write_video(tmp_path / f"{speed}.mp4", clip)
        seen = load_clip(tmp_path / f"{speed}.mp4", dataclasses.replace(TIME, size=64))  # (5, 3, 64, 64)
        shares.append(((seen.amax(dim=1) - seen.amin(dim=1)) > 0.2).float().mean().item())
    assert shares[0] < 0.002 and shares[2] > 2 * shares[1] > 0.02


@pytest.mark.parametrize("background", ["keep", "remove"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("modalities", [("sg3i",), ("rgb", "sg3i"), ("sg3i", "rgb")])
def test_a_clip_in_memory_is_treated_as_its_file(modalities: tuple[str, ...], fit: str, background: str) -> None:
    preprocessing = dataclasses.replace(BOTH, modalities=modalities, fit=fit, background=background)
    frames = np.stack(list(iter_frames(example_clip())))
    seen = load_clip(example_clip(), preprocessing)
    assert seen.shape == (5, preprocessing.channels, 40, 40)
    assert torch.equal(clip_input(frames, preprocessing), seen)


def test_rgb_is_the_same_beside_time_and_by_itself() -> None:
    for background in ("keep", "remove"):
        both, time = (dataclasses.replace(p, background=background) for p in (BOTH, TIME))
        together = load_clip(example_clip(), both)
        alone = load_clip(example_clip(), dataclasses.replace(both, modalities=("rgb",)))
        assert torch.equal(together[:, :3], alone) and torch.equal(together[:, 3:], load_clip(example_clip(), time))


def test_without_background_what_stands_still_is_grey_in_all_three() -> None:
    wall = np.random.default_rng(0).integers(0, 190, (48, 64, 3), dtype=np.uint8)
    seen = clip_input(np.repeat(wall[None], 9, axis=0), dataclasses.replace(TIME, background="remove"))
    assert (seen == seen.flatten()[0]).all() and abs(seen.flatten()[0]) < 0.01


def test_a_training_view_is_mirrored_and_its_time_keeps_its_colours() -> None:
    views = []
    for flip, saturation in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):  # the same draws but for these
        augmentation = Augmentation(flip=flip, brightness=0.0, contrast=0.0, saturation=saturation)
        views.append(load_images(example_clip(), BOTH, augmentation, np.random.default_rng(3))[0])  # (5, 40, 40, 6)
    plain, mirrored, coloured = views
    assert torch.equal(mirrored, plain.flip(2))
    assert torch.equal(coloured[..., 3:], plain[..., 3:]) and not torch.equal(coloured[..., :3], plain[..., :3])


def test_frames_nobody_asked_for_are_not_decoded_to_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    original = Preprocessing.resize
    monkeypatch.setattr(Preprocessing, "resize", lambda self, f, *a: shown.append(len(f)) or original(self, f, *a))
    load_clip(example_clip(), BOTH)
    assert sum(shown) == len(np.unique(around(uniform_indices(30, 5), 30)))
