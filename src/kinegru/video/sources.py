"""Where live pictures come from: a camera, a stream of the network, a file, a pipe; all look alike once they are open.

* `find` says what a name means without touching it, `open_source` opens it; both fail in one line.
* Reading has a time limit, so a stream that went silent is noticed. `Unreachable` is what may be better in a moment.
* A feed gives every frame that decodes with its time in seconds. Where the format has no timestamps (MJPEG over HTTP)
  the time is that of the arrival.
* Passwords in addresses are never shown.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from kinegru.errors import UsageError, VideoError
from kinegru.video.container import ONE_THREAD, TEXT_ART, Matrix, decode_threads, display_matrix, shown, upright
from kinegru.video.pacing import Clock, Picture, Recording, nominal_rate, stamp

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "tcp", "udp", "srt")
SECRET = re.compile(r"(?i)\b((?:pass|passwd|password|pwd|token|key|auth)=)[^&#]*")  # in an address's query
NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
HOPELESS = (  # what another try will not mend
    av.error.HTTPClientError, av.error.InvalidDataError, av.error.LookupError, av.error.ArgumentError,
    av.error.PatchWelcomeError, ValueError,
)  # fmt: skip


class Unreachable(VideoError):
    """A source that does not answer, or went away; it may come back."""


@dataclass(frozen=True)
class Source:
    """What a name means, and how libav opens it."""

    name: str  # as it may be shown, on one line and without a password
    kind: Literal["camera", "network", "file", "pipe"]
    url: str
    format: str | None = None  # libav's name, None: it finds out
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def comes_back(self) -> bool:
        """Whether its end is a failure, after which it is opened again."""
        return self.kind in ("camera", "network")


def find(name: str, raw: str | None = None, raw_fps: float = 25.0, options: Mapping[str, Any] | None = None) -> Source:
    """The source that a name means: a number or device, an address, `-` for stdin, else a file.

    `raw`, WIDTHxHEIGHT[:PIXEL FORMAT] (rgb24 if it is not said), is for bare frames on stdin, `raw_fps` of them a
    second. `options` are libav's for the source. Raises UsageError.

    >>> find("rtsp://ann:secret@camera/door").name
    'rtsp://ann:***@camera/door'
    >>> find("-", raw="640x480:bgr24").options["pixel_format"]
    'bgr24'
    """
    given = {key: str(value) for key, value in (options or {}).items()}
    if raw is not None and name != "-":
        raise UsageError(f"--raw describes frames on stdin; the source is {shown(name)}, not -")
    if name == "-":
        return _pipe(raw, raw_fps, given)
    scheme = name.partition("://")[0].lower() if "://" in name else ""
    if scheme:
        if scheme not in SCHEMES:
            raise UsageError(f"{_without_password(name)}: give an address that begins with {', '.join(SCHEMES)}")
        usual = {"rtsp_flags": "prefer_tcp"} if scheme.startswith("rtsp") else {}  # over UDP pictures break
        return Source(_without_password(name), "network", name, options=usual | given)
    if name.isdecimal() or re.fullmatch(r"/dev/(video|v4l/).*", name) or name.startswith("video="):
        return _camera(name, given)
    if Path(name).is_fifo():
        raise UsageError(f"{shown(name)}: is a named pipe; give it to stdin: kinegru live MODEL - < {shown(name)}")
    if given:
        raise UsageError(f"--options are for cameras, streams and pipes; {shown(name)} is a file")
    return Source(shown(name), "file", name)


def open_source(source: Source, timeout: float = 10.0, stop: threading.Event | None = None) -> Recording | Feed:
    """Open a source; it can then be iterated with `timed()`, once, and has to be closed (`with`).

    `timeout` is the most seconds to wait for an answer or the next data; `stop` ends a read of stdin.

    Raises VideoError, or Unreachable where another try may succeed.
    """
    if source.kind == "file":
        return Recording(source.url)
    if source.kind == "camera" and source.url.startswith("/dev/") and not Path(source.url).exists():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        raise VideoError(f"{source.name}: no such camera {source.url}; cameras here: {there}")
    return Feed(source, timeout, stop or threading.Event())


class Feed:
    """An open camera, stream or pipe. `damage` says after the last frame why there are no more, None at a proper end.

    `rate` is nominal, frames a second; `expected` the seconds that it says it lasts, 0.0 where it does not say.
    """

    def __init__(self, source: Source, timeout: float, stop: threading.Event) -> None:
        self.source, self.timeout = source, timeout
        self.damage: str | None = None
        self._reformatter = VideoReformatter()
        self._matrix: Matrix | None = None
        self._size: tuple[int, int] | None = None
        self._container = self._open(stop)
        try:
            self._stream = self._pick()
        except BaseException:
            self._container.close()
            raise
        length = self._container.duration  # microseconds
        self.expected = max(0.0, length / 1e6) if length else 0.0
        self.rate = nominal_rate(self._stream)
        self._by_arrival = source.comes_back and bool(self._container.format.flags & NO_TIMESTAMPS)
        context = self._stream.codec_context
        context.thread_count, context.thread_type = decode_threads(), "SLICE"  # by frames would hold pictures back

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def timed(self) -> Iterator[tuple[float, Picture]]:
        """Every frame that decodes and its time in seconds since the first, rising."""
        clock, lock = Clock(1 / self.rate), threading.Lock()
        for frame in self._frames():
            at = time.monotonic() if self._by_arrival else stamp(frame, self._stream)
            yield clock.time(at), Picture(frame, self._rgb, lock)
        if self.source.kind == "pipe" and not clock.began:
            raise VideoError(f"{self.source.name}: {self.damage or 'not one whole frame came through the pipe'}")

    def _frames(self) -> Iterator[Any]:
        for packet in self._packets():
            try:
                frames = self._stream.codec_context.decode(packet)
            except (av.error.FFmpegError, EOFError):
                continue  # a stream that one joins on its way begins in the middle of a picture
            yield from (frame for frame in frames if not frame.is_corrupt)

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        came = False
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                self.damage = _why(error, self.timeout)
                return
            except IndexError:  # PyAV, where new streams appear on the way
                self.damage = "its streams changed on the way"
                return
            if packet is None:
                break
            if packet.size and not packet.is_corrupt:
                yield packet
                came = True
            elif packet.is_corrupt and came and self.source.kind == "pipe":
                raw = "; is --raw right?" if self.source.format == "rawvideo" else ""
                self.damage = f"it breaks off in the middle of a frame{raw}"
        if self.source.comes_back and not self.expected:
            self.damage = "the other side ended it"
        yield None  # what the decoder holds back

    def _rgb(self, frame: Any) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), upright, of the size of the first frame."""
        if self._size is None:
            self._size = (frame.width, frame.height)
            self._matrix = display_matrix(frame)
        image = self._reformatter.reformat(frame, *self._size, "rgb24", **ONE_THREAD).to_ndarray()  # (h, w, 3)
        if frame.format.name == "rgb24":  # then nothing was converted, and the memory is the decoder's
            image = image.copy()
        return np.ascontiguousarray(upright(cast("NDArray[np.uint8]", image), self._matrix))

    def _open(self, stop: threading.Event) -> Any:
        source = self.source
        place: Any = _Stdin(stop) if source.kind == "pipe" else source.url
        try:
            return av.open(
                place, format=source.format, options=dict(source.options), timeout=self.timeout,
                metadata_errors="replace",
            )  # fmt: skip
        except HOPELESS as error:
            if source.kind == "pipe":
                raise VideoError(f"{source.name}: {_unknown_pipe(source)}") from None
            raise VideoError(f"{source.name}: {_why(error, self.timeout)}") from None
        except (av.error.FFmpegError, OSError) as error:
            if source.kind == "pipe":
                raise VideoError(f"{source.name}: nothing came through the pipe") from None
            permission = isinstance(error, PermissionError) and source.kind == "camera"
            advice = "; is your user in the group `video`?" if permission else ""
            raise Unreachable(f"{source.name}: {_why(error, self.timeout)}{advice}") from None

    def _pick(self) -> Any:
        videos = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not videos:
            raise VideoError(f"{self.source.name}: holds no video stream")
        if videos[0].codec_context is None:
            raise VideoError(f"{self.source.name}: no decoder for its video codec is available")
        if videos[0].codec_context.name in TEXT_ART:
            raise VideoError(f"{self.source.name}: {_unknown_pipe(self.source)}")
        return videos[0]


class _Stdin:
    """stdin's bytes for libav, in which it cannot seek; a read that waits can be ended."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop, self.name = stop, "stdin"
        self.descriptor = sys.stdin.fileno()

    def read(self, size: int) -> bytes:
        if os.name == "posix":
            import select

            while not self.stop.is_set() and not select.select([self.descriptor], [], [], 0.1)[0]:
                pass
        return b"" if self.stop.is_set() else os.read(self.descriptor, size)


# -- names --------------------------------------------------------------------------------------------------------


def _pipe(raw: str | None, raw_fps: float, options: dict[str, str]) -> Source:
    if raw is None:
        return Source("stdin", "pipe", "-", options=options)
    size, _, pixels = raw.partition(":")
    pixels = pixels or "rgb24"
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        raise UsageError(f"--raw is {raw!r}: give WIDTHxHEIGHT or WIDTHxHEIGHT:PIXEL_FORMAT, such as 640x480:bgr24")
    if not 0 < raw_fps < float("inf"):
        raise UsageError(f"--raw-fps is {raw_fps}: give a number of frames a second above 0")
    try:
        av.VideoFormat(pixels)
    except ValueError:
        raise UsageError(f"--raw: no pixel format {pixels!r}; rgb24, bgr24, gray and yuv420p are some") from None
    settings = {"video_size": size, "pixel_format": pixels, "framerate": str(raw_fps)}
    return Source("stdin", "pipe", "-", "rawvideo", settings | options)


def _camera(name: str, options: dict[str, str]) -> Source:
    label = f"camera {name}" if name.isdecimal() else shown(name)
    if sys.platform == "darwin":
        return Source(label, "camera", f"{name}:none", "avfoundation", {"framerate": "30"} | options)
    if sys.platform == "win32":
        return Source(label, "camera", _dshow(name), "dshow", options)
    if name.startswith("video="):
        raise UsageError(f"{shown(name)}: cameras have numbers here, or names such as /dev/video0")
    return Source(label, "camera", f"/dev/video{name}" if name.isdecimal() else name, "v4l2", options)


def _dshow(name: str) -> str:
    """DirectShow knows cameras by their names only."""
    if not name.isdecimal():
        return name
    try:
        from av.device import enumerate_input_devices

        cameras = [device for device in enumerate_input_devices("dshow") if "video" in device.media_types]
        return f"video={cameras[int(name)].name}"
    except (ImportError, IndexError):
        raise UsageError(f"camera {name}: give the name that Windows shows, as video=NAME") from None


def _without_password(address: str) -> str:
    try:
        password = urlsplit(address).password
    except ValueError:
        password = None
    user, _, host = address.rpartition("@")
    plain = f"{user[: -len(password)]}***@{host}" if password and user.endswith(password) else address
    return shown(SECRET.sub(r"\1***", plain))


def _unknown_pipe(source: Source) -> str:
    if source.format == "rawvideo":
        return "the frames cannot be read as --raw says"
    return (
        "no container that can be read from a pipe: give MPEG-TS, Matroska or an .mp4 with its index in front, "
        "or raw frames with --raw WIDTHxHEIGHT"
    )


def _why(error: BaseException, timeout: float) -> str:
    if isinstance(error, av.error.ExitError):  # the time limit
        return f"nothing came for {timeout:g} s"
    if isinstance(error, av.error.InvalidDataError):
        return "what comes is no video"
    if isinstance(error, OSError) and error.errno == errno.EIO:  # libav's for any trouble of a connection
        return "the connection failed or broke off"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0].lower()
