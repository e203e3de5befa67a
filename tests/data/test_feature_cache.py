"""The feature cache: never stale, never half a file, small errors, an honest estimate, and nothing computed twice."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import time
from collections import namedtuple
from multiprocessing import Process, Value, get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinegru.data import feature_cache
from kinegru.data.catalog import Clip
from kinegru.data.dataset import ClipDataset
from kinegru.data.feature_cache import CachedDataset, FeatureCache
from kinegru.errors import DataError
from kinegru.models.zoo import create_model
from kinegru.video.transforms import Augmentation, Preprocessing
from kinegru.video.writer import write_video

Disk = namedtuple("Disk", "total used free")
SMALL = Preprocessing(frames=3, size=32)
LARGE = Preprocessing(frames=3, size=64)


def fail(frames: torch.Tensor) -> torch.Tensor:
    raise AssertionError("nothing should have been computed")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four videos."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        frames = np.random.default_rng(number).integers(0, 255, (9, 24, 32, 3), np.uint8)
        write_video(folder / f"p{number}.mp4", frames)
    return folder


@pytest.fixture
def make(clips: Path, tmp_path: Path):
    """A function that gives a cache; what it is not told is as in every other call."""

    def make(
        preprocessing: Preprocessing = SMALL,
        augmentation: Augmentation | None = Augmentation(),  # noqa: B008  (frozen)
        stage: str = "trunk-1",
        precision: str = "float16",
        folder: Path = clips,
    ) -> FeatureCache:
        found = [Clip(path, "walk") for path in sorted(folder.glob("*.mp4"))]
        dataset = ClipDataset(found, ["walk"], preprocessing, augmentation)
        return FeatureCache(tmp_path / "cache", stage, dataset, precision)

    return make


# -- never stale --------------------------------------------------------------------------------------------------

CHANGES = {
    "frames": {"preprocessing": dataclasses.replace(SMALL, frames=4)},
    "size": {"preprocessing": dataclasses.replace(SMALL, size=33)},
    "fit": {"preprocessing": dataclasses.replace(SMALL, fit="crop")},
    "background": {"preprocessing": dataclasses.replace(SMALL, background="remove")},
    "interpolation": {"preprocessing": dataclasses.replace(SMALL, interpolation="bilinear")},
    "mean": {"preprocessing": dataclasses.replace(SMALL, mean=(0.5, 0.5, 0.4))},
    "std": {"preprocessing": dataclasses.replace(SMALL, std=(0.5, 0.5, 0.4))},
    "frozen part": {"stage": "trunk-2"},
    "precision": {"precision": "uint8"},
    "crop": {"augmentation": Augmentation(crop_scale=(0.6, 1.0))},
    "flip": {"augmentation": Augmentation(flip=0.25)},
    "brightness": {"augmentation": Augmentation(brightness=0.1)},
    "contrast": {"augmentation": Augmentation(contrast=0.1)},
    "saturation": {"augmentation": Augmentation(saturation=0.1)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_setting_is_another_file(make, what: str) -> None:
    before, after = make(), make(**CHANGES[what])
    clip = before.dataset.clips[0]
    assert before.path(clip, 1) != after.path(clip, 1)
    # the plain view knows nothing of augmentation, so it is kept when that changes
    assert (before.path(clip, 0) == after.path(clip, 0)) == ("augmentation" in CHANGES[what])


def test_another_view_is_another_file(make) -> None:
    cache = make()
    assert len({cache.path(cache.dataset.clips[0], view) for view in range(4)}) == 4
    plain = make(augmentation=None)  # has one view only, whatever it is called
    assert {plain.path(plain.dataset.clips[0], view) for view in range(4)} == {cache.path(cache.dataset.clips[0], 0)}


def test_another_clip_content_is_another_file(make, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    folder.mkdir()
    path = folder / "p.mp4"
    shutil.copy(clips / "p0.mp4", path)
    cache = make(folder=folder)
    clip = cache.dataset.clips[0]
    before = cache.path(clip, 0)
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit, the same length
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert cache.path(clip, 0) != before
    shutil.copy(clips / "p0.mp4", path)
    assert cache.path(clip, 0) == before  # the old content is the old file


def test_a_moved_data_set_is_found_again(make, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "moved")
    here, there = make(), make(folder=tmp_path / "moved")
    for view in (0, 1):
        assert here.path(here.dataset.clips[1], view) == there.path(there.dataset.clips[1], view)


def test_an_augmented_view_of_a_renamed_clip_is_another_file(make, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "named").mkdir()
    shutil.copy(clips / "p0.mp4", tmp_path / "named" / "other.mp4")
    here, there = make(), make(folder=tmp_path / "named")
    assert here.path(here.dataset.clips[0], 0) == there.path(there.dataset.clips[0], 0)
    assert here.path(here.dataset.clips[0], 1) != there.path(there.dataset.clips[0], 1)  # its name seeds its views


@pytest.mark.parametrize("profile", ["head", "tail"])
def test_frozen_weights_change_the_cache_and_trained_ones_do_not(profile: str) -> None:
    def build(seed: int):
        torch.manual_seed(seed)
        options = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}
        return create_model("sc_xception_convgru_mcam_aff", 2, **options).set_profile(profile)

    model, other = build(0), build(1)
    stage = model.cache_fingerprint()
    assert stage != other.cache_fingerprint()  # other random weights in the trunk
    other.encoder.load_state_dict(model.encoder.state_dict())
    assert stage == other.cache_fingerprint()  # the classifier's and the ConvGRU's weights are still another seed's
    with torch.no_grad():
        next(other.encoder.trunk.parameters())[0, 0, 0, 0] += 1e-3
    assert stage != other.cache_fingerprint()
    statistics = next(b for name, b in model.encoder.trunk.named_buffers() if name.endswith("running_mean"))
    statistics[0] += 1
    assert stage != model.cache_fingerprint()


def test_a_tail_cache_outlives_training_of_the_tail_and_a_head_cache_does_not() -> None:
    options = {"backbone": "xception_small", "hidden_channels": 4, "width": 8}
    model = create_model("sc_xception_convgru_mcam_aff", 2, **options)
    stages = [model.set_profile(profile).cache_fingerprint() for profile in ("tail", "head")]
    with torch.no_grad():
        next(model.encoder.neck.tail.parameters()).add_(1)
    after = [model.set_profile(profile).cache_fingerprint() for profile in ("tail", "head")]
    assert after[0] == stages[0] and after[1] != stages[1] and stages[0] != stages[1]


def test_a_clip_that_changes_while_it_is_read_is_not_stored(make, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "arriving"
    shutil.copytree(clips, folder)
    cache = make(folder=folder)

    def encode(frames: torch.Tensor) -> torch.Tensor:
        (folder / "p1.mp4").write_bytes((clips / "p2.mp4").read_bytes() + b"\0")  # a copy that is still going on
        return frames

    errors = cache.fill([(0, 0), (1, 0)], encode)
    assert list(errors) == [1] and "p1.mp4" in errors[1] and "changed" in errors[1]
    assert cache.missing([(0, 0), (1, 0)]) == [(1, 0)]
    assert cache.fill([(1, 0)], lambda frames: frames) == {}


# -- whole files only ---------------------------------------------------------------------------------------------


def encode_large(frames: torch.Tensor) -> torch.Tensor:
    """Frames (n, T, 3, 64, 64) -> maps (n, T, 96, 64, 64): 2.4 MB a clip in float16, long enough to be killed in."""
    return frames.repeat(1, 1, 32, 1, 1) * torch.linspace(0.5, 2, 96)[:, None, None]


def fill_large(cache: FeatureCache, items: list[tuple[int, int]], computed: Any = None) -> Process:
    """A process of its own that fills the cache, at 50 ms a view where it counts what it `computed`."""

    def encode(frames: torch.Tensor) -> torch.Tensor:
        if computed is not None:
            computed.value += len(frames)
            time.sleep(0.05 * len(frames))
        return encode_large(frames)

    def fill() -> None:
        torch.set_num_threads(1)
        os._exit(1 if cache.fill(items, encode, batch=2) else 0)

    process = get_context("fork").Process(target=fill)
    process.start()
    return process


def finished(folder: Path) -> list[Path]:
    return list(folder.glob("*/*.safetensors"))


def assert_right(cache: FeatureCache, items: list[tuple[int, int]]) -> None:
    for index, view in items:
        expected = encode_large(cache.dataset[index, view].inputs[None])[0]
        torch.testing.assert_close(cache.read(cache.dataset.clips[index], view).float(), expected, rtol=1e-3, atol=1e-6)


def test_a_killed_fill_leaves_no_half_file_and_the_next_run_completes_it(make) -> None:
    cache = make(LARGE)
    items = [(index, view) for view in (1, 2, 3) for index in range(4)]
    process = fill_large(cache, items)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.is_alive():
        done = len(finished(cache.folder))
        if done >= 6 or (done >= 2 and any(cache.folder.glob("*/.*.tmp"))):
            break  # in the middle of writing, as a rule
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the process ended before it could be killed"

    todo = cache.missing(items)
    assert 0 < len(todo) < len(items)
    computed: list[int] = []

    def encode(frames: torch.Tensor) -> torch.Tensor:
        computed.append(len(frames))
        return encode_large(frames)

    assert cache.fill(items, encode, batch=2) == {}
    assert sum(computed) == len(todo)  # what the killed process had finished is used
    assert_right(cache, items)


def test_two_processes_share_the_work_of_filling_one_cache(make) -> None:
    cache = make(LARGE)
    items = [(index, view) for view in range(1, 9) for index in range(4)]
    counts = [Value("i"), Value("i")]
    processes = [fill_large(cache, items, count) for count in counts]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert cache.missing(items) == [] and len(finished(cache.folder)) == len(items)
    assert not list(cache.folder.glob("*/.*.tmp"))
    assert_right(cache, items)
    computed = [count.value for count in counts]
    assert min(computed) >= 4 and sum(computed) <= len(items) + 12  # what both have in hand at once is computed twice


def test_what_another_process_has_written_is_not_computed_and_counts_as_done(make) -> None:
    cache = make()
    items = [(index, view) for view in (1, 2) for index in range(4)]
    computed: list[int] = []
    steps: list[tuple[int, int]] = []

    def encode(frames: torch.Tensor) -> torch.Tensor:
        if not computed:
            make().fill(items, lambda others: others)  # all of it, while this one computes its first batch
        computed.append(len(frames))
        return frames

    assert cache.fill(items, encode, batch=3, progress=lambda *step: steps.append(step)) == {}
    assert computed == [3] and steps == [(3, 8), (8, 8)]


def test_what_killed_processes_left_behind_is_removed_and_what_running_ones_write_is_not(make) -> None:
    cache = make()
    cache.fill([(0, 0)], lambda frames: frames)
    folder = next(cache.folder.iterdir())
    old, new = folder / ".a.safetensors.x.tmp", folder / ".b.safetensors.y.tmp"
    for path in (old, new):
        path.touch()
    long_ago = time.time() - feature_cache.LEFT_BEHIND - 1
    os.utime(old, (long_ago, long_ago))
    cache.fill([(0, 0)], fail)
    assert not old.exists() and new.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "other"])
def test_a_damaged_cache_file_is_named(make, damage: str) -> None:
    cache = make()
    cache.fill([(0, 1)], lambda frames: frames)
    path = cache.path(cache.dataset.clips[0], 1)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "other": b"something else" * 99}[damage])
    with pytest.raises(DataError) as caught:
        CachedDataset(cache)[0, 1]
    assert str(path) in str(caught.value) and "delete it" in str(caught.value) and "\n" not in str(caught.value)


def test_maps_that_are_not_there_are_named(make) -> None:
    cache = make()
    with pytest.raises(DataError, match=r"p2\.mp4: view 1 is not in the feature cache"):
        CachedDataset(cache)[2, 1]


# -- precision and size -------------------------------------------------------------------------------------------


def maps(channels: int, seed: int) -> torch.Tensor:
    """(4, channels, 5, 5), channels of very different range, as a trunk gives them."""
    generator = torch.Generator().manual_seed(seed)
    size = 10.0 ** torch.linspace(-3, 3, channels)[:, None, None]
    return torch.randn(4, channels, 5, 5, generator=generator) * size + size


def test_float16_keeps_eleven_bits(make) -> None:
    cache, one = make(), maps(12, 0)
    cache.write(cache.dataset.clips[0], 1, one)
    stored = cache.read(cache.dataset.clips[0], 1)
    assert stored.dtype == torch.float16
    assert ((stored.float() - one).abs() <= one.abs() * 2**-11 + 2**-25).all()


def test_float16_does_not_overflow(make) -> None:
    cache = make()
    cache.write(cache.dataset.clips[0], 1, torch.tensor([1e6, -1e6]).view(1, 2, 1, 1))
    assert cache.read(cache.dataset.clips[0], 1).flatten().tolist() == [65504, -65504]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_uint8_errs_by_half_a_step_of_its_channel_at_most(make, dtype: torch.dtype) -> None:
    cache, one = make(precision="uint8"), maps(12, 1).to(dtype)
    one[:, 3] = 7.25  # a constant channel is kept exactly
    cache.write(cache.dataset.clips[0], 1, one)
    stored, one = cache.read(cache.dataset.clips[0], 1), one.float()
    extent = one.amax(dim=(0, 2, 3)) - one.amin(dim=(0, 2, 3))  # (C,)
    error = (stored - one).abs().amax(dim=(0, 2, 3))
    assert (error <= extent / 255 / 2 * 1.001 + 1e-6).all()
    assert (stored[:, 3] == 7.25).all()


def test_an_unknown_precision_is_refused(make) -> None:
    with pytest.raises(DataError, match="float16, uint8"):
        make(precision="int4")


@pytest.mark.parametrize("precision", ["float16", "uint8"])
@pytest.mark.parametrize("shape", [(3, 96, 4, 4), (8, 160, 2, 2), (4, 728, 10, 10)])
def test_the_size_estimate_is_within_five_percent(make, precision: str, shape: tuple[int, ...]) -> None:
    cache = make(precision=precision)
    items = [(index, view) for index in range(4) for view in (1, 2)]
    estimate = cache.estimate(len(items), shape)
    cache.fill(items, lambda frames: torch.rand(len(frames), *shape))
    real = sum(path.stat().st_size for path in finished(cache.folder))
    assert abs(estimate - real) <= 0.05 * real


def test_a_disk_that_will_not_hold_it_is_refused(make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make()
    needed = cache.estimate(10, (3, 96, 4, 4))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(10 * needed, 0, needed))
    with pytest.raises(DataError, match="--cache-precision uint8") as caught:
        cache.require_space(needed)
    assert str(cache.folder) in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(10 * needed, 0, 2 * needed))
    cache.require_space(needed)


def test_a_folder_that_cannot_be_written_is_one_line(make, tmp_path: Path) -> None:
    cache = make()
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        cache.write(cache.dataset.clips[0], 0, torch.zeros(1, 2, 3, 3))


# -- computed once ------------------------------------------------------------------------------------------------


def test_a_second_fill_computes_nothing(make) -> None:
    cache = make()
    items = [(index, view) for view in (1, 2) for index in range(4)]
    steps: list[tuple[int, int]] = []
    assert cache.fill(items, lambda frames: frames, batch=3, progress=lambda *step: steps.append(step)) == {}
    assert steps == [(3, 8), (6, 8), (8, 8)]
    assert make().fill(items, fail) == {}
    assert cache.missing(items) == [] and len(cache.missing([*items, (0, 3)])) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_clips_are_reported_and_the_rest_cached(make, clips: Path, tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(clips, folder)
    (folder / "p0.mp4").write_bytes(b"")
    (folder / "p2.mp4").write_text("no video")
    cache = make(folder=folder)
    items = [(index, view) for view in (1, 2) for index in range(4)]
    errors = cache.fill(items, lambda frames: frames, batch=3, workers=workers)
    assert sorted(errors) == [0, 2] and "p0.mp4" in errors[0] and "p2.mp4" in errors[2]
    rest = CachedDataset(cache.over([cache.dataset.clips[1], cache.dataset.clips[3]]))
    assert [clip.path.name for clip in rest.clips] == ["p1.mp4", "p3.mp4"]
    for place, index in enumerate((1, 3)):
        expected = cache.dataset[index, 2].inputs
        torch.testing.assert_close(rest[place, 2].inputs.float(), expected, rtol=1e-3, atol=1e-3)


def test_every_window_is_another_file_and_the_middle_one_serves_any_number_of_windows(make) -> None:
    rated = dataclasses.replace(SMALL, frames=2, rate=12.5)
    one, three = (make(preprocessing=dataclasses.replace(rated, windows=windows)) for windows in (1, 3))
    plain = make(preprocessing=dataclasses.replace(SMALL, frames=2))
    clip = three.dataset.clips[0]
    assert len({three.path(clip, view) for view in (0, -1, -2, 1)}) == 4
    assert three.path(clip, 0) == one.path(clip, 0) != plain.path(clip, 0)
    assert three.path(clip, 1) == one.path(clip, 1)  # training views do not depend on the windows of the test
