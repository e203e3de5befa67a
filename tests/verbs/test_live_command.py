"""`kinegru live`: files, pipes and streams in, JSON lines, a recording and a summary out, and a clean end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import av
import numpy as np
import pytest
from small_set import moving_bar
from stream_server import serving

from kinegru.__main__ import main
from kinegru.models.modelfile import load_model, save_model
from kinegru.recognition.recognizer import Recognizer
from kinegru.recognition.timeline import tempered
from kinegru.video.pacing import Recording
from kinegru.video.reader import iter_frames, probe
from kinegru.video.writer import write_video

QUICK = ("--threshold", "0", "--fps", "10")


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips in a row: 2.4 s at 10 frames a second."""
    frames = np.concatenate([moving_bar(action, 20) for action in ("left", "right")])
    path = tmp_path_factory.mktemp("joined") / "joined.mp4"
    write_video(path, frames, 10.0, "mpeg4")
    return path


def start(*arguments: object, folder: Path, **options: object) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "kinegru", "live", *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            **options)  # fmt: skip


def finish(process: subprocess.Popen, stdin: bytes | None = None) -> tuple[str, str]:
    """stdout and stderr of a process that ends by itself."""
    out, err = process.communicate(stdin, timeout=120)
    assert process.returncode == 0 and b"Traceback" not in err, err
    return out.decode(), err.decode()


def scores_in(lines: str) -> list[dict[str, float]]:
    return [json.loads(line)["scores"] for line in lines.splitlines()]


# -- files --------------------------------------------------------------------------------------------------------


def test_json_is_a_line_a_prediction_and_the_summary_goes_to_stderr(kinegru, trained, joined):
    ran = kinegru("live", trained, joined, "--pace", "asap", "--json", *QUICK)
    assert ran.status == 0
    lines = [json.loads(line) for line in ran.out.splitlines()]
    recognizer = Recognizer.load(trained, "cpu")
    stream = recognizer.stream()
    with Recording(joined) as recording:
        expected = [p for frame in recording.frames(10.0) if (p := stream.step(frame.image)) is not None]
    assert len(lines) == len(expected) == 22
    for line, prediction in zip(lines, expected, strict=True):
        scores = tempered(prediction.scores[None], recognizer.temperature)[0]
        assert [line["scores"][label] for label in recognizer.labels] == pytest.approx(scores.tolist(), abs=2e-6)
        assert line["score"] == line["scores"][line["label"]] and line["latency"] > 0 and line["drops"] == 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", line["at"])
    assert [line["frames"] for line in lines] == list(range(3, 25))
    assert re.search(r"24 frames, 22 predictions, 0 dropped, 0 reconnects, latency \d+ ms \(median\), \d+ ms", ran.err)


def test_people_get_plain_lines_and_the_summary_on_stdout(kinegru, trained, joined):
    ran = kinegru("live", trained, joined, *QUICK)
    assert ran.status == 0 and ran.out.startswith(f"{joined}, 2 s: ") and len(ran.out.splitlines()) == 1
    line = next(line for line in ran.err.splitlines() if " late · " in line)
    assert re.search(r"(left|right) \d+%: \d+ ms late · [\d.]+ of 10.0 frames/s · \d+ dropped · 0:00:0\d", line)


def test_it_stops_after_seconds(kinegru, trained, joined):
    began = time.monotonic()
    ran = kinegru("live", trained, joined, "--seconds", "0.8", *QUICK)
    assert ran.status == 0 and time.monotonic() - began < 2.2 and ran.out.startswith(f"{joined}, 1 s: ")


def test_without_a_rate_in_the_model_it_says_so(kinegru, trained, joined, tmp_path):
    loaded = load_model(trained / "model.safetensors")
    save_model(tmp_path / "bare.safetensors", loaded.model, loaded.labels, loaded.preprocessing)
    ran = kinegru("live", "bare.safetensors", joined, "--pace", "asap")
    assert ran.status == 0 and ran.err.count("the source's own rate") == 1 and "24 frames" in ran.out


# -- pipes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch):
    """`piped(content)` makes a pipe with that content this process's stdin."""
    threads = []

    def pipe(content: bytes) -> None:
        reads, writes = os.pipe()
        monkeypatch.setattr(sys, "stdin", os.fdopen(reads, "rb"))
        threads.append(threading.Thread(target=fill, args=(writes, content)))
        threads[-1].start()

    yield pipe
    for thread in threads:
        thread.join()


def fill(descriptor: int, content: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(content)


def test_raw_frames_and_a_container_on_stdin_equal_the_file(kinegru, trained, joined, piped, tmp_path):
    options = ("--pace", "asap", "--json", *QUICK)
    expected = scores_in(kinegru("live", trained, joined, *options).out)
    assert len(expected) == 22
    raw = b"".join(frame[..., ::-1].tobytes() for frame in iter_frames(joined))
    remux(joined, tmp_path / "stream.mkv")
    bare = ("--raw", "48x32:bgr24", "--raw-fps", "10")
    for content, more in ((raw, bare), (raw[:-100], bare), ((tmp_path / "stream.mkv").read_bytes(), ())):
        piped(content)
        found = scores_in(kinegru("live", trained, "-", *more, *options).out)
        assert len(found) == 22 - (content == raw[:-100])  # the last frame is cut short
        for one, other in zip(found, expected, strict=False):
            assert list(one.values()) == pytest.approx(list(other.values()), abs=1e-5)


def test_a_pipe_plays_in_its_time(kinegru, trained, piped):
    """Two seconds, written at once, take two seconds."""
    piped(moving_bar("left", 20, frames=20).tobytes())
    out = kinegru("live", trained, "-", "--raw", "48x32", "--raw-fps", "10", "--json", *QUICK).out
    times = [datetime.fromisoformat(json.loads(line)["at"]).timestamp() for line in out.splitlines()]
    assert len(times) >= 8 and 1.2 < times[-1] - times[0] < 4


def remux(source: Path, target: Path) -> None:
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", (), "no container that can be read from a pipe"),
        (b"only text\n" * 50, (), "no container that can be read from a pipe: give MPEG-TS, Matroska or an .mp4"),
        (b"\0" * 100, ("--raw", "64x48"), "not one whole frame came through the pipe"),
    ],
    ids=["empty", "text", "short"],
)
def test_a_pipe_that_holds_no_video_is_one_line(kinegru, trained, piped, content, options, words):
    piped(content)
    ran = kinegru("live", trained, "-", *options)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith(f"kinegru live: stdin: {words}")


def test_raw_frames_of_another_size_than_told_are_noticed(kinegru, trained, piped):
    piped(moving_bar("left", 0).tobytes())
    ran = kinegru("live", trained, "-", "--raw", "49x32", "--pace", "asap", *QUICK)
    assert ran.status == 0 and "it breaks off in the middle of a frame; is --raw right?" in ran.err


def test_a_closed_stdin_is_wrong_use(kinegru, trained, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    ran = kinegru("live", trained, "-")
    assert ran.status == 2 and "stdin is closed" in ran.err


def test_a_terminal_as_stdin_is_wrong_use(kinegru, trained, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    ran = kinegru("live", trained, "-")
    assert ran.status == 2 and "stdin is closed or a terminal: pipe" in ran.err


# -- streams, and how it ends -------------------------------------------------------------------------------------


def test_ctrl_c_leaves_a_playable_recording_and_status_0(trained, tmp_path):
    with serving() as (address, _):
        process = start(trained, f"{address}/live", "--json", "--record", "out.mp4", *QUICK, folder=tmp_path)
        lines = [json.loads(process.stdout.readline()) for _ in range(6)]  # they come while it runs
        assert process.poll() is None and not (tmp_path / "out.mp4").exists()
        process.send_signal(signal.SIGINT)
        out, err = finish(process)
    lines += [json.loads(line) for line in out.splitlines()]
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.damaged) == (64, 48, None) and info.frames > 10
    assert f"{len(lines)} predictions" in err and "recorded: out.mp4" in err


def test_sigterm_ends_it_while_nothing_comes(kinegru, trained):
    with serving() as (address, server):

        def terminate() -> None:
            assert server.stdout.readline() == "silent\n"  # it is connected
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=terminate)
        thread.start()
        began = time.monotonic()
        ran = kinegru("live", trained, f"{address}/silent", "--timeout", "60")
        thread.join()
    assert ran.status == 0 and time.monotonic() - began < 15 and "0 frames, 0 predictions" in ran.out


def test_a_reader_that_goes_away_ends_it_and_the_recording_is_kept(trained, joined, tmp_path, monkeypatch):
    class Gone(io.StringIO):
        """A pipe that nobody reads after three lines."""

        def flush(self) -> None:
            if self.getvalue().count("\n") == 3:
                raise BrokenPipeError

        def fileno(self) -> int:
            return nowhere.fileno()

    with (tmp_path / "nowhere").open("wb") as nowhere:
        monkeypatch.setattr("sys.stdout", Gone())
        command = ["live", str(trained), str(joined), "--json", "--record", str(tmp_path / "out.mp4"), *QUICK]
        assert main(command) == 1
    assert probe(tmp_path / "out.mp4").frames > 1


def test_a_cut_is_told_and_counted_and_a_loss_for_good_is_status_1(kinegru, trained):
    with serving() as (address, server):
        threading.Timer(3.0, server.kill).start()
        ran = kinegru("live", trained, f"{address}/live", "--retries", "1", *QUICK)
    assert ran.status == 1
    told = [line for line in ran.err.splitlines() if address in line]
    assert "lost: " in told[0] and "retry 1 of 1 in 1 s" in told[1]
    assert told[-1] == f"kinegru live: {address}/live: connection refused; gave up after 2 tries"
    assert "predictions" in ran.out and "0 reconnects" in ran.out


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_shows_one_block_and_the_summary(trained, joined, tmp_path):
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        command = [sys.executable, "-m", "kinegru", "live", str(trained), str(joined), *QUICK, "--record", "a.mkv"]
        os.execve(sys.executable, command, os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm-256color"})
    shown = b""
    with contextlib.suppress(OSError):  # at the end
        while part := os.read(terminal, 65536):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for words in ("the window fills: ", "ms late · ", "of 10.0 frames/s", "records a.mkv", "Ctrl-C stops"):
        assert words in text
    assert text.count("recorded: a.mkv") == 1 and probe(tmp_path / "a.mkv").frames == 24


# -- wrong use ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("FILE", ["--fps", "0"], "--fps is 0.0"),
        ("FILE", ["--window", "0"], "window is 0"),
        ("FILE", ["--window", "few"], "--window is 'few'"),
        ("FILE", ["--stride", "0"], "stride is 0"),
        ("FILE", ["--seconds", "0"], "--seconds is 0.0"),
        ("FILE", ["--threshold", "2"], "--threshold is 2.0"),
        ("FILE", ["--pace", "slow"], "--pace is 'slow'; it must be auto, live, real or asap"),
        ("FILE", ["--record", "out.gif"], "give a name that ends in"),
        ("FILE", ["--raw", "64x48"], "--raw describes frames on stdin"),
        ("FILE", ["--options.video_size", "64x48"], "is a file"),
        ("gopher://host/x", [], "give an address that begins with"),
        ("-", ["--raw", "64"], "give WIDTHxHEIGHT"),
    ],
)
def test_wrong_use_is_told_before_any_work(kinegru, trained, joined, source, options, words):
    ran = kinegru("live", trained, joined if source == "FILE" else source, *options)
    assert (ran.status, ran.out) == (2, "") and words in ran.err and len(ran.err.splitlines()) == 1
    assert not list(Path().iterdir())


def test_a_recording_in_a_folders_place_is_told_before_any_work(kinegru, trained, joined):
    Path("out.mp4").mkdir()
    ran = kinegru("live", trained, joined, "--record", "out.mp4")
    assert ran.status == 2 and "--record out.mp4: is a folder" in ran.err


def test_what_is_not_there_is_one_line_and_status_1(kinegru, trained, joined):
    for source, words in (("77", "camera 77: no such camera"), ("nowhere.mp4", "nowhere.mp4: no such file")):
        ran = kinegru("live", trained, source)
        assert (ran.status, ran.out) == (1, "") and ran.err.startswith(f"kinegru live: {words}")
        assert len(ran.err.splitlines()) == 1
    assert "no such model file" in kinegru("live", "nowhere.safetensors", joined).err
    before = joined.read_bytes()
    assert kinegru("live", trained, joined, "--record", joined).status == 2 and joined.read_bytes() == before


# -- memory -------------------------------------------------------------------------------------------------------


MEASURE = """
import resource, sys
from kinegru.__main__ import main
for source in sys.argv[2:]:
    assert main(["live", sys.argv[1], source, "--fps", "4", "--pace", "asap", "--record", "out.mp4"]) == 0
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_time(trained, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 120, 160, 3), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    for seconds in (10, 60):
        write_video(tmp_path / f"{seconds}.mp4", (noise[i % 20] for i in range(seconds * 4)), 4.0, "mpeg4")
    frame = noise[0].nbytes / 1024  # KiB; all frames of the long one are 53 MiB
    found = subprocess.run([sys.executable, "-c", MEASURE, trained, "10.mp4", "60.mp4"], cwd=tmp_path,
                           capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert found.returncode == 0, found.stderr
    first, second = (int(line.split()[1]) for line in found.stdout.splitlines() if line.startswith("peak"))
    assert second - first < 30 * frame, f"{second - first} KiB more"  # an eighth of its frames
