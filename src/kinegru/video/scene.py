"""Where a drawn person acts: a textured room, things lying and moving about, a hand-held camera, light and sensor noise.

Nothing here knows the action, so nothing here can give it away; the camera only knows where the person is, as an operator
would. Pictures are drawn at twice the size and reduced, which smooths all edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

OVER = 2  # drawn this much larger than shown


@dataclass(frozen=True)
class Camera:
    """Position (metres, of the picture's centre) and magnification for every frame, each (T,)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    zoom: NDArray[np.float64]


def follow(path: NDArray[np.float64], room: float, fps: float, rng: np.random.Generator) -> Camera:
    """A camera that follows a person at `path` (T,) metres loosely, but never lets them get `room` metres off centre.

    >>> camera = follow(np.linspace(-3, 3, 50), 1.0, 25.0, np.random.default_rng(0))
    >>> bool(np.abs(np.linspace(-3, 3, 50) - camera.x).max() < 1.5)
    True
    """
    time = np.arange(len(path)) / fps
    extent = np.abs(path - path.mean()).max() + 1e-9
    tracking = max(rng.uniform(0.15, 1.0), 1 - 0.75 * room / extent)
    drift = rng.uniform(-0.2, 0.2) * room

    def wander(size: float) -> NDArray[np.float64]:
        slow, fast = rng.uniform(0.15, 0.45), rng.uniform(1.0, 2.5)
        wave = np.sin(2 * np.pi * (slow * time + rng.random())) + 0.12 * np.sin(2 * np.pi * (fast * time + rng.random()))
        return size * rng.uniform(0.3, 1.0) * wave

    return Camera(
        x=path.mean() + tracking * (path - path.mean()) + drift + wander(0.16 * room),
        y=wander(0.05) + wander(0.02),
        zoom=1 + wander(0.05),
    )


class Room:
    """Wall, floor and pictures as one texture, and the clutter in front of it, seen through `view(frame number)`.

    `width` and `height` are the picture's, `scale` pixels a metre in it, `horizon` metres from the ground to its centre.
    """

    def __init__(
        self, width: int, height: int, scale: float, horizon: float, camera: Camera, rng: np.random.Generator
    ) -> None:
        self.width, self.height, self.camera = width * OVER, height * OVER, camera
        self.scale, self.horizon = scale * OVER, horizon
        margin = 0.62 * self.width / self.scale / camera.zoom.min()
        self.left, self.right = camera.x.min() - margin, camera.x.max() + margin
        self.top = horizon + 0.62 * self.height / self.scale / camera.zoom.min() + camera.y.max()
        self.wall = self._texture(rng)
        self.things = [self._thing(rng) for _ in range(rng.integers(2, 5))]
        self.stool = tuple(int(v) for v in rng.uniform(40, 190, 3))

    def view(self, number: int) -> tuple[Image.Image, Callable[[float, float], tuple[float, float]], float]:
        """The empty room in frame `number`: an RGB picture, the map from metres to its pixels, and pixels a metre."""
        zoom = float(self.camera.zoom[number])
        x, y = float(self.camera.x[number]), float(self.camera.y[number]) + self.horizon
        scale = self.scale * zoom
        left = (x - self.left) * self.scale - self.width / 2 / zoom  # in pixels of the texture
        top = (self.top - y) * self.scale - self.height / 2 / zoom
        size = (self.width, self.height)
        picture = self.wall.transform(size, Image.Transform.AFFINE, (1 / zoom, 0, left, 0, 1 / zoom, top))

        def to_pixels(world_x: float, world_y: float) -> tuple[float, float]:
            return self.width / 2 + (world_x - x) * scale, self.height / 2 - (world_y - y) * scale

        return picture, to_pixels, scale

    def paint_things(self, draw: Any, number: int, to_pixels: Any, scale: float, front: bool) -> None:
        """The moving clutter, that behind the person or that in front."""
        for thing in self.things:
            if thing["front"] != front:
                continue
            beat = 2 * np.pi * (thing["rate"] * number / 25 + thing["phase"])
            x, y = to_pixels(thing["x"] + thing["sway_x"] * np.sin(beat), thing["y"] + thing["sway_y"] * np.cos(beat))
            turn, size = beat * thing["spin"], thing["size"] * scale
            corners = [turn + 2 * np.pi * k / thing["corners"] for k in range(thing["corners"])]
            draw.polygon([(x + size * np.cos(c), y + size * np.sin(c) * thing["flat"]) for c in corners], fill=thing["colour"])

    def paint_stool(self, draw: Any, x: float, seat: float, to_pixels: Any, scale: float) -> None:
        """A stool at `x` with its seat at `seat` metres; every clip has one."""
        centre, top = to_pixels(x, seat)
        _, ground = to_pixels(x, 0.0)
        half = 0.21 * scale
        dark = tuple(int(v * 0.7) for v in self.stool)
        for leg in (-0.8, 0.8):
            draw.line((centre + leg * half, top, centre + leg * half * 1.1, ground), fill=dark, width=int(0.045 * scale))
        draw.rounded_rectangle((centre - half, top, centre + half, top + 0.08 * scale), 0.03 * scale, fill=self.stool)

    def _thing(self, rng: np.random.Generator) -> dict[str, Any]:
        front = bool(rng.random() < 0.25)
        return {
            "front": front,
            "x": rng.uniform(self.left, self.right),
            "y": rng.uniform(0.1, 0.35) if front else rng.uniform(0.3, 2.1),
            "size": rng.uniform(0.07, 0.2) * (0.8 if front else 1.3),
            "corners": int(rng.choice((3, 4, 5, 24))),
            "flat": rng.uniform(0.5, 1.0),
            "sway_x": rng.uniform(0, 1.0),
            "sway_y": rng.uniform(0, 0.35) * (not front),
            "rate": rng.uniform(0.2, 1.2),
            "phase": rng.random(),
            "spin": rng.uniform(-1, 1),
            "colour": tuple(int(v) for v in rng.uniform(30, 230, 3)),
        }

    def _texture(self, rng: np.random.Generator) -> Image.Image:
        width = int((self.right - self.left) * self.scale) + 2
        bottom = 2 * self.horizon - self.top  # as far below the centre as the top is above it
        height = int((self.top - bottom) * self.scale) + 2
        wall = rng.uniform(80, 205) + rng.uniform(-30, 30, 3)
        floor = rng.uniform(60, 160) + rng.uniform(-25, 25, 3)
        edge = int((self.top - rng.uniform(0.05, 0.35)) * self.scale)  # where the wall meets the floor
        image = np.empty((height, width, 3), np.float32)
        image[:edge], image[edge:] = wall, floor
        for cells, strength in ((6, 26), (24, 14), (90, 10)):
            grain = rng.normal(0, strength, (max(2, height * cells // 400), max(2, width * cells // 400))).astype(np.float32)
            image += np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BILINEAR))[..., None]
        picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        step = rng.uniform(0.25, 0.9) * self.scale
        line = tuple(int(v * 0.82) for v in np.clip(wall, 0, 255))
        if rng.random() < 0.6:
            for x in np.arange(0, width, step):
                draw.line((x, 0, x, edge), fill=line, width=OVER)
        if rng.random() < 0.5:
            for y in np.arange(0, edge, step):
                draw.line((0, y, width, y), fill=line, width=OVER)
        for _ in range(int(width / self.scale * rng.uniform(0.4, 1.2))):  # windows, pictures, boxes on the floor
            w, h = rng.uniform(0.25, 0.9, 2) * self.scale
            x = rng.uniform(0, width)
            y = edge - h if rng.random() < 0.3 else rng.uniform(0, max(1.0, edge - h))
            colour = tuple(int(v) for v in np.clip(rng.uniform(50, 215) + rng.uniform(-50, 50, 3), 0, 255))
            draw.rectangle((x, y, x + w, y + h), fill=colour, outline=tuple(int(v * 0.6) for v in colour), width=2 * OVER)
        return picture


class Sensor:
    """Light, a gradient across the picture, and noise: what turns the drawn picture into the recorded one."""

    def __init__(self, width: int, height: int, light: tuple[float, float, float], rng: np.random.Generator) -> None:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        angle = rng.uniform(0, 2 * np.pi)
        slope = 1 + rng.uniform(0.05, 0.2) * (x * np.cos(angle) + y * np.sin(angle)) - 0.1 * (x * x + y * y)  # (H, W)
        self.gain = (slope[..., None] * np.asarray(light)).astype(np.float32)  # (H, W, 3)
        strength = rng.uniform(2, 6)
        self.noise = rng.normal(0, strength, (2 * height, 2 * width, 1)).astype(np.float32)
        self.noise = self.noise + rng.normal(0, strength / 2, (2 * height, 2 * width, 3)).astype(np.float32)
        self.rng = rng

    def record(self, picture: Image.Image) -> NDArray[np.uint8]:
        """The picture at its shown size: uint8 (H, W, 3)."""
        image = np.asarray(picture.reduce(OVER)) * self.gain
        height, width = image.shape[:2]
        y, x = self.rng.integers(height), self.rng.integers(width)
        image += self.noise[y : y + height, x : x + width]
        return np.clip(image, 0, 255, out=image).astype(np.uint8)
