"""A small data set of real video files: drawn people who jump, run, sit down, stand up, walk and wave.

* Made to be learnt from, not to be guessed: people differ in proportions, clothes, light, speed and style; the room,
  the moving clutter, the camera, the viewing direction and the noise differ from clip to clip and know nothing of the
  action. In a `calm` set, for short demonstrations, the camera stands still and nothing moves but the person.
* `sit-down` and `stand-up` are the same movement in opposite directions: only the order of the frames tells them apart.
* The same seed gives the same clips; each clip has its own random numbers. Files appear whole, a second run reuses
  them, an interrupted one is completed.

`python -m kinegru.video.synthetic FOLDER` writes the set; `--sheet FILE.png` draws an overview.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kinegru.errors import KineGRUError, UsageError, VideoError
from kinegru.files import atomic_write, is_occupied
from kinegru.video.puppet import ACTIONS, Motion, draw_person, skeleton
from kinegru.video.reader import read_clip
from kinegru.video.scene import Room, Sensor, follow, paint_person
from kinegru.video.writer import write_video

FAST = {"preset": "superfast", "crf": "23"}  # for the encoder; half the time of the usual setting
MARKER = ".synthetic.json"  # the settings a folder was written with


def write_dataset(
    folder: str | os.PathLike[str],
    people: int = 10,
    clips_per_action: int = 2,
    seed: int = 0,
    size: tuple[int, int] = (160, 120),
    fps: float = 25.0,
    calm: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `people` x 6 actions x `clips_per_action` clips as FOLDER/ACTION/PERSON_ACTION_N.mp4; returns their paths.

    Clips last 1.5 to 2.5 seconds at `size` (width, height) pixels. `workers` processes share the work (default: one a
    core); `progress(done, all)` is called as clips appear. Raises UsageError if the folder holds something else or
    was written with other settings.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = write_dataset(Path(folder) / "set", people=1, clips_per_action=1, size=(48, 36), workers=1)
    ...     [str(path.relative_to(folder)) for path in paths][:2]
    ['set/jump/p01_jump_1.mp4', 'set/run/p01_run_1.mp4']
    """
    folder = Path(folder)
    settings = {
        "people": people, "clips_per_action": clips_per_action, "seed": seed, "size": list(size), "fps": fps,
        "calm": calm,
    }  # fmt: skip
    _claim(folder, settings)
    paths = [job[0] for job in _jobs(folder, settings)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, max(1, sum(not path.exists() for path in paths) // 8))

    def report() -> None:
        if progress is not None:
            progress(sum(path.exists() for path in paths), len(paths))

    if workers > 1:
        _write_in_parallel(folder, workers, report)
    else:
        _write_share(folder, settings, 0, 1, report)
    report()
    return paths


def render_clip(
    action: str, person: int, number: int, seed: int = 0, size: tuple[int, int] = (160, 120), fps: float = 25.0,
    calm: bool = False,
) -> Iterator[NDArray[np.uint8]]:  # fmt: skip
    """The frames of one clip, uint8 (H, W, 3) RGB, before encoding; a function of its arguments alone.

    >>> next(render_clip("walk", person=0, number=0, size=(80, 60))).shape
    (60, 80, 3)
    """
    who = draw_person(np.random.default_rng([seed, person]))
    rng = np.random.default_rng([seed, person, ACTIONS.index(action), number])
    width, height = size
    count = int(rng.uniform(1.5, 2.5) * fps)
    motion = Motion(action, who, (count - 1) / fps, rng)
    yaw = float(rng.choice((0, 180)) + rng.uniform(-40, 40))
    if action in ("wave", "jump"):
        yaw = float(90 + rng.uniform(-60, 60))  # towards the camera, more or less
    scale = height * rng.uniform(0.62, 0.75) / 1.75  # pixels a metre
    bodies = [skeleton(who, motion.pose(i / fps)) for i in range(count)]
    turn = np.cos(np.radians(yaw))
    centres = np.array([body["pelvis"][0] * turn for body in bodies])
    camera = follow(centres, 0.5 * width / scale - 0.55, fps, rng, calm)
    room = Room(width, height, scale, who.height * rng.uniform(0.57, 0.65), camera, rng, calm)
    sensor = Sensor(width, height, who.light, rng)
    seat = who.height * who.legs * 0.49  # below the pelvis of a seated person
    stool = -seat * 1.04 * turn if action in ("sit-down", "stand-up") else rng.uniform(room.left, room.right)
    for i, body in enumerate(bodies):
        picture, to_pixels, pixels = room.view(i)
        draw = ImageDraw.Draw(picture, "RGBA")
        room.paint_things(draw, i, to_pixels, pixels, front=False)
        room.paint_stool(draw, stool, seat, to_pixels, pixels)
        x, y = to_pixels(body["pelvis"][0] * turn, 0.0)
        draw.ellipse((x - 0.34 * pixels, y - 0.05 * pixels, x + 0.34 * pixels, y + 0.06 * pixels), fill=(0, 0, 0, 70))
        paint_person(draw, who, body, yaw, to_pixels, pixels)
        room.paint_things(draw, i, to_pixels, pixels, front=True)
        yield sensor.record(picture)


def contact_sheet(paths: list[Path], columns: int = 8, tile: int = 160) -> Image.Image:
    """An overview: one row a clip, `columns` frames from beginning to end, each `tile` pixels wide.

    >>> contact_sheet([example_clip()], columns=4, tile=48).size
    (192, 36)
    """
    rows = []
    for path in paths:
        frames, info = read_clip(path, columns)
        height = round(tile * info.height / info.width)
        tiles = [np.asarray(Image.fromarray(frame).resize((tile, height))) for frame in frames]
        rows.append(np.concatenate(tiles, axis=1))
    return Image.fromarray(np.concatenate(rows))


@cache
def example_clip() -> Path:
    """A real video file to try things on: somebody walking, 30 frames of 96 x 72 at 25 a second, gone when Python ends.

    >>> example_clip().name
    'walk.mp4'
    """
    folder = tempfile.mkdtemp(prefix="kinegru-")  # a TemporaryDirectory ends with a forked child, from Python 3.13 on
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "walk.mp4"
    frames = render_clip("walk", person=0, number=0, size=(96, 72))
    write_video(path, (frame for frame, _ in zip(frames, range(30), strict=False)))
    return path


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    marker = folder / MARKER
    if marker.exists():
        if json.loads(marker.read_text()) != settings:
            raise UsageError(f"{folder}: holds a set written with other settings; remove it or name another folder")
    elif is_occupied(folder):
        raise UsageError(f"{folder}: is not empty; name a new folder for the drawn clips")
    else:
        with atomic_write(marker) as file:
            json.dump(settings, file)


def _jobs(folder: Path, settings: dict[str, Any]) -> list[tuple[Path, str, int, int]]:
    return [
        (folder / action / f"p{person + 1:02d}_{action}_{number + 1}.mp4", action, person, number)
        for person in range(settings["people"])
        for action in ACTIONS
        for number in range(settings["clips_per_action"])
    ]


def _write_share(folder: Path, settings: dict[str, Any], part: int, parts: int, report: Callable[[], None]) -> None:
    """Write every `parts`-th clip that is not there yet."""
    for path, action, person, number in _jobs(folder, settings)[part::parts]:
        if not path.exists():
            seed, size, fps = settings["seed"], tuple(settings["size"]), settings["fps"]
            frames = render_clip(action, person, number, seed, size, fps, settings["calm"])
            write_video(path, frames, fps, options=FAST)
            report()


def _write_in_parallel(folder: Path, workers: int, report: Callable[[], None]) -> None:
    """Each of `workers` processes writes its share. Fresh interpreters: nothing of this process is forked."""
    command = [sys.executable, "-m", "kinegru.video.synthetic", str(folder)]
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))}
    running = [
        subprocess.Popen([*command, "--share", f"{i}/{workers}"], env=environment, stderr=subprocess.PIPE, text=True)
        for i in range(workers)
    ]
    try:
        for process in running:
            while True:
                try:
                    _, errors = process.communicate(timeout=0.3)
                    break
                except subprocess.TimeoutExpired:
                    report()
            if process.returncode:
                raise VideoError(
                    f"{folder}: writing the clips failed ({(errors.strip().splitlines() or ['no reason'])[-1]})"
                )
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _complain(error: KineGRUError) -> int:
    print(error, file=sys.stderr)
    return error.exit_status


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m kinegru.video.synthetic", description="Write drawn action clips.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--clips-per-action", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calm", action="store_true", help="nothing moves but the person")
    parser.add_argument("--sheet", type=Path, help="write an overview of one clip an action to this PNG")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.share:
        part, parts = (int(value) for value in arguments.share.split("/"))
        settings = json.loads((arguments.folder / MARKER).read_text())
        _write_share(arguments.folder, settings, part, parts, lambda: None)
        return
    paths = write_dataset(
        arguments.folder, arguments.people, arguments.clips_per_action, arguments.seed, calm=arguments.calm
    )
    print(f"{len(paths)} clips in {arguments.folder}")
    if arguments.sheet:
        chosen = paths[:: arguments.clips_per_action][: 2 * len(ACTIONS)]
        contact_sheet(chosen).save(arguments.sheet)


if __name__ == "__main__":
    try:
        _main()
    except KineGRUError as error:
        sys.exit(_complain(error))
