"""Decoding only what the wanted frames need, with the result of decoding everything.

* Frames that no other frame refers to, and that nobody wants, are left out by the decoder (a third to a half of the
  frames of a usual H.264 file). Stretches between wanted frames are jumped over from key frame to key frame.
* A frame is known by its timestamp, so this is done only where timestamps tell the number of a frame for certain:
  H.264 and HEVC in MP4 or Matroska, sound and progressive, beginning with a key frame. Anything unexpected on the way
  gives it up, and the caller decodes frame by frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from typing import Any

import av

from kinegru.video.container import Decoder

PACKET_BYTES = 256 * 2**20  # compressed video is held in memory up to this size
JUMP = 12  # packets; a shorter stretch is decoded rather than jumped over, as a jump empties the decoder


class Plan:
    """The packets of a file and the numbers of the frames they give: `length` frames from `start` to `end` seconds."""

    def __init__(self, decoder: Decoder, packets: list[Any], times: list[int]) -> None:
        self.decoder, self.packets = decoder, packets
        self.length = len(times)
        self.start, self.end = (float(time * decoder.stream.time_base) for time in (times[0], times[-1]))
        self.number = {time: i for i, time in enumerate(times)}

    @classmethod
    def of(cls, decoder: Decoder) -> Plan | None:
        """The plan for a file, or None where only decoding all of it is certain. `decoder` must be fresh."""
        containers = set(decoder.container_name.split(","))
        if not containers & {"mp4", "matroska"} or decoder.context.name not in ("h264", "hevc"):
            return None
        packets = decoder.keep_packets(PACKET_BYTES)
        if not packets or decoder.damage or not packets[0].is_keyframe:
            return None
        if any(packet.pts is None for packet in packets):
            return None
        times = sorted(packet.pts for packet in packets if not packet.is_discard)
        if not times or len(set(times)) != len(times) or packets[0].pts != min(packet.pts for packet in packets):
            return None
        return cls(decoder, packets, times)

    def frames(self, wanted: Collection[int], convert: Callable[[av.VideoFrame], Any]) -> dict[int, Any] | None:
        """`convert(frame)` for each wanted frame number; None if the file is not as its packets promise."""
        numbers = set(wanted)
        found: dict[int, Any] = {}
        size = (self.decoder.context.width, self.decoder.context.height)
        try:
            for frame in self._decode(numbers):
                if frame.is_corrupt or frame.interlaced_frame or frame.pts not in self.number:
                    return None
                if (frame.width, frame.height) != size:
                    return None
                number = self.number[frame.pts]
                if number in numbers:
                    found[number] = convert(frame)
        except (av.error.FFmpegError, EOFError):
            return None
        finally:
            self.decoder.context.skip_frame = "DEFAULT"
        return found if len(found) == len(numbers) else None

    def _decode(self, numbers: set[int]) -> Iterator[av.VideoFrame]:
        context = self.decoder.context
        skippable = context.name == "h264"  # in HEVC, frames of a higher layer may refer to those called non-reference
        keys = [i for i, packet in enumerate(self.packets) if packet.is_keyframe]
        targets = [i for i, packet in enumerate(self.packets) if self.number.get(packet.pts, -1) in numbers]
        position = 0
        for target in targets:
            start = self._entry(keys, target)
            if start - position >= JUMP:
                if position:
                    yield from context.decode(None)
                    context.flush_buffers()
                position = start
            for i in range(position, target + 1):
                if skippable:
                    context.skip_frame = "DEFAULT" if i == target else "NONREF"
                yield from context.decode(self.packets[i])
            position = target + 1
        yield from context.decode(None)

    def _entry(self, keys: list[int], target: int) -> int:
        """The key frame to start from: the last one before the target that is not shown after it."""
        k = bisect_right(keys, target) - 1
        while k > 0 and self.packets[keys[k]].pts > self.packets[target].pts:
            k -= 1
        return keys[k]
