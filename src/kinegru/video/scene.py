"""The picture around and of a drawn person: a textured room, things that move about, a hand-held camera, light, noise.

Nothing here knows the action, so nothing here can give it away; the camera only knows where the person is, as an
operator would. Pictures are drawn at twice the size and reduced, which smooths all edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kinegru.video.puppet import SIDES, Colour, Person, Vector

OVER = 2  # drawn this much larger than shown


@dataclass(frozen=True)
class Camera:
    """Position (metres, of the picture's centre) and magnification for every frame, each (T,)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    zoom: NDArray[np.float64]


def follow(path: NDArray[np.float64], room: float, fps: float, rng: np.random.Generator, calm: bool = False) -> Camera:
    """A camera that follows a person at `path` (T,) metres loosely, but never lets them get `room` metres off centre.

    A `calm` one is on a stand, and turns no further than it must.

    >>> camera = follow(np.linspace(-3, 3, 50), 1.0, 25.0, np.random.default_rng(0))
    >>> bool(np.abs(np.linspace(-3, 3, 50) - camera.x).max() < 1.5)
    True
    """
    time = np.arange(len(path)) / fps
    extent = np.abs(path - path.mean()).max() + 1e-9
    least = 1 - 0.75 * room / extent
    if calm:
        still = np.zeros(len(path))
        return Camera(path.mean() + max(0.0, least) * (path - path.mean()), still, still + 1)
    tracking = max(rng.uniform(0.15, 1.0), least)
    drift = rng.uniform(-0.2, 0.2) * room

    def wander(size: float) -> NDArray[np.float64]:
        slow, fast = rng.uniform(0.15, 0.45), rng.uniform(1.0, 2.5)
        wave = np.sin(2 * np.pi * (slow * time + rng.random())) + 0.12 * np.sin(
            2 * np.pi * (fast * time + rng.random())
        )
        return size * rng.uniform(0.3, 1.0) * wave

    return Camera(
        x=path.mean() + tracking * (path - path.mean()) + drift + wander(0.16 * room),
        y=wander(0.05) + wander(0.02),
        zoom=1 + wander(0.05),
    )


class Room:
    """Wall, floor and pictures as one texture, and the clutter in front of it, seen through `view(frame number)`.

    `width` and `height` are the picture's, `scale` pixels a metre in it, `horizon` metres from the ground to its
    centre. In a `calm` room nothing moves but the person.
    """

    def __init__(
        self, width: int, height: int, scale: float, horizon: float, camera: Camera, rng: np.random.Generator,
        calm: bool = False,
    ) -> None:  # fmt: skip
        self.width, self.height, self.camera = width * OVER, height * OVER, camera
        self.scale, self.horizon = scale * OVER, horizon
        margin = 0.62 * self.width / self.scale / camera.zoom.min()
        self.left, self.right = camera.x.min() - margin, camera.x.max() + margin
        self.top = horizon + 0.62 * self.height / self.scale / camera.zoom.min() + camera.y.max()
        self.wall = self._texture(rng)
        self.things = [] if calm else [self._thing(rng) for _ in range(rng.integers(2, 5))]
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
            draw.polygon(
                [(x + size * np.cos(c), y + size * np.sin(c) * thing["flat"]) for c in corners], fill=thing["colour"]
            )

    def paint_stool(self, draw: Any, x: float, seat: float, to_pixels: Any, scale: float) -> None:
        """A stool at `x` with its seat at `seat` metres; every clip has one."""
        centre, top = to_pixels(x, seat)
        _, ground = to_pixels(x, 0.0)
        half = 0.21 * scale
        dark = tuple(int(v * 0.7) for v in self.stool)
        for leg in (-0.8, 0.8):
            draw.line(
                (centre + leg * half, top, centre + leg * half * 1.1, ground), fill=dark, width=int(0.045 * scale)
            )
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
        for cells, strength in ((6, 20), (24, 11), (90, 8)):
            grain = rng.normal(0, strength, (max(2, height * cells // 400), max(2, width * cells // 400))).astype(
                np.float32
            )
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
        for _ in range(int(width / self.scale * rng.uniform(0.3, 0.9))):  # windows, pictures, boxes on the floor
            w, h = rng.uniform(0.25, 0.9, 2) * self.scale
            x = rng.uniform(0, width)
            y = edge - h if rng.random() < 0.3 else rng.uniform(0, max(1.0, edge - h))
            colour = tuple(int(v) for v in np.clip(rng.uniform(50, 215) + rng.uniform(-50, 50, 3), 0, 255))
            draw.rectangle(
                (x, y, x + w, y + h), fill=colour, outline=tuple(int(v * 0.6) for v in colour), width=2 * OVER
            )
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


def paint_person(
    draw: Any, person: Person, joints: dict[str, Vector], yaw: float, to_pixels: Any, scale: float
) -> None:
    """Draw the person on a PIL ImageDraw, far limbs first and darker.

    `yaw` turns the person about the vertical: 0 faces right, 90 the camera, 180 left. `to_pixels(x, y)` maps metres
    on the picture's plane to pixels; `scale` is pixels a metre.
    """
    turn = np.radians(yaw)
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    seen = {}  # (x, y) in metres and depth towards the viewer
    for name, point in joints.items():
        x, y, z = point.tolist()
        seen[name] = (x * cos + z * sin, y, x * sin - z * cos)
    thick = person.build * person.height / 1.75
    shank = person.skin if person.short_trousers else person.trousers
    fore = person.skin if person.short_sleeves else person.shirt
    limbs = [("chest", "head", 0.05, 0.045, person.skin)]
    for side in SIDES:
        limbs += [
            (f"hip{side}", f"knee{side}", 0.088, 0.062, person.trousers),
            (f"knee{side}", f"ankle{side}", 0.058, 0.042, shank),
            (f"ankle{side}", f"toe{side}", 0.045, 0.034, person.shoes),
            (f"shoulder{side}", f"elbow{side}", 0.056, 0.046, person.shirt),
            (f"elbow{side}", f"wrist{side}", 0.044, 0.036, fore),
            (f"wrist{side}", f"wrist{side}", 0.048, 0.048, person.skin),
        ]
    shapes: list[tuple[float, Any]] = [((seen[a][2] + seen[b][2]) / 2, (a, b, ra, rb, c)) for a, b, ra, rb, c in limbs]
    shapes += [(seen["pelvis"][2] * 0.5 + seen["chest"][2] * 0.5, "trunk"), (seen["head"][2], "head")]
    middle = seen["pelvis"][2]
    for depth, shape in sorted(shapes, key=lambda item: item[0]):
        shade = min(1.08, max(0.7, 0.93 + 0.9 * (depth - middle)))
        if shape == "head":
            _head(draw, person, seen["head"], yaw, to_pixels, scale * person.height / 1.75)
        elif shape == "trunk":
            corners = [f"shoulder{SIDES[0]}", f"shoulder{SIDES[1]}", f"hip{SIDES[1]}", f"hip{SIDES[0]}"]
            draw.polygon([to_pixels(*seen[c][:2]) for c in corners], fill=_tint(person.shirt, shade))
            for a, b, ra, rb in ((0, 3, 0.075, 0.085), (1, 2, 0.075, 0.085), (0, 1, 0.07, 0.07)):
                ends = (to_pixels(*seen[corners[a]][:2]), to_pixels(*seen[corners[b]][:2]))
                _limb(draw, *ends, ra * thick * scale, rb * thick * scale, _tint(person.shirt, shade))
        else:
            a, b, ra, rb, colour = shape
            ends = (to_pixels(*seen[a][:2]), to_pixels(*seen[b][:2]))
            _limb(draw, *ends, ra * thick * scale, rb * thick * scale, _tint(colour, shade))


def _head(draw: Any, person: Person, place: Any, yaw: float, to_pixels: Any, scale: float) -> None:
    x, y = to_pixels(place[0], place[1])
    wide, tall = 0.095 * scale, 0.122 * scale
    back = -np.cos(np.radians(yaw)) * 0.045 * scale  # hair sits at the back of the head
    draw.ellipse((x - wide * 1.06 + back, y - tall * 1.1, x + wide * 1.06 + back, y + tall * 0.7), fill=person.hair)
    shown = 0.02 * scale
    draw.ellipse((x - wide - back * 0.4, y - tall + 3 * shown, x + wide - back * 0.4, y + tall), fill=person.skin)


def _limb(draw: Any, a: tuple[float, float], b: tuple[float, float], ra: float, rb: float, colour: Colour) -> None:
    """A tapered limb with round ends, in pixels."""
    draw.ellipse((a[0] - ra, a[1] - ra, a[0] + ra, a[1] + ra), fill=colour)
    draw.ellipse((b[0] - rb, b[1] - rb, b[0] + rb, b[1] + rb), fill=colour)
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = (dx * dx + dy * dy) ** 0.5
    if length > 1e-6:
        nx, ny = -dy / length, dx / length
        sides = ((a, ra), (b, rb), (b, -rb), (a, -ra))
        draw.polygon([(point[0] + nx * r, point[1] + ny * r) for point, r in sides], fill=colour)


def _tint(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, int(value * factor)) for value in colour)
    return r, g, b
