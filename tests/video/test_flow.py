"""Flow is the motion that was put in; eight bits, cache, crop and mirror keep it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinegru.data import flow_cache
from kinegru.data.catalog import Clip
from kinegru.data.dataset import ClipDataset
from kinegru.data.flow_cache import FlowCache
from kinegru.errors import UsageError, VideoError
from kinegru.video.flow import (
    BOUND,
    FIELDS,
    STEP,
    ZERO,
    contrast,
    dequantise,
    energy,
    flow_of_frames,
    quantise,
    read_flow,
    saliency,
    windows,
)
from kinegru.video.loading import clip_input, load_clip, load_images
from kinegru.video.motion import mirrored
from kinegru.video.reader import iter_frames
from kinegru.video.synthetic import example_clip
from kinegru.video.transforms import Augmentation, Preprocessing
from kinegru.video.writer import write_video

pytest.importorskip("cv2", reason="the extra `flow` is not installed")

ALL = Preprocessing(frames=4, size=48, modalities=("rgb", "flow", "saliency", "energy"))
PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def encoded(path: Path, frames: np.ndarray) -> Path:
    write_video(path, frames)
    return path


def texture(height: int = 144, width: int = 180, seed: int = 0, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """A smooth random pattern that repeats at its edges, float (height, width), moved by exactly (dx, dy) pixels."""
    spectrum = np.fft.fft2(np.random.default_rng(seed).standard_normal((height, width)))
    v, u = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    spectrum *= np.exp(-80 * (u**2 + v**2)) * np.exp(-2j * np.pi * (u * dx + v * dy))
    image = np.fft.ifft2(spectrum).real
    return 127 + 40 * image / image.std()


def picture(grey: np.ndarray) -> np.ndarray:
    """Grey (H, W), any number -> uint8 (H, W, 3)."""
    return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def moving(dx: float, dy: float, frames: int = 3) -> np.ndarray:
    return np.stack([picture(texture(dx=i * dx, dy=i * dy)) for i in range(frames)])


def patch_over_background(frames: int = 14, pan: float = 0.0, speed: int = 3) -> np.ndarray:
    """A textured square that goes to the right, before a background that pans."""
    clip = np.stack([picture(texture(dx=i * pan)) for i in range(frames)])
    square = picture(texture(40, 40, seed=5))
    for i, frame in enumerate(clip):
        frame[50:90, 40 + speed * i : 80 + speed * i] = square
    return clip


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded(tmp_path_factory.mktemp("flow") / "patch.mp4", patch_over_background())


@pytest.mark.parametrize("motion", [(1, 0), (0, 2), (-3.5, 1.25), (6, -4), (0.3, 0.2), (0, 0), (9, 0)])
def test_flow_of_a_translation_is_the_known_motion(motion: tuple[float, float]) -> None:
    found = dequantise(flow_of_frames(moving(*motion)))  # (2, h, w, 2)
    assert found.shape == (2, 144, 180, 2)
    inside = found[:, 20:-20, 20:-20]  # what leaves at one edge comes back at the other
    assert np.abs(inside.mean(axis=(1, 2)) - motion).max() < 0.12
    assert np.abs(inside - motion).max(axis=3).mean() < 0.2


def test_flow_of_an_encoded_translation_is_the_known_motion(tmp_path: Path) -> None:
    path = encoded(tmp_path / "pan.mp4", moving(2.0, -1.0, frames=6))
    found = dequantise(read_flow(path, [0, 4]))[:, 20:-20, 20:-20]
    assert np.abs(np.median(found, axis=(1, 2)) - (2, -1)).max() < 0.2


@settings(deadline=None, max_examples=50)
@given(st.floats(-60, 60))
def test_eight_bits_are_off_by_half_a_step_at_most(motion: float) -> None:
    stored = quantise(np.array([motion, -motion]))
    back = dequantise(stored)
    assert abs(back[0] - np.clip(motion, -BOUND, BOUND)) <= STEP / 2 + 1e-5
    assert STEP / 2 < 0.08 and stored.dtype == np.uint8 and stored.min() >= 1
    assert abs(int(stored[0]) + int(stored[1]) - 2 * ZERO) <= (1 if abs(motion / STEP % 1 - 0.5) < 1e-6 else 0)
    assert quantise(np.zeros(1)) == ZERO


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 12))
def test_a_stack_is_ten_consecutive_fields_of_the_clip(length: int, count: int) -> None:
    starts = np.sort(np.random.default_rng(length).integers(0, length, count))
    stacks = windows(starts, length)
    assert stacks.shape == (count, FIELDS)
    for start, stack in zip(starts, stacks, strict=True):
        if start + FIELDS <= length - 1:  # there are ten fields from this frame on
            assert stack.tolist() == list(range(start, start + FIELDS))
        elif length > FIELDS:  # the last ten
            assert stack.tolist() == list(range(length - 1 - FIELDS, length - 1))
        else:
            assert stack.tolist() == [min(i, max(length - 2, 0)) for i in range(FIELDS)]


def test_the_fields_asked_for_are_those_of_the_whole_clip() -> None:
    whole = flow_of_frames(iter_frames(example_clip()))
    assert len(whole) == 29
    numbers = [28, 3, 4, 4, 10]
    assert np.array_equal(read_flow(example_clip(), numbers), whole[numbers])
    assert np.array_equal(flow_of_frames(iter_frames(example_clip()), numbers), whole[numbers])
    assert np.array_equal(read_flow(example_clip(), [28, 40]), whole[[28, 28]])  # nothing there: the last before it


def test_a_single_frame_does_not_move(tmp_path: Path) -> None:
    path = encoded(tmp_path / "one.mp4", picture(texture())[None])
    assert (read_flow(path, [0, 0]) == ZERO).all() and (flow_of_frames(iter_frames(path)) == ZERO).all()
    clip = load_clip(path, ALL)
    assert clip.shape == (4, 27, 48, 48) and (clip[:, 3:23] == 0).all() and (clip[:, 23:] == -1).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (8, 100), (12, 12), (400, 30)])
def test_frames_of_any_size_have_flow(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    fields = flow_of_frames(frames)
    assert len(fields) == 2 and min(fields.shape[1:3]) >= 30 and fields.min() >= 1
    assert clip_input(frames, ALL).isfinite().all()


def test_saliency_is_its_equation_and_shows_what_moves_otherwise() -> None:
    fields = np.random.default_rng(1).integers(1, 256, (3, 5, 6, 2)).astype(np.uint8)
    r = np.zeros((5, 6))
    for field in fields:
        d = [[[(int(v) - 128) * 20 / 127 for v in pixel] for pixel in row] for row in field]
        median = [np.median([d[i][j][k] for i in range(5) for j in range(6)]) for k in (0, 1)]
        for i, j in np.ndindex(5, 6):
            r[i, j] += np.hypot(d[i][j][0] - median[0], d[i][j][1] - median[1]) / 3
    expected = r / (r + r.mean() + 0.5)
    assert np.abs(saliency(np.stack([contrast(f) for f in fields])) / 255 - expected).max() <= 0.5 / 255 + 1e-5
    for pan in (0.0, -2.0):  # whether the camera stands or follows something else
        shown = saliency(np.stack([contrast(f) for f in flow_of_frames(patch_over_background(11, pan))]))
        assert shown[55:85, 75:85].mean() > 170 and np.median(shown) < 40


def test_energy_is_how_fast_something_moves_against_the_camera_and_when() -> None:
    fields = np.random.default_rng(2).integers(1, 256, (10, 5, 6, 2)).astype(np.uint8)
    pixels = (fields.astype(float) - 128) * 20 / 127
    distance = np.linalg.norm(pixels - np.median(pixels.reshape(10, -1, 2), axis=1)[:, None, None], axis=-1)
    expected = np.stack([distance[a:b].mean(axis=0) for a, b in ((0, 3), (3, 7), (7, 10))], axis=-1) * 255 / 20
    found = energy(np.stack([contrast(field) for field in fields]))
    assert found.shape == (5, 6, 3) and np.abs(found - expected.clip(max=255)).max() <= 0.5 + 1e-4


def test_energy_input_is_of_pixels_whichever_way_they_go(tmp_path: Path) -> None:
    preprocessing = Preprocessing(frames=2, size=72, fit="stretch", modalities=("energy",))
    for pan in (0.0, -2.0):  # the patch moves by three pixels a frame, by five against a camera that pans
        path = encoded(tmp_path / f"{pan}.mp4", patch_over_background(14, pan))
        clip = load_clip(path, preprocessing)  # (2, 3, 72, 72)
        still, moves = clip[:, :, :20, :20], clip[0, 0, 28:42, 31:33]
        assert (still + 1).abs().max() < 0.4
        assert abs((moves.median() + 1) / 0.8 - (3 - pan)) < 0.7


def test_a_clip_in_memory_is_treated_as_its_file(video: Path) -> None:
    frames = np.stack(list(iter_frames(video)))
    for fit in ("stretch", "crop", "pad"):
        for modalities in (("rgb",), ("flow",), ("saliency", "rgb"), ("energy",), ALL.modalities):
            preprocessing = Preprocessing(frames=5, size=40, fit=fit, modalities=modalities)
            clip = load_clip(video, preprocessing)
            assert clip.shape == (5, preprocessing.channels, 40, 40)
            assert torch.equal(clip_input(frames, preprocessing), clip)


def test_modalities_are_the_same_channels_whatever_their_company(video: Path) -> None:
    together = load_clip(video, ALL)
    parts = [load_clip(video, Preprocessing(frames=4, size=48, modalities=(name,))) for name in ALL.modalities]
    assert torch.equal(together, torch.cat(parts, dim=1))
    assert torch.equal(parts[0], load_clip(video, Preprocessing(frames=4, size=48)))


def test_flow_input_is_x_then_y_without_its_mean(tmp_path: Path) -> None:
    path = encoded(tmp_path / "pan.mp4", moving(2.0, -1.0, frames=14))
    preprocessing = Preprocessing(frames=2, size=64, modalities=("flow",))
    images, _ = load_images(path, preprocessing)  # (2, 64, 64, 20)
    middle = images[:, 16:48, 16:48].double().flatten(0, 2).median(dim=0).values.numpy()
    assert np.abs((middle - ZERO) * STEP - np.tile([2.0, -1.0], FIELDS)).max() < 0.2
    planes = preprocessing.normalise(images)
    assert planes.mean(dim=(2, 3)).abs().max() < 1e-5
    expected = (images.permute(0, 3, 1, 2).float() - 128) / 127
    assert torch.allclose(planes, expected - expected.mean(dim=(2, 3), keepdim=True), atol=1e-6)


def test_a_mirrored_view_moves_the_other_way(video: Path) -> None:
    views = []
    for flip in (0.0, 1.0):  # the same draws but for the flip
        augmentation = Augmentation(crop_scale=(0.5, 1.0), flip=flip, **PLAIN)
        views.append(load_images(video, ALL, augmentation, np.random.default_rng(3))[0])
    plain, turned = views[0].flip(2), views[1]
    assert torch.equal(turned[..., :3], plain[..., :3]) and torch.equal(turned[..., 23:], plain[..., 23:])
    assert torch.equal(turned[..., 4:23:2], plain[..., 4:23:2])  # y
    opposite = (256 - plain[..., 3:23:2].int()).clamp(max=255)
    assert torch.equal(turned[..., 3:23:2].int(), opposite)  # x
    frames = np.stack(list(iter_frames(video)))[:4]
    found = flow_of_frames(np.ascontiguousarray(frames[:, :, ::-1]))
    expected = mirrored(torch.from_numpy(flow_of_frames(frames))).numpy()
    assert np.abs(dequantise(found) - dequantise(expected)).mean() < 0.2
    assert np.abs(dequantise(found[:, 60:80, 180 - 75 : 180 - 55, 0]).mean() + 3) < 0.3


RAMP = np.linspace(20, 235, 96)[None] * np.linspace(0.4, 1, 72)[:, None]


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded(tmp_path_factory.mktemp("flow") / "ramp.mp4", np.repeat(picture(RAMP)[None], 12, axis=0))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.sampled_from(["stretch", "crop", "pad"]))
def test_flow_is_cut_where_its_frame_is(ramp: Path, seed: int, fit: str) -> None:
    """The flow of a clip is given as a ramp over the picture, at another resolution: it falls on the picture's ramp."""

    def ramp_as_flow(path: object, numbers: np.ndarray) -> np.ndarray:
        small = torch.nn.functional.interpolate(torch.from_numpy(RAMP)[None, None], (36, 48), mode="area")[0, 0]
        return np.repeat(small.round().to(torch.uint8).numpy()[None, ..., None], 2, axis=3).repeat(len(numbers), axis=0)

    preprocessing = Preprocessing(frames=2, size=32, fit=fit, modalities=("rgb", "flow"), interpolation="bilinear")
    augmentation = Augmentation(crop_scale=(0.3, 0.9), flip=0.0, **PLAIN)
    images, _ = load_images(ramp, preprocessing, augmentation, np.random.default_rng(seed), ramp_as_flow)
    inside = (images[..., 0] != 127) & (images[..., 4] != ZERO) if fit == "pad" else images[..., 0] >= 0
    off = (images[..., :1].int() - images[..., 4:23:2].int()).abs()[inside]  # y, which no mirror changes
    assert off.double().mean() < 6 and off.double().quantile(0.95) < 14


def test_colours_change_in_rgb_alone(video: Path) -> None:
    views = [
        load_images(video, ALL, Augmentation(flip=0.0, **jitter), np.random.default_rng(5))[0]
        for jitter in (PLAIN, {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9})
    ]
    assert torch.equal(views[0][..., 3:], views[1][..., 3:]) and not torch.equal(views[0][..., :3], views[1][..., :3])


def test_the_cache_gives_what_computing_gives(tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, numbers = FlowCache(tmp_path / "flow"), np.array([0, 5, 5, 12])
    first = cache(video, numbers)
    assert np.array_equal(first, read_flow(video, numbers))
    assert [p.suffix for p in (tmp_path / "flow").iterdir()] == [".npz"]

    def never(*arguments: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(flow_cache, "flow_of_frames", never)
        assert np.array_equal(cache(video, numbers), first)
        clips = ClipDataset([Clip(video, "go")], ["go"], ALL, Augmentation(), cache)
        views = [clips[0, view].inputs for view in (0, 1, 2)]
    assert torch.equal(views[0], load_clip(video, ALL)) and not torch.equal(views[1], views[2])


def test_the_cache_follows_content_and_settings_and_mends_itself(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FlowCache(tmp_path / "flow")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    assert cache.path(copy) == cache.path(video)
    before = cache.path(video)
    fields = cache(video, [3])
    before.write_bytes(before.read_bytes()[:100])  # cut short
    assert np.array_equal(cache(video, [3]), fields) and before.stat().st_size > 100
    encoded(copy, patch_over_background(speed=1))
    assert cache.path(copy) != before and not np.array_equal(cache(copy, [3]), fields)
    monkeypatch.setattr(flow_cache.flow, "LARGEST_SIDE", 120)
    assert cache.path(video) != before
    (tmp_path / "file").write_text("no folder can be here")
    assert np.array_equal(FlowCache(tmp_path / "file" / "flow")(video, [3]).shape, (1, 120, 150, 2))
    with pytest.raises(VideoError, match="no such file"):
        cache(tmp_path / "nothing.mp4", [0])


def test_long_recordings_are_not_cached_whole(tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_cache, "LONGEST", 10)
    assert np.array_equal(FlowCache(tmp_path)(video, [2, 12]), read_flow(video, [2, 12]))
    assert not list(tmp_path.iterdir())


def test_without_opencv_one_line_names_the_extra(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for call in (
        lambda: read_flow(video, [0]),
        lambda: load_clip(video, ALL),
        lambda: ClipDataset([Clip(video, "go")], ["go"], ALL),
    ):
        with pytest.raises(UsageError, match=r"pip install 'kinegru\[flow\]'") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert load_clip(video, Preprocessing(frames=2, size=16)).shape == (2, 3, 16, 16)


def test_modalities_travel_and_plain_settings_stay_as_they_were() -> None:
    assert Preprocessing.from_dict(ALL.to_dict()) == ALL and ALL.channels == 27
    assert "modalities" not in Preprocessing().to_dict()
    assert Preprocessing.from_dict({"size": 96}).modalities == ("rgb",)
    for wrong in ([], ["rgb", "rgb"], ["depth"]):
        with pytest.raises(UsageError, match="modalities must be some of rgb, flow, saliency, energy"):
            Preprocessing(modalities=wrong)
    with pytest.raises(UsageError, match="whole clips"):
        ALL(np.zeros((2, 16, 16, 3), np.uint8))
