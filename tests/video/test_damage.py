"""What is no video, and what is one no longer: a clear line or the frames that are left, never anything else."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numbered_video import encode, number_of, numbered_frame

from kinegru.errors import VideoError
from kinegru.video.loading import load_clip
from kinegru.video.reader import frames_at, iter_frames, probe, read_clip
from kinegru.video.sampling import uniform_indices
from kinegru.video.transforms import Augmentation, Preprocessing

ENTRIES: dict[str, Callable[[Path], object]] = {
    "probe": probe,
    "quick probe": lambda path: probe(path, exact=False),
    "frames_at": lambda path: frames_at(path, [0]),
    "frames_at nothing": lambda path: frames_at(path, []),
    "iter_frames": lambda path: list(iter_frames(path)),
    "read_clip": lambda path: read_clip(path, 4),
    "load_clip": lambda path: load_clip(path, Preprocessing(frames=2, size=8)),
    "load_clip, training": lambda path: load_clip(
        path, Preprocessing(frames=2, size=8), Augmentation(), np.random.default_rng(0)
    ),
}


def sound_only(path: Path, codec: str = "pcm_s16le") -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def bad_files(folder: Path) -> dict[Path, str]:
    """Files no verb can use, and what has to be said of them."""

    def file(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    (folder / "folder.mp4").mkdir()
    whole = encode(folder / "whole.mp4", [numbered_frame(i) for i in range(10)])
    return {
        folder / "missing.mp4": "no such file",
        folder / "folder.mp4": "is a folder",
        file("empty.mp4", b""): "is empty",
        file("zeros.mp4", bytes(5000)): "no video",
        file("noise.avi", np.random.default_rng(0).bytes(5000)): "no video",
        file("text.mp4", "just a few words 中文\n".encode() * 40): "no video",
        file("notes.txt", b"just a few words\n" * 40): "text file",
        file("page.html", b"<html><body>not found</body></html>"): "no video",
        sound_only(folder / "sound.wav"): "no video stream, only audio",
        file("no index.mp4", whole.read_bytes()[:-900]): "no video",
        file("header only.mp4", whole.read_bytes()[:40]): "",
    }


@pytest.mark.parametrize("entry", ENTRIES)
def test_bad_files_get_one_clear_line(entry: str, tmp_path: Path) -> None:
    for path, reason in bad_files(tmp_path).items():
        with pytest.raises(VideoError) as caught:
            ENTRIES[entry](path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert reason in message
        assert "\n" not in message
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = encode(tmp_path / "locked.mp4", [numbered_frame(0)])
    path.chmod(0)
    with pytest.raises(VideoError, match=r"locked\.mp4: cannot be read \(permission denied\)"):
        probe(path)


def test_line_breaks_in_names_stay_out_of_messages(tmp_path: Path) -> None:
    with pytest.raises(VideoError) as caught:
        probe(tmp_path / "two\nlines.mp4")
    assert "\n" not in str(caught.value)


def test_libav_prints_nothing(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.avi", [numbered_frame(i) for i in range(30)], codec="mpeg4").read_bytes()
    (tmp_path / "b.avi").write_bytes(whole[:4000] + bytes(300) + whole[4300:-2000])
    script = "import sys; from kinegru.video.reader import probe; print(probe(sys.argv[1]).frames)"
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path / "b.avi")], capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stderr == ""


NO_B_FRAMES = {"bf": "0", "preset": "ultrafast"}
CUT = {
    "avi": ("a.avi", {"codec": "mpeg4"}),
    "mp4": ("a.mp4", {"options": NO_B_FRAMES, "container_options": {"movflags": "faststart"}}),
    "mp4 with B-frames": ("b.mp4", {"options": {"bf": "3"}, "container_options": {"movflags": "faststart"}}),
    "fragmented mp4": (
        "f.mp4",
        {"options": NO_B_FRAMES, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "mkv": ("a.mkv", {"options": NO_B_FRAMES}),
    "webm": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "ts": ("a.ts", {"options": NO_B_FRAMES}),
    "mp4 with its index at the end": ("e.mp4", {"options": NO_B_FRAMES}),
}
COUNT = 30


@pytest.fixture(scope="module")
def textured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[bytes, list[np.ndarray], str]]:
    """A clip with some texture, so that its frames have many bytes to be cut at: (bytes, frames, ending)."""
    made: dict[str, tuple[bytes, list[np.ndarray], str]] = {}

    def make(kind: str) -> tuple[bytes, list[np.ndarray], str]:
        if kind not in made:
            rng = np.random.default_rng(0)
            clip = [np.clip(numbered_frame(i) + rng.normal(0, 12, (64, 96, 3)), 0, 255) for i in range(COUNT)]
            name, how = CUT[kind]
            path = encode(tmp_path_factory.mktemp("cut") / name, [frame.astype(np.uint8) for frame in clip], **how)
            made[kind] = path.read_bytes(), list(iter_frames(path)), path.suffix
        return made[kind]

    return make


@pytest.mark.parametrize("kind", CUT)
def test_a_cut_file_gives_the_frames_before_the_cut(kind: str, textured: Callable, tmp_path: Path) -> None:
    data, whole, suffix = textured(kind)
    assert len(whole) == COUNT
    path = tmp_path / f"cut{suffix}"
    survived = set()

    @settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.one_of(st.integers(1, len(data) - 1), st.integers(len(data) // 2, len(data) - 1)))
    def check(cut: int) -> None:
        path.write_bytes(data[:cut])
        try:
            frames = list(iter_frames(path))
        except VideoError:
            for entry in ENTRIES.values():
                with pytest.raises(VideoError):
                    entry(path)
            return
        info = probe(path)
        survived.add(len(frames))
        assert info.frames == len(frames)
        if kind == "mp4 with B-frames":  # the last few may be missing some of their neighbours
            shown = [number_of(frame) for frame in frames]
            assert shown == sorted(set(shown))
        else:
            assert all(np.array_equal(frame, expected) for frame, expected in zip(frames, whole, strict=False))
        if len(frames) < COUNT and kind != "ts":  # a transport stream has no end that could be missing
            assert info.damaged
        clip, again = read_clip(path, 8)
        assert again == info
        assert np.array_equal(clip, np.stack([frames[i] for i in uniform_indices(len(frames), 8)]))
        assert np.array_equal(frames_at(path, [len(frames) - 1]), frames[-1:])

    check()
    if "end" not in kind:
        assert survived - {COUNT}


@pytest.mark.parametrize("kind", ["avi", "mp4 with B-frames", "mkv", "ts"])
def test_flipped_bytes_end_in_frames_or_a_clear_line(kind: str, textured: Callable, tmp_path: Path) -> None:
    data, _, suffix = textured(kind)
    path = tmp_path / f"flipped{suffix}"

    @settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        rng = np.random.default_rng(seed)
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 40):
            changed[at] = rng.integers(256)
        path.write_bytes(changed)
        try:
            clip, info = read_clip(path, 6)
        except VideoError:
            return
        assert clip.shape == (6, info.height, info.width, 3)
        assert 1 <= info.frames <= COUNT + 1

    check()
