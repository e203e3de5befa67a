"""One resize and one normalisation for training, evaluation, prediction and live use."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.errors import UsageError
from kinegru.video import loading
from kinegru.video.loading import load_clip
from kinegru.video.reader import read_clip
from kinegru.video.sampling import Sampling, draw_jitter
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Augmentation, Preprocessing, augment_clip

NOTHING = Augmentation(crop_scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
FITS = ("stretch", "crop", "pad")


def random_clip(frames: int = 4, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def still_clip(image: np.ndarray, frames: int = 5) -> np.ndarray:
    return np.repeat(image[None], frames, axis=0)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(FITS),
    st.sampled_from(("bicubic", "bilinear")),
    st.integers(1, 70),
    st.integers(1, 90),
    st.integers(1, 40),
)
def test_a_live_frame_equals_the_same_frame_in_a_clip(
    fit: str, interpolation: str, height: int, width: int, size: int
) -> None:
    preprocessing = Preprocessing(
        size=size, fit=fit, interpolation=interpolation, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    )
    clip = random_clip(3, height, width)
    together = preprocessing(clip)
    assert together.shape == (3, 3, size, size)
    assert together.dtype == torch.float32
    assert together.is_contiguous()
    for i in range(3):
        assert torch.equal(preprocessing.frame(clip[i]), together[i])


@pytest.mark.parametrize("fit", FITS)
def test_training_without_augmentation_is_the_test_path(fit: str) -> None:
    preprocessing = Preprocessing(frames=6, size=40, fit=fit)
    clip = random_clip()
    assert torch.equal(augment_clip(clip, preprocessing, NOTHING, np.random.default_rng(0)), preprocessing(clip))


@pytest.mark.parametrize("fit", FITS)
def test_load_clip_is_reading_then_preprocessing(fit: str) -> None:
    preprocessing = Preprocessing(frames=6, size=40, fit=fit)
    frames, _ = read_clip(example_clip(), 6)
    assert torch.equal(load_clip(example_clip(), preprocessing), preprocessing(frames))
    assert torch.equal(load_clip(example_clip(), preprocessing, Augmentation(), None), preprocessing(frames))
    rng = np.random.default_rng(3)
    trained = load_clip(example_clip(), preprocessing, Augmentation(), rng)
    rng = np.random.default_rng(3)
    draw = Augmentation().draw(rng)
    jittered, _ = read_clip(example_clip(), Sampling(6, jitter=draw_jitter(6, rng)))
    box = draw.box(jittered.shape[1], jittered.shape[2], preprocessing)
    expected = draw.recolour(preprocessing.resize(jittered, box))
    assert torch.equal(trained, preprocessing.normalise(expected))
    assert not torch.equal(trained, preprocessing(frames))


@pytest.mark.parametrize("group", [1, 50_000, 10**9])
def test_groups_change_nothing(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are resized in groups of some bytes; 50,000 are three frames of this clip."""
    expected = [load_clip(example_clip(), Preprocessing(frames=count, size=40)) for count in (7, 50)]
    monkeypatch.setattr(loading, "GROUP_BYTES", group)
    for count, clip in zip((7, 50), expected, strict=True):  # 50: more than there are, so that some repeat
        assert torch.equal(load_clip(example_clip(), Preprocessing(frames=count, size=40)), clip)


def test_normalisation_is_the_printed_one() -> None:
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = Preprocessing(size=16, mean=mean, std=std)(values)  # same size: no resampling
    expected = (values.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(result.permute(0, 2, 3, 1).numpy(), expected, rtol=1e-5, atol=1e-5)
    default = Preprocessing(size=16)(values)
    assert (default.min().item(), default.max().item()) == (-1.0, 1.0)


def test_resize_is_antialiased() -> None:
    """A fine checkerboard shrinks to its mean; without antialiasing it would turn into stripes."""
    board = (np.indices((120, 120)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None].repeat(3, -1)
    for interpolation in ("bicubic", "bilinear"):
        assert Preprocessing(size=30, interpolation=interpolation)(board).abs().max() < 0.06


def test_fits_keep_what_they_say() -> None:
    wide = np.zeros((1, 20, 60, 3), np.uint8)
    wide[:, :, 20:40] = 255  # the middle third is white
    stretch, crop, pad = (Preprocessing(size=30, fit=fit, interpolation="bilinear")(wide)[0, 0] for fit in FITS)
    assert stretch[15, 2] < -0.9 and stretch[15, 15] > 0.9
    assert (crop[:, 3:27] > 0.9).all()  # only the middle square is left
    assert pad[15, 15] > 0.9 and pad[15, 2] < -0.9
    assert pad[[0, 9, 20, 29]].abs().max() < 0.01  # mid-grey above and below ten rows of picture


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(FITS))
def test_all_frames_of_a_clip_get_the_same_changes(seed: int, fit: str) -> None:
    """Equal frames stay equal: crop, flip and colours are drawn once a clip."""
    image = random_clip(1, 37, 51, seed % 97)[0]
    views = augment_clip(
        still_clip(image), Preprocessing(size=24, fit=fit), Augmentation(), np.random.default_rng(seed)
    )
    assert (views == views[:1]).all()


def test_flip_mirrors_and_crop_cuts() -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    preprocessing = Preprocessing(size=32)
    only_flip = Augmentation(crop_scale=(1, 1), flip=1.0, brightness=0, contrast=0, saturation=0)
    flipped = augment_clip(still_clip(ramp), preprocessing, only_flip, np.random.default_rng(0))
    assert torch.equal(flipped, preprocessing(still_clip(ramp)).flip(3))
    only_crop = Augmentation(crop_scale=(0.25, 0.25), flip=0, brightness=0, contrast=0, saturation=0)
    places = set()
    for seed in range(40):
        cut = augment_clip(still_clip(ramp, 1), preprocessing, only_crop, np.random.default_rng(seed))[0, 0]
        left, right = cut[16, 0].item(), cut[16, -1].item()
        assert right - left == pytest.approx(1.0, abs=0.1)  # half the width of a ramp from -1 to 1
        places.add(round(left, 1))
    assert min(places) < -0.8 and max(places) > -0.2 and len(places) > 6


def test_colour_jitter_is_the_linear_map_it_claims() -> None:
    clip = torch.from_numpy(random_clip(3, 20, 20) // 3 + 60)  # far from 0 and 255: nothing is clamped
    draw = Augmentation(flip=0).draw(np.random.default_rng(1))
    luma = np.array([0.299, 0.587, 0.114])
    x = clip.numpy().astype(np.float64)
    x = (1 - draw.saturation) * (x @ luma)[..., None] + draw.saturation * x
    x = (1 - draw.contrast) * (x @ luma).mean() + draw.contrast * x
    x = np.clip(x * draw.brightness, 0, 255)
    assert np.abs(draw.recolour(clip).numpy() - x).max() <= 0.51
    assert min(draw.brightness, draw.contrast, draw.saturation) >= 0.8
    assert max(draw.brightness, draw.contrast, draw.saturation) <= 1.2


def test_same_seed_same_view_and_seeds_differ() -> None:
    preprocessing = Preprocessing(frames=5, size=24)
    views = [load_clip(example_clip(), preprocessing, Augmentation(), np.random.default_rng(s)) for s in (1, 1, 2)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_settings_travel_through_json_and_refuse_the_unknown() -> None:
    preprocessing = Preprocessing(frames=16, size=171, fit="crop", interpolation="bilinear", mean=(0.1, 0.2, 0.3))
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing
    with pytest.raises(UsageError, match="unknown preprocessing settings: colour"):
        Preprocessing.from_dict(preprocessing.to_dict() | {"colour": "bgr"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0},
        {"size": 0},
        {"fit": "squeeze"},
        {"interpolation": "nearest"},
        {"std": (0, 1, 1)},
        {"mean": (0.5,)},
    ],
)
def test_senseless_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Preprocessing(**wrong)


@pytest.mark.parametrize("wrong", [{"crop_scale": (0, 1)}, {"crop_scale": (1, 0.5)}, {"flip": 2}, {"contrast": -1}])
def test_senseless_augmentation_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_arrays_of_any_memory_layout_are_taken() -> None:
    preprocessing = Preprocessing(size=16)
    clip = random_clip()
    expected = preprocessing(clip)
    mirrored = np.ascontiguousarray(clip[:, :, ::-1])[:, :, ::-1]  # negative strides
    fixed = clip.copy()
    fixed.flags.writeable = False
    assert torch.equal(preprocessing(mirrored), expected)
    assert torch.equal(preprocessing(fixed), expected)
    assert torch.equal(preprocessing(np.asfortranarray(clip)), expected)


def test_real_clips_become_input(shared: Path) -> None:
    for path in (shared / "data/weizmann/run/eli_run.avi", shared / "data/fights/fight/fi001.mp4"):
        clip = load_clip(path, Preprocessing(frames=8, size=96))
        assert clip.shape == (8, 3, 96, 96)
        assert -1 <= clip.min() < clip.mean() < clip.max() <= 1
        assert (clip[0] != clip[-1]).any()
