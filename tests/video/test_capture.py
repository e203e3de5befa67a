"""Live pictures: at an even rate, at most one waiting, again after a break, and recorded as they came."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_video import encode, number_of
from stream_server import serving
from test_reader import with_display_matrix

from kinegru.errors import UsageError, VideoError
from kinegru.video.capture import Capture, Taken
from kinegru.video.pacing import Pacer, Recording
from kinegru.video.reader import iter_frames, probe
from kinegru.video.recorder import Recorder
from kinegru.video.sources import Source, find, open_source


def paced(times: list[float], rate: float, usual: float, ahead: bool = False) -> list[tuple[int, bool, int]]:
    pacer: Pacer[int] = Pacer(rate, usual, ahead=ahead)
    found = [each for i, at in enumerate(times) for each in pacer.push(at, i)]
    return [*found, *pacer.finish()]


def all_taken(capture: Capture, seconds: float = 0.0, limit: float = 20.0) -> list[Taken]:
    """All pictures until the end, each worked on for so many seconds."""
    taken, deadline = [], time.monotonic() + limit
    with capture:
        while not capture.ended and time.monotonic() < deadline:
            one = capture.take(0.2)
            if one is not None:
                taken.append(one)
                time.sleep(seconds)
    return taken


# -- an even rate -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 60), st.floats(0.5, 90), st.integers(1, 120))
def test_ahead_takes_the_same_frames_as_with_hindsight_where_the_rate_is_constant(fps, rate, count):
    times = [i / fps for i in range(count)]
    assert paced(times, rate, 1 / fps, ahead=True) == paced(times, rate, 1 / fps)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0.001, 3), min_size=1, max_size=40), st.floats(1, 40))
def test_ahead_never_goes_back_and_never_takes_a_frame_late(gaps, rate):
    times = np.cumsum([0, *gaps])
    pacer: Pacer[float] = Pacer(rate, 0.04, ahead=True)
    numbers = []
    for at in times:
        for number, _, shown in pacer.push(at, at):
            assert shown == at  # at once
            numbers.append(number)
    assert numbers == sorted(set(numbers))
    assert max(numbers, default=0) / rate <= times[-1] + 2 * max(gaps) + 1  # and does not run into the future


def test_a_stall_is_not_made_up_for():
    times = [*np.arange(0, 1, 0.04), *np.arange(3, 4, 0.04)]
    numbers = [number for number, _, _ in paced(times, 10.0, 0.04, ahead=True)]
    assert numbers[:10] == list(range(10)) and numbers[-10:] == list(range(30, 40)) and len(numbers) <= 21


# -- one picture waits --------------------------------------------------------------------------------------------


def test_whoever_is_slow_gets_the_newest_picture_and_the_others_are_counted(numbered):
    clip = numbered("clip.mp4", 50)
    capture = Capture(find(str(clip)), rate=25.0)
    taken = all_taken(capture, 0.15)
    assert len(taken) + capture.drops == 50 and capture.drops > 25
    numbers = [one.number for one in taken]
    assert numbers == sorted(set(numbers))
    assert all(number_of(one.image) == one.number for one in taken)
    waited = [b.captured - a.captured for a, b in itertools.pairwise(taken)]
    assert np.median(waited) == pytest.approx(0.15, abs=0.08)  # each is the newest when it is asked for


def test_as_many_pictures_wait_as_are_to_be_kept_and_come_in_order(numbered):
    clip = numbered("clip.mp4", 50)
    capture = Capture(find(str(clip)), rate=25.0, keep=6)
    with capture:
        time.sleep(1.0)  # 25 pictures came
        assert capture.waiting == 6
        dropped = capture.drops
        taken = []
        while not capture.ended:
            one = capture.take(1.0)
            taken += [] if one is None else [one]
    assert dropped >= 10 and len(taken) + capture.drops == 50
    numbers = [one.number for one in taken]
    assert numbers == list(range(50 - len(taken), 50))  # nobody was slow any more: none is missing in between
    assert [number_of(one.image) for one in taken] == numbers


def test_none_of_several_pictures_waits_for_more_than_a_second(numbered):
    capture = Capture(find(str(numbered("clip.mp4", 50))), rate=25.0, keep=50)
    with capture:
        time.sleep(1.8)
        one = capture.take(1.0)
        late = time.monotonic() - one.captured
    assert capture.drops > 5 and late < 1.5


def test_a_file_plays_as_long_as_it_lasts_and_nothing_is_dropped_for_the_quick(numbered):
    began = time.monotonic()
    capture = Capture(find(str(numbered("clip.mp4", 50))), rate=25.0)
    taken = all_taken(capture)
    assert 1.8 < time.monotonic() - began < 6
    assert len(taken) + capture.drops == 50 and capture.drops <= 10  # of a machine that does other things, too
    assert (capture.failure, capture.damage, capture.reconnects) == (None, None, 0)


@pytest.mark.parametrize("rate", [None, 10.0, 60.0])
def test_asap_gives_every_frame_of_the_even_rate_to_the_slowest(numbered, rate):
    clip = numbered("clip.mp4", 40)
    capture = Capture(find(str(clip)), rate=rate, pace="asap")
    found = [number for one in all_taken(capture, 0.01) for number in [number_of(one.image)] * one.ticks]
    with Recording(clip) as recording:
        assert found == [number_of(frame.image) for frame in recording.frames(rate)]
    assert capture.drops == 0


def test_a_device_is_taken_as_it_comes():
    """libavdevice's own test picture, which comes as fast as it is read."""
    source = Source("test", "camera", "testsrc=size=64x48:rate=25:duration=20", "lavfi")
    capture = Capture(source, rate=25.0, retries=0)
    with capture:
        taken = []
        while capture.reconnects == 0 and capture.failure is None and len(taken) < 400:
            one = capture.take(0.1)
            if one is not None:
                assert one.image.shape == (48, 64, 3)
                taken.append(one)
                time.sleep(0.02)
    assert 0 < len(taken) < 400 and capture.drops + len(taken) >= 499  # 20 s went by in much less


def test_closing_does_not_wait_for_a_picture_nobody_takes(numbered):
    with Capture(find(str(numbered("clip.mp4", 40))), pace="asap"):
        began = time.monotonic()
    assert time.monotonic() - began < 1


# -- a stream that breaks off -------------------------------------------------------------------------------------


def test_a_stream_that_was_cut_comes_back_as_a_cut():
    with serving("red") as (address, server):
        capture = Capture(find(f"{address}/live"), rate=10.0, timeout=2.0)
        port = int(address.rpartition(":")[2])
        with capture:
            first = [taken_within(capture) for _ in range(5)]
            server.kill()
            troubles = wait_for_trouble(capture, "connection refused")
            with serving("blue", port):
                second = [taken_within(capture, 20) for _ in range(5)]
                assert capture.trouble is None
    assert all(one.image[..., 0].mean() > 180 for one in first)
    assert all(one.image[..., 2].mean() > 180 for one in second)
    assert [one.cut for one in second] == [True] + [False] * 4 and not any(one.cut for one in first)
    assert capture.reconnects == 1
    assert "retry 1 of 8 in 1 s" in " ".join(troubles)


def taken_within(capture: Capture, seconds: float = 10.0) -> Taken:
    one = capture.take(seconds)
    assert one is not None, capture.trouble
    return one


def wait_for_trouble(capture: Capture, words: str, seconds: float = 10.0) -> list[str]:
    """What was told until these words came; pictures are taken meanwhile."""
    told, deadline = [], time.monotonic() + seconds
    while not (told and words in told[-1]):
        assert time.monotonic() < deadline, told
        capture.take(0.02)
        if capture.trouble is not None and capture.trouble not in told:
            told.append(capture.trouble)
    return told


def test_a_stream_that_went_silent_is_noticed_and_opened_again():
    with serving() as (address, _):
        capture = Capture(find(f"{address}/stuck-once"), rate=10.0, timeout=0.7)
        with capture:
            told = wait_for_trouble(capture, "nothing came for 0.7 s")
            while not taken_within(capture).cut:
                pass
    assert capture.reconnects == 1 and told


def test_one_that_always_breaks_off_is_opened_again_and_again():
    with serving() as (address, _), Capture(find(f"{address}/brief"), rate=10.0, retries=1) as capture:
        wait_for_trouble(capture, "lost: the connection failed or broke off")
        deadline = time.monotonic() + 20
        while capture.reconnects < 2 and time.monotonic() < deadline:
            capture.take(0.1)
    assert capture.reconnects == 2 and capture.failure is None  # pictures came in between: no tries in a row


def test_nobody_there_is_an_error_after_the_retries():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    capture = Capture(find(f"http://ann:secret@127.0.0.1:{port}/x"), retries=1)
    began = time.monotonic()
    assert all_taken(capture) == [] and 0.9 < time.monotonic() - began < 5
    assert isinstance(capture.failure, VideoError)
    assert str(capture.failure) == (f"http://ann:***@127.0.0.1:{port}/x: connection refused; gave up after 2 tries")


@pytest.mark.parametrize(("path", "reason"), [("/nowhere", "404"), ("/silent", "nothing came for 0.5 s")])
def test_what_another_try_cannot_mend_is_not_tried_again(path, reason):
    with serving() as (address, _):
        capture = Capture(find(address + path), retries=0, timeout=0.5)
        assert all_taken(capture) == []
    assert isinstance(capture.failure, VideoError) and reason in str(capture.failure)
    assert ("gave up" in str(capture.failure)) == (path == "/silent")


def test_closing_ends_while_a_read_hangs():
    with serving() as (address, _):
        began = time.monotonic()
        with Capture(find(f"{address}/silent"), timeout=30.0):
            time.sleep(0.2)
        assert time.monotonic() - began < 4


def test_an_address_of_a_whole_file_plays_and_ends(numbered):
    """What says how long it is has an end, and is no stream that broke off."""
    source = Source("file", "network", f"file:{numbered('clip.mp4', 50)}")
    capture = Capture(source, rate=25.0)
    began = time.monotonic()
    taken = all_taken(capture)
    assert 1.8 < time.monotonic() - began < 6 and capture.failure is None and capture.reconnects == 0
    assert len(taken) + capture.drops == 50


def test_an_address_of_a_file_that_breaks_off_ends_there_and_does_not_begin_again(numbered):
    whole = numbered("clip.mkv", 50).read_bytes()

    class Half(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])

    with ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = find(f"http://127.0.0.1:{server.server_address[1]}/clip.mkv")
        capture = Capture(source, rate=25.0, pace="asap")
        taken = all_taken(capture)
        server.shutdown()
    assert 0 < len(taken) < 50 and capture.reconnects == 0 and capture.failure is None and capture.damage


# -- sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (1, 0, 0, 1), (-1, 0, 0, 1)])
def test_a_stream_is_turned_upright_as_a_file_is(matrix, tmp_path):
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32] = 200
    path = with_display_matrix(encode(tmp_path / "turned.mp4", [stored] * 3), *matrix)
    with open_source(Source("turned", "network", f"file:{path}")) as feed:
        found = [picture.image for _, picture in feed.timed()]
    expected = list(iter_frames(path))
    assert len(found) == 3 and found[0].shape == expected[0].shape
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize(
    ("name", "kind", "url"),
    [
        ("0", "camera", "/dev/video0"),
        ("/dev/video3", "camera", "/dev/video3"),
        ("rtsp://host/x", "network", "rtsp://host/x"),
        ("HTTP://host:80/a?b=c", "network", "HTTP://host:80/a?b=c"),
        ("-", "pipe", "-"),
        ("a.mp4", "file", "a.mp4"),
        ("12.mp4", "file", "12.mp4"),
    ],
)
def test_a_name_says_what_it_is(name, kind, url, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    found = find(name)
    assert (found.kind, found.url) == (kind, url)
    assert found.comes_back == (kind in ("camera", "network"))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://ann:p@ss@host:554/x", "rtsp://ann:***@host:554/x"),
        ("rtsp://ann@host/x", "rtsp://ann@host/x"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://host/x?user=a&password=p@ss&fps=5", "http://host/x?user=a&password=***&fps=5"),
        ("https://host/x?Token=abc", "https://host/x?Token=***"),
        ("rtsp://[bad/x", "rtsp://[bad/x"),
    ],
)
def test_a_password_is_never_shown(address, shown):
    assert find(address).name == shown


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ftp://host/x", {}, "give an address that begins with rtsp"),
        ("a.mp4", {"raw": "64x48"}, "the source is a.mp4, not -"),
        ("-", {"raw": "64"}, "give WIDTHxHEIGHT"),
        ("-", {"raw": "0x48"}, "give WIDTHxHEIGHT"),
        ("-", {"raw": "64x48:nope"}, "no pixel format 'nope'"),
        ("-", {"raw": "64x48", "raw_fps": 0.0}, "--raw-fps is 0.0"),
        ("a.mp4", {"options": {"video_size": "1x1"}}, "a.mp4 is a file"),
    ],
)
def test_wrong_use_is_one_line(name, settings, words):
    with pytest.raises(UsageError, match=words):
        find(name, **settings)


def test_a_named_pipe_is_pointed_to_stdin(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="named pipe; give it to stdin"):
        find(str(tmp_path / "pipe"))


def test_a_camera_that_is_not_there_is_one_line():
    with pytest.raises(VideoError, match="camera 77: no such camera /dev/video77; cameras here: "):
        open_source(Source("camera 77", "camera", "/dev/video77", "v4l2"))
    with pytest.raises(VideoError, match="/dev/null: "):  # a device, but no camera
        open_source(Source("/dev/null", "camera", "/dev/null", "v4l2"), timeout=1.0)


# -- recordings ---------------------------------------------------------------------------------------------------


def test_a_recording_keeps_the_pace_through_stalls_and_reconnections(tmp_path, numbered):
    with Recording(numbered("clip.mp4", 40)) as clip:
        pictures = [picture for _, picture in clip.timed()]
    with Recorder(tmp_path / "out.mkv", wait=True) as recorder:
        times = [*np.arange(10) / 10, *(3 + np.arange(10) / 10)]  # two seconds stood still
        for at, picture in zip(times, pictures, strict=False):
            recorder.push(float(at), picture, ("run 90%", "0:01"), 10.0)
        for i, picture in enumerate(pictures[20:30]):  # connected again: time begins anew
            recorder.push(i / 10, picture, ("walk", ""), 10.0, first=i == 0)
        assert not (tmp_path / "out.mkv").exists()
    assert probe(tmp_path / "out.mkv").frames == recorder.frames == 50 and recorder.missed == 0
    frames = list(iter_frames(tmp_path / "out.mkv"))
    upper = [number_of(np.pad(frame[:56], ((0, 8), (0, 0), (0, 0)))) % 16 for frame in frames]  # first two rows of bits
    assert (
        upper[:10] == [n % 16 for n in range(10)]
        and set(upper[10:30]) == {9}
        and upper[30:40] == [n % 16 for n in range(10, 20)]
    )


def test_a_recorder_that_cannot_keep_up_says_how_much_it_missed(tmp_path, numbered, monkeypatch):
    slow = threading.Event()
    monkeypatch.setattr("kinegru.video.recorder.caption", lambda image, *texts: slow.wait(5) and image)
    with Recording(numbered("clip.mp4", 40)) as clip, Recorder(tmp_path / "out.mp4") as recorder:
        for at, picture in clip.timed():
            recorder.push(at, picture, ("", ""), 25.0)
        slow.set()
    assert 20 < recorder.missed < 40 and recorder.came == 40
    assert recorder.frames == probe(tmp_path / "out.mp4").frames


def test_a_recording_that_cannot_be_written_tells_why(tmp_path, numbered):
    (tmp_path / "file").write_text("")
    with Recording(numbered("clip.mp4", 40)) as clip, Recorder(tmp_path / "file" / "out.mp4", wait=True) as recorder:
        for at, picture in clip.timed():
            recorder.push(at, picture, ("", ""), 25.0)
    assert isinstance(recorder.failure, OSError)


def test_without_a_picture_there_is_no_recording(tmp_path):
    with Recorder(tmp_path / "out.mp4") as recorder:
        pass
    assert recorder.frames == 0 and not list(tmp_path.iterdir())
