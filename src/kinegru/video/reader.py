"""Exactly the asked frames of a video file, as RGB arrays, in display order.

* Frames are counted by decoding, so B-frames, edit lists, variable frame rates and containers that promise too much
  give no wrong frame. Only the wanted ones are converted to RGB.
* A damaged file gives what decodes; `VideoInfo.damaged` says what was wrong. A file of which nothing decodes, and
  anything that is no video, is a `VideoError` of one line.
* `read_clip` hands each frame to `each` (a resize, usually) as soon as it is decoded: what is held in memory are the
  results, not the full-size frames.
* `KINEGRU_DECODE_THREADS` sets the decoder's threads; in worker processes the default is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinegru.errors import VideoError
from kinegru.video.container import Decoder, shown
from kinegru.video.sampling import Sampling
from kinegru.video.selective import PACKET_BYTES, Plan
from kinegru.video.stacked import SamplingAround

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video file. Sizes are those of the frames as shown, after rotation.

    >>> VideoInfo("clip.mp4", 50, 25.0, 320, 240, 2.0, "h264").duration
    2.0
    """

    path: str
    frames: int  # frames that decode
    fps: float  # a second; from the timestamps where the container does not say, 0.0 if they do not either
    width: int  # pixels
    height: int  # pixels
    duration: float  # seconds, frames / fps; 0.0 if the rate is unknown
    codec: str  # libav's name: h264, mpeg4, vp9
    rotation: int = 0  # degrees clockwise from the stored to the shown picture
    damaged: str | None = None  # what was wrong with the file, None if it is sound


def probe(path: str | os.PathLike[str], *, exact: bool = True) -> VideoInfo:
    """What is in a video file. `frames` counts the frames that decode; damage anywhere in the file is found.

    `exact=False` believes the container's frame count and decodes one frame only: quick for long recordings, but damage
    goes unseen. It falls back to counting where the container gives no number. Raises VideoError.

    >>> from kinegru.video.synthetic import example_clip
    >>> info = probe(example_clip())
    >>> info.frames, info.fps, info.width, info.height
    (30, 25.0, 96, 72)
    """
    with Decoder(path) as decoder:
        clock = _Clock()
        for frame in decoder:
            clock.tick(decoder, frame)
            if not exact and decoder.announced:
                return _info(decoder, clock, decoder.announced)
        return _info(decoder, clock, decoder.decoded)


def frames_at(path: str | os.PathLike[str], indices: Sequence[int] | NDArray[np.int64]) -> Frame:
    """Frames by their number in display order: uint8 (len(indices), H, W, 3) RGB.

    Numbers may repeat and come in any order. Raises VideoError if one is out of range (saying how many frames there
    are), or if the file cannot be read.

    >>> from kinegru.video.synthetic import example_clip
    >>> frames_at(example_clip(), [29, 0, 0]).shape
    (3, 72, 96, 3)
    """
    wanted = [int(i) for i in indices]
    if not wanted:
        info = probe(path, exact=False)
        return np.empty((0, info.height, info.width, 3), np.uint8)
    if min(wanted) < 0:
        raise VideoError(f"{shown(path)}: frame {min(wanted)} was asked for; frames are numbered from 0")
    with Decoder(path) as decoder:
        plan = Plan.of(decoder)
        found = plan.frames(wanted, decoder.rgb) if plan and max(wanted) < plan.length else None
    if found is None:
        with Decoder(path) as decoder:
            found = _collect(decoder, wanted, decoder.rgb, stop=True)
            if max(wanted) not in found:
                damage = f"; the file is damaged: {decoder.damage}" if decoder.damage else ""
                raise VideoError(
                    f"{shown(path)}: frame {max(wanted)} was asked for, but there are only {decoder.decoded}, "
                    f"numbered from 0{damage}"
                )
    return np.stack([found[i] for i in wanted])


def iter_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Every frame that decodes, in display order, each uint8 (H, W, 3) RGB, one in memory at a time. Raises VideoError.

    >>> from kinegru.video.synthetic import example_clip
    >>> sum(1 for frame in iter_frames(example_clip()))
    30
    """
    with Decoder(path) as decoder:
        for frame in decoder:
            yield decoder.rgb(frame)


def read_clip(
    path: str | os.PathLike[str],
    sampling: Sampling | SamplingAround | int,
    each: Callable[[Frame], Any] | None = None,
) -> tuple[Any, VideoInfo]:
    """The frames that stand for the clip: (uint8 (T, H, W, 3) RGB, what is known of the file).

    `sampling` chooses them among the frames that decode (kinegru.video.sampling); a number T means the middle frame of
    each of T equal segments. The file is decoded once, or a second time where the container gave a wrong count. With
    `each`, the first result is a list of T values `each(frame)`; it is called once a distinct frame, in display order
    (and again from the start after a wrong count). Raises VideoError, and ValueError if frames < 1.

    >>> from kinegru.video.synthetic import example_clip
    >>> frames, info = read_clip(example_clip(), 8)
    >>> frames.shape, info.damaged
    ((8, 72, 96, 3), None)
    """

    chosen = Sampling(sampling) if isinstance(sampling, int) else sampling
    if chosen.frames < 1:
        raise ValueError(f"{chosen.frames} frames cannot be read: at least 1")
    rate = 0.0

    def choose(length: int) -> NDArray[np.int64]:
        return chosen.indices(length, rate)

    length, threads, quick = 0, None, True
    while True:
        with Decoder(path, threads) as decoder:
            rate = float(decoder.stream.average_rate or 0)
            convert = decoder.rgb if each is None else _then(decoder, each)
            plan = Plan.of(decoder) if quick else None
            if plan is not None:
                found = plan.frames(choose(plan.length).tolist(), convert)
                if found is not None:
                    info = _info(decoder, _Clock(plan.length, plan.start, plan.end), plan.length)
                    break
                quick = False
                continue
            guess = length or decoder.announced or len(decoder.keep_packets(PACKET_BYTES) or ()) or 1
            clock = _Clock()
            found = _collect(decoder, choose(guess).tolist(), convert, clock)
            if np.array_equal(choose(guess), choose(decoder.decoded)):
                info = _info(decoder, clock, decoder.decoded)
                break
            # damaged frames may come and go with several threads; with one they do not
            length, threads, quick = decoder.decoded, 1, False
    values = [found[i] for i in choose(info.frames).tolist()]
    return (values if each is not None else np.stack(values)), info


def _then(decoder: Decoder, each: Callable[[Frame], Any]) -> Callable[[Any], Any]:
    return lambda frame: each(decoder.rgb(frame))


def _collect(
    decoder: Decoder,
    wanted: Sequence[int],
    convert: Callable[[Any], Any],
    clock: _Clock | None = None,
    stop: bool = False,
) -> dict[int, Any]:
    """The wanted frames by number, converted as they come. `stop` ends the decoding after the last of them."""
    found: dict[int, Any] = {}
    numbers, last = set(wanted), max(wanted)
    for number, frame in enumerate(decoder):
        if clock is not None:
            clock.tick(decoder, frame)
        if number in numbers:
            found[number] = convert(frame)
        if stop and number == last:
            break
    return found


@dataclass
class _Clock:
    """First and last timestamp in seconds, for the frame rate where the container does not give one."""

    count: int = 0
    first: float | None = None
    last: float | None = None

    def tick(self, decoder: Decoder, frame: Any) -> None:
        self.count += 1
        if frame.pts is not None and decoder.stream.time_base is not None:
            self.last = float(frame.pts * decoder.stream.time_base)
            self.first = self.last if self.first is None else self.first


def _info(decoder: Decoder, clock: _Clock, frames: int) -> VideoInfo:
    width, height = decoder.display_size
    rate = decoder.stream.average_rate
    fps = float(rate) if rate else 0.0
    if fps <= 0 and clock.count > 1 and clock.first is not None and clock.last is not None and clock.last > clock.first:
        fps = (clock.count - 1) / (clock.last - clock.first)
    return VideoInfo(
        path=str(decoder.path),
        frames=frames,
        fps=fps,
        width=width,
        height=height,
        duration=frames / fps if fps > 0 else 0.0,
        codec=decoder.context.codec.canonical_name,
        rotation=decoder.rotation,
        damaged=decoder.damage,
    )
