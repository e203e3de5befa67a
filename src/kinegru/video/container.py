"""A video file as libav sees it: opened with clear failures, decoded past damage, turned upright.

* Every failure is a `VideoError` of one line that names the file and the cause; libav prints nothing.
* Damage is no failure. A packet that does not decode is left out and the decoding goes on; what was wrong is kept in
  `Decoder.damage`. A packet cut short by the end of the file is never decoded, so no half-grey frame comes out of it.
* Frames are counted by decoding them. What the container says is only ever a first guess (`Decoder.announced`).
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from kinegru.errors import VideoError

THREADS_VARIABLE = "KINEGRU_DECODE_THREADS"
ONE_THREAD: Any = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}  # before, there was only one
TEXT_ART = {"ansi", "bintext", "xbin", "idf"}  # libav would read a text file as a film of its letters

Matrix = tuple[int, int, int, int]


def decode_threads() -> int:
    """How many threads decode one file: `KINEGRU_DECODE_THREADS`, or one in a worker process, or up to four.

    Worker processes already use one core each, so more threads there only get into each other's way.

    >>> 1 <= decode_threads()
    True
    """
    asked = os.environ.get(THREADS_VARIABLE, "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if multiprocessing.parent_process() is not None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores)


class Decoder:
    """One pass over the frames of a file, in display order.

    `announced` is the number of frames the container promises (0 if it does not say). While iterating, `decoded` counts
    the frames that came out and `damage` holds the first thing that was wrong, None for a sound file.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        self.path = Path(path)
        self.decoded = 0
        self.damage: str | None = None
        self.matrix: Matrix | None = None
        self._size: tuple[int, int] | None = None
        self._kept: list[Any] | None = None
        self._reformatter = VideoReformatter()
        self._container = _open(self.path)
        try:
            self.stream = self._pick_stream()
        except BaseException:
            self._container.close()
            raise
        self.context = self.stream.codec_context
        self.context.thread_count = decode_threads() if threads is None else threads
        self.context.thread_type = "AUTO" if self.context.thread_count > 1 else "SLICE"
        self.announced = int(self.stream.frames or 0)
        self.container_name: str = self._container.format.name

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes, in display order. Raises VideoError only if not one does."""
        for packet in self._packets():
            try:
                frames = self.context.decode(packet)
            except (av.error.FFmpegError, EOFError) as error:
                self.note(f"a frame after number {self.decoded} does not decode ({_reason(error)})")
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.note(f"a frame after number {self.decoded} is corrupt")
                    continue
                self.look(frame)
                self.decoded += 1
                yield frame
        if not self.decoded:
            raise VideoError(f"{shown(self.path)}: no frame can be decoded ({self.damage or 'the stream is empty'})")

    def keep_packets(self, limit: int) -> list[Any] | None:
        """All packets of the stream, undecoded; later iteration starts from them. None if they exceed `limit` bytes."""
        kept, size = [], 0
        packets = self._packets()
        for packet in packets:
            kept.append(packet)
            size += packet.size if packet is not None else 0
            if size > limit:
                self._kept, self._rest = kept, packets
                return None
        self._kept, self._rest = kept, iter(())
        return [packet for packet in kept if packet is not None]

    def _packets(self) -> Iterator[Any]:
        """Whole packets that hold something, then None, which makes the decoder give up what it holds back."""
        if self._kept is not None:
            yield from self._kept
            yield from self._rest
            return
        count = 0
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                self.note(f"the file cannot be read beyond frame {count} ({_reason(error)})")
                break
            except IndexError:  # PyAV, at the end of a file in which damage made new streams appear
                self.note("the file changes its streams on the way")
                break
            if packet is None:
                break
            if not packet.size:  # an empty packet stands for a frame that was left out, or for the end
                continue
            if packet.is_corrupt:
                self.note(f"the file breaks off in the middle of a frame, after {count}")
                continue
            count += 1
            yield packet
        if count < self.announced:
            self.note(f"of {self.announced} frames announced only {count} are there")
        elif "matroska" in self.container_name and _matroska_is_cut(self.path):
            self.note(f"the file breaks off after {count} frames")
        yield None

    def rgb(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The frame as it is meant to be seen: uint8 (H, W, 3) RGB, rotation and mirroring of the file applied.

        Frames of a stream that changes its size on the way are brought to the size of the first.
        """
        self.look(frame)
        width, height = self._size or (frame.width, frame.height)
        image = self._reformatter.reformat(frame, width, height, "rgb24", **ONE_THREAD).to_ndarray()  # (h, w, 3)
        if frame.format.name == "rgb24":  # then nothing was converted, and the decoder may still build on this memory
            image = image.copy()
        return np.ascontiguousarray(upright(cast("NDArray[np.uint8]", image), self.matrix))  # (H, W, 3)

    @property
    def display_size(self) -> tuple[int, int]:
        """(width, height) of the frames that `rgb` gives; known once a frame has come out."""
        width, height = self._size or (self.context.width, self.context.height)
        turned = self.matrix is not None and abs(self.matrix[1]) > abs(self.matrix[0])
        return (height, width) if turned else (width, height)

    @property
    def rotation(self) -> int:
        """By how many degrees, clockwise, the stored picture is turned for display: 0, 90, 180 or 270."""
        if self.matrix is None:
            return 0
        a, b, _, _ = self.matrix
        if abs(b) > abs(a):
            return 90 if b > 0 else 270
        return 0 if a > 0 else 180

    def look(self, frame: av.VideoFrame) -> None:
        """Take size and orientation from the first frame."""
        if self._size is None:
            self._size = (frame.width, frame.height)
            self.matrix = display_matrix(frame)

    def note(self, damage: str) -> None:
        """Remember what was wrong with the file; the first of it is told."""
        self.damage = self.damage or damage

    def _pick_stream(self) -> Any:
        name = shown(self.path)
        videos = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not videos:
            kinds = [kind for kind in ("audio", "subtitles") if getattr(self._container.streams, kind)]
            raise VideoError(f"{name}: holds no video stream{', only ' if kinds else ''}{' and '.join(kinds)}")
        stream = videos[0]
        if stream.codec_context is None:
            raise VideoError(f"{name}: no decoder for its video codec is available")
        if stream.codec_context.name in TEXT_ART:
            raise VideoError(f"{name}: is a text file, not a video")
        return stream


def upright(image: NDArray[np.uint8], matrix: Matrix | None) -> NDArray[np.uint8]:
    """Apply the display matrix (a, b, c, d): stored x runs along (a, b) on the screen and stored y along (c, d).

    Quarter turns and mirrorings, which is what cameras write; any other angle is taken as the nearest of them.

    >>> upright(np.arange(2, dtype=np.uint8).reshape(1, 2, 1), (0, 1, -1, 0))[..., 0]  # a quarter turn clockwise
    array([[0],
           [1]], dtype=uint8)
    """
    if matrix is None:
        return image
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image = image.swapaxes(0, 1)  # (w, h, 3)
        right, down = c, b
    else:
        right, down = a, d
    return image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def shown(path: str | os.PathLike[str]) -> str:
    """The path on one line, whatever characters its name holds.

    >>> shown("two\\nlines.mp4")
    'two\\\\nlines.mp4'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in os.fspath(path))


def _open(path: Path) -> Any:
    name = shown(path)
    try:
        if path.is_dir():
            raise VideoError(f"{name}: is a folder, not a video")
        if path.exists() and not path.is_file():  # a named pipe would be waited for, without end
            raise VideoError(f"{name}: is a pipe, socket or device, not a file")
        if path.stat().st_size == 0:
            raise VideoError(f"{name}: is empty (0 bytes)")
        # "file:" keeps libav from reading a protocol into a name such as "concat:a.mp4"
        return av.open(f"file:{path}", metadata_errors="replace")
    except FileNotFoundError:
        raise VideoError(f"{name}: no such file") from None
    except (av.error.InvalidDataError, EOFError):
        raise VideoError(f"{name}: is no video, or its beginning or index is damaged") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{name}: cannot be read ({_reason(error)})") from None


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0].lower()


def display_matrix(frame: av.VideoFrame) -> Matrix | None:
    """(a, b, c, d) of the frame's display matrix, None for a picture that is stored as it is shown."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = (int(value) for value in np.frombuffer(bytes(data), dtype="=i4", count=9))
    return None if (a > 0 and d > 0 and abs(a) > abs(b)) else (a, b, c, d)


def _matroska_is_cut(path: Path) -> bool:
    """Whether a Matroska file is shorter than its header says; libav does not tell."""
    with path.open("rb") as file:
        head = file.read(4096)
    at = 0
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # the EBML header, then the segment that holds the rest
        if head[at : at + 4] != name or at + 5 > len(head):
            return False
        length = 9 - head[at + 4].bit_length()  # of the size that follows, in bytes
        bits = 7 * length
        size = int.from_bytes(head[at + 4 : at + 4 + length], "big") & ((1 << bits) - 1)
        if size == (1 << bits) - 1:  # a live recording: unknown
            return False
        at += 4 + length + size
    return path.stat().st_size < at
