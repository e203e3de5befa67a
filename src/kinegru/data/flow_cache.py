"""The optical flow of clips on disk, all fields of a clip in one compressed file: every view of a clip finds its own.

* Nothing stale is ever read: a file's name is a digest of the clip's bytes and of how flow is computed.
* Files appear whole (written aside, renamed), so several processes may fill one cache. A damaged file is computed anew.
* A cache that cannot be written is no failure: the flow is computed each time, as it is for recordings of more than
  `LONGEST` frames, whose flow would not be wanted as a whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from kinegru.files import atomic_write, content_digest
from kinegru.video import flow
from kinegru.video.flow import Fields, Numbers, flow_of_frames, read_flow
from kinegru.video.reader import iter_frames

logger = logging.getLogger(__name__)

LONGEST = 2000  # frames; 300 MB of fields


class FlowCache:
    """A folder of flow; called as `kinegru.video.flow.read_flow`, and gives the same.

    >>> import tempfile
    >>> from kinegru.video.synthetic import example_clip
    >>> cache = FlowCache(tempfile.mkdtemp())
    >>> cache(example_clip(), [3, 4]).shape, cache.path(example_clip()).exists()
    ((2, 72, 96, 2), True)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, clip: str | os.PathLike[str]) -> Path:
        """Where the flow of this clip file is, or will be."""
        named = {
            "clip": content_digest(Path(clip)),
            "format": flow.FORMAT,
            "bound": flow.BOUND,
            "sides": [flow.SMALLEST_SIDE, flow.LARGEST_SIDE],
        }
        return self.folder / f"{hashlib.sha256(json.dumps(named).encode()).hexdigest()}.npz"

    def __call__(self, clip: str | os.PathLike[str], numbers: Numbers) -> Fields:
        """The numbered fields of the clip: uint8 (len(numbers), h, w, 2). Raises VideoError."""
        if max(numbers) > LONGEST:
            return read_flow(clip, numbers)
        path = self.path(clip)
        fields = self._read(path)
        if fields is None:
            fields = flow_of_frames(iter_frames(clip))
            if self.path(clip) == path:  # else the file has changed meanwhile
                self._write(path, fields)
        return fields[np.minimum(numbers, len(fields) - 1)]

    def _read(self, path: Path) -> Fields | None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                return stored["fields"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def _write(self, path: Path, fields: Fields) -> None:
        try:
            with atomic_write(path, "wb") as file:
                np.savez_compressed(file, fields=fields)
        except OSError as error:
            logger.warning("%s: the flow cache cannot be written (%s)", self.folder, error.strerror)
