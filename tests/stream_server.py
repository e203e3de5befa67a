"""A server of live video for the tests: `python stream_server.py PORT COLOUR` says `ready PORT`, then the path of each
request, until it is killed.

Every connection gets MPEG-TS over HTTP, H.264, 25 frames a second as time goes by, of a plain picture: `red` or `blue`.
The path says how: `/live` goes on for ever, `/brief` breaks off after a second, `/stuck` then sends nothing more,
`/stuck-once` does so on the first connection only, `/silent` accepts and says nothing; anything else is not found.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
RATE, SIZE = 25, (48, 64)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    colour = COLOURS["red"]
    stuck = False

    def do_GET(self) -> None:
        what = self.path.lstrip("/")
        print(what, flush=True)
        if what not in ("live", "brief", "stuck", "stuck-once", "silent"):
            self.send_error(404)
            return
        if what == "silent":
            time.sleep(3600)
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        first, Handler.stuck = not Handler.stuck, True
        try:
            self.serve(10**9 if what == "live" or (what == "stuck-once" and not first) else RATE)
            if what != "brief":
                time.sleep(3600)
        except (OSError, av.error.FFmpegError):  # the other side has gone
            pass

    def serve(self, frames: int) -> None:
        """Encode and send as time goes by."""
        picture = np.full((*SIZE, 3), self.colour, np.uint8)
        with av.open(self.wfile, "w", format="mpegts") as container:
            options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
            stream = container.add_stream("libx264", rate=RATE, options=options)
            stream.height, stream.width = SIZE
            stream.pix_fmt, stream.thread_count = "yuv420p", 1
            began = time.monotonic()
            for number in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
                time.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(colour: str = "red", port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server in a process of its own, without a path, and that process."""
    command = [sys.executable, str(Path(__file__)), str(port), colour]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().split()[1]}", process
        finally:
            process.kill()


if __name__ == "__main__":
    Handler.colour = COLOURS[sys.argv[2]]
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("ready", server.server_port, flush=True)
    server.serve_forever()
