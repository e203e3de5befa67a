"""Exactly the asked frames, whatever the codec, the container and the turn of the camera."""

import multiprocessing
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_video import encode, number_of, numbered_frame

from kinegru.errors import VideoError
from kinegru.video.container import Decoder, decode_threads
from kinegru.video.reader import frames_at, iter_frames, probe, read_clip
from kinegru.video.sampling import Sampling, draw_jitter, uniform_indices
from kinegru.video.selective import Plan

COUNT = 40
KINDS = {
    "h264 with B-frames": ("a.mp4", {"codec": "libx264", "options": {"bf": "3", "preset": "medium"}}),
    "h264, short open groups": (
        "a.mp4",
        {"codec": "libx264", "options": {"g": "15", "bf": "3", "x264opts": "open-gop"}},
    ),
    "h264, many key frames": ("a.mkv", {"codec": "libx264", "options": {"g": "5", "bf": "2"}}),
    "h264 in a transport stream": ("a.ts", {"codec": "libx264"}),
    "h264 without a container": ("a.h264", {"codec": "libx264"}),
    "hevc": ("a.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12"}}),
    "mpeg4 in avi": ("a.avi", {"codec": "mpeg4"}),
    "mpeg4 with B-frames": ("a.avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
    "mjpeg": ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "vp8 with hidden frames": ("a.webm", {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}}),
    "gif": ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
}


def numbers(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_exactly_those_asked(kind: str, numbered: Callable[..., Path]) -> None:
    name, how = KINDS[kind]
    path = numbered(name, COUNT, **how)
    everything = list(iter_frames(path))
    assert numbers(everything) == list(range(COUNT))

    @settings(deadline=None, max_examples=6)
    @given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=12))
    def check(indices: list[int]) -> None:
        frames = frames_at(path, indices)
        assert frames.dtype == np.uint8
        assert np.array_equal(frames, np.stack([everything[i] for i in indices]))

    check()
    assert probe(path).frames == COUNT
    assert probe(path).damaged is None


@pytest.mark.parametrize("kind", KINDS)
def test_clips_are_sampled_by_the_formula(kind: str, numbered: Callable[..., Path]) -> None:
    name, how = KINDS[kind]
    path = numbered(name, COUNT, **how)
    for count in (1, 3, 16, 50):
        frames, info = read_clip(path, count)
        assert numbers(frames) == uniform_indices(COUNT, count).tolist()
        assert info == probe(path)
    frames, _ = read_clip(path, Sampling(10, jitter=draw_jitter(10, np.random.default_rng(5))))
    assert numbers(frames) == draw_jitter(10, np.random.default_rng(5)).indices(COUNT).tolist()


@pytest.mark.parametrize("kind", ["h264 with B-frames", "h264, short open groups", "h264, many key frames", "hevc"])
def test_leaving_out_frames_changes_no_pixel(kind: str, tmp_path: Path) -> None:
    name, how = KINDS[kind]
    rng = np.random.default_rng(0)
    drift = (
        np.cumsum(rng.normal(0, 2, (90, 8, 12, 1)), axis=0).repeat(8, 1).repeat(8, 2)
    )  # motion and texture to predict
    clip = [np.clip(numbered_frame(i) + drift[i], 0, 255).astype(np.uint8) for i in range(90)]
    path = encode(tmp_path / name, clip, **how)
    with Decoder(path) as decoder:
        everything = [decoder.rgb(frame) for frame in decoder]
    assert len(everything) == 90
    for indices in ([89], [3, 88], [0], list(range(0, 90, 7)), [44, 45, 46], uniform_indices(90, 40).tolist()):
        assert np.array_equal(frames_at(path, indices), np.stack([everything[i] for i in indices]))


def test_selective_decoding_is_really_used(numbered: Callable[..., Path]) -> None:
    path = numbered("b.mp4", 60, options={"g": "10", "bf": "2"})
    with Decoder(path) as decoder:
        plan = Plan.of(decoder)
        assert plan is not None
        assert plan.length == 60
        assert len(list(plan._decode({55}))) <= 10  # of 60: one group of pictures
    with Decoder(numbered("b.avi", 10, codec="mpeg4")) as decoder:
        assert Plan.of(decoder) is None


def test_out_of_range_says_how_many_there_are(numbered: Callable[..., Path]) -> None:
    path = numbered("a.mp4", 12)
    with pytest.raises(VideoError, match=r"a\.mp4: frame 12 was asked for, but there are only 12"):
        frames_at(path, [0, 12])
    with pytest.raises(VideoError, match=r"a\.mp4: frame -1 was asked for"):
        frames_at(path, [-1])
    assert frames_at(path, []).shape == (0, 64, 96, 3)


def test_frames_may_be_changed_in_place(tmp_path: Path) -> None:
    """Also where the decoder itself works in RGB and builds each frame on the one before."""
    clip = [numbered_frame(i) for i in range(6)]
    for pix_fmt in ("rgb24", "argb"):
        path = encode(tmp_path / "a.mov", clip, codec="qtrle", pix_fmt=pix_fmt)
        seen = []
        for frame in iter_frames(path):
            seen.append(number_of(frame))
            frame[:] = 0
        assert seen == list(range(6))


def test_each_sees_a_distinct_frame_once(numbered: Callable[..., Path]) -> None:
    seen: list[int] = []

    def each(frame: np.ndarray) -> int:
        seen.append(number_of(frame))
        return seen[-1]

    for name, codec in (("a.mp4", "libx264"), ("a.avi", "mpeg4")):
        seen.clear()
        values, _ = read_clip(numbered(name, 6, codec=codec), 20, each=each)
        assert values == uniform_indices(6, 20).tolist()
        assert seen == list(range(6))


def corner_marked(width: int, height: int) -> np.ndarray:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    image[height // 2 :, width // 2 :] = 255
    return image


def with_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write the track's display matrix into an MP4: stored x is shown along (a, b), stored y along (c, d)."""
    data = bytearray(path.read_bytes())
    unity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(unity, data.index(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("clockwise", "matrix"), [(90, (0, 1, -1, 0)), (180, (-1, 0, 0, -1)), (270, (0, -1, 1, 0)), (0, (1, 0, 0, 1))]
)
def test_rotation_metadata_is_honoured(clockwise: int, matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    stored = corner_marked(96, 64)
    path = with_display_matrix(encode(tmp_path / "turned.mp4", [stored] * 5), *matrix)
    expected = np.rot90(stored, -clockwise // 90)
    info = probe(path)
    assert info.rotation == clockwise
    assert (info.width, info.height) == (expected.shape[1], expected.shape[0])
    for frame in (frames_at(path, [2])[0], next(iter_frames(path)), read_clip(path, 1)[0][0]):
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 12


@pytest.mark.parametrize(
    ("matrix", "mirror"),
    [
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    ],
)
def test_mirroring_metadata_is_honoured(
    matrix: tuple[int, int, int, int], mirror: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    stored = corner_marked(96, 64)
    path = with_display_matrix(encode(tmp_path / "selfie.mp4", [stored] * 5), *matrix)
    assert np.abs(frames_at(path, [0])[0].astype(int) - mirror(stored)).mean() < 12


@pytest.mark.parametrize("size", [(33, 17), (97, 63), (2, 2), (1, 1)])
def test_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    image = corner_marked(width, height) if width > 2 else np.full((height, width, 3), 200, np.uint8)
    path = encode(tmp_path / "odd.mkv", [image] * 3, codec="ffv1", pix_fmt="bgr0")
    frames = frames_at(path, [0, 2])
    assert frames.shape == (2, height, width, 3)
    assert np.array_equal(frames[1], image)
    if width > 2:
        for pix_fmt, codec in (("yuv420p", "mpeg4"), ("yuv444p", "libx264")):
            frame = frames_at(encode(tmp_path / "odd.mkv", [image] * 3, codec=codec, pix_fmt=pix_fmt), [1])[0]
            assert frame.shape == (height, width, 3)
            assert np.abs(frame.astype(int) - image).mean() < 20


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray", "gray16le", "bgr0", "rgb48le", "yuva420p"]
)
def test_any_pixel_format_becomes_rgb(pix_fmt: str, tmp_path: Path) -> None:
    grey = [numbered_frame(i) for i in range(4)]
    path = encode(tmp_path / "a.mkv", grey, codec="ffv1", pix_fmt=pix_fmt)
    frames = frames_at(path, [3, 1])
    assert frames.dtype == np.uint8
    assert np.abs(frames.astype(int) - np.stack([grey[3], grey[1]])).max() <= 3


def test_variable_frame_rate_counts_frames_not_time(tmp_path: Path) -> None:
    times = np.cumsum([0, *([10, 3, 31, 7] * 5)]).tolist()
    clip = [numbered_frame(i) for i in range(len(times))]
    for name in ("vfr.mkv", "vfr.mp4"):
        path = encode(tmp_path / name, clip, times=times)
        assert numbers(frames_at(path, range(len(clip)))) == list(range(len(clip)))
        assert probe(path).frames == len(clip)
        assert 15 < probe(path).fps < 26


def test_edit_list_hides_frames(tmp_path: Path) -> None:
    """Frames before time zero are in the file, for prediction only; a player never shows them."""
    times = [10 * (i - 6) for i in range(20)]
    path = encode(tmp_path / "cut.mp4", [numbered_frame(i) for i in range(20)], times=times, options={"bf": "0"})
    assert numbers(list(iter_frames(path))) == list(range(6, 20))
    assert probe(path).frames == 14
    assert numbers(frames_at(path, [0, 13])) == [6, 19]
    assert numbers(read_clip(path, 14)[0]) == list(range(6, 20))


def patched_avi(path: Path, *, frames: int | None = None, rate: int | None = None) -> Path:
    """An AVI whose header is changed to another frame count or another rate."""
    data = bytearray(path.read_bytes())
    main, stream = data.index(b"avih") + 8, data.index(b"strh") + 8
    if frames is not None:
        data[main + 16 : main + 20] = struct.pack("<I", frames)
        data[stream + 32 : stream + 36] = struct.pack("<I", frames)
    if rate is not None:
        data[main : main + 4] = struct.pack("<I", 0)
        data[stream + 24 : stream + 28] = struct.pack("<I", rate)
    changed = path.with_name(f"patched-{frames}-{rate}.avi")
    changed.write_bytes(data)
    return changed


@pytest.mark.parametrize("claimed", [0, 7, 39, 41, 4000])
def test_container_that_lies_about_its_length(claimed: int, numbered: Callable[..., Path]) -> None:
    path = patched_avi(numbered("a.avi", COUNT, codec="mpeg4"), frames=claimed)
    assert probe(path).frames == COUNT
    assert numbers(read_clip(path, 10)[0]) == uniform_indices(COUNT, 10).tolist()
    assert numbers(frames_at(path, [COUNT - 1])) == [COUNT - 1]
    assert (probe(path).damaged is not None) == (claimed > COUNT)


def test_zero_frame_rate(numbered: Callable[..., Path]) -> None:
    path = patched_avi(numbered("a.avi", COUNT, codec="mpeg4"), rate=0)
    info = probe(path)
    assert info.frames == COUNT
    assert info.fps >= 0
    assert info.duration >= 0
    assert numbers(read_clip(path, 4)[0]) == uniform_indices(COUNT, 4).tolist()


@pytest.mark.parametrize(
    "name", ["with space.mp4", 'it\'s "quoted".mp4', "中文 动作.mp4", "a:b.mp4", "concat:c.mp4", "%d.mp4", "-v.mp4"]
)
def test_any_file_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(encode(tmp_path / "a.mp4", [numbered_frame(i) for i in range(5)]).read_bytes())
    assert numbers(frames_at(tmp_path / name, [4, 0])) == [4, 0]
    monkeypatch.chdir(tmp_path)
    assert probe(name).frames == 5
    assert read_clip(name, 2)[1].path == name


def test_sound_beside_the_picture_is_ignored(tmp_path: Path) -> None:
    path = encode(tmp_path / "loud.mp4", [numbered_frame(i) for i in range(8)], sound=True)
    assert numbers(list(iter_frames(path))) == list(range(8))
    assert probe(path).damaged is None


def test_one_frame_is_a_clip(numbered: Callable[..., Path]) -> None:
    path = numbered("one.mp4", 1)
    assert probe(path).frames == 1
    assert numbers(read_clip(path, 5)[0]) == [0] * 5


def test_quick_probe_agrees_on_sound_files(numbered: Callable[..., Path]) -> None:
    for name, how in KINDS.values():
        path = numbered(name, COUNT, **how)
        assert probe(path, exact=False) == probe(path)


def test_threads_change_nothing(numbered: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = numbered("a.mp4", COUNT, codec="libx264", options={"bf": "3", "preset": "medium"})
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("KINEGRU_DECODE_THREADS", threads)
        assert decode_threads() == int(threads)
        results.append((read_clip(path, 16)[0], np.stack(list(iter_frames(path)))))
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])


def test_workers_decode_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KINEGRU_DECODE_THREADS", raising=False)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(decode_threads) == 1


MEMORY = """
import resource, sys
from kinegru.video.reader import iter_frames
frames = iter_frames(sys.argv[1])
for _ in range(20):
    next(frames)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = 20 + sum(1 for _ in frames)
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_iterating_takes_constant_memory(tmp_path: Path) -> None:
    flat = [np.full((360, 640, 3), i % 200, np.uint8) for i in range(300)]  # 207 MB as RGB
    path = encode(tmp_path / "long.mp4", flat, options={"preset": "ultrafast"})
    output = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    ).stdout
    count, grown_kb = map(int, output.split())
    assert count == 300
    assert grown_kb < 30_000


def test_real_clips_decode_whole(shared: Path) -> None:
    clips = (
        sorted((shared / "data" / "weizmann").glob("*/*.avi"))[::30]
        + sorted((shared / "data" / "fights").glob("*/*.mp4"))[::75]
    )
    assert clips
    for path in clips:
        info = probe(path)
        assert info.damaged is None
        frames, again = read_clip(path, 5)
        assert again == info
        assert frames.shape == (5, info.height, info.width, 3)
        assert np.array_equal(frames, frames_at(path, uniform_indices(info.frames, 5)))
        assert 1 < info.duration < 6
