"""A drawn person: a jointed body of tapered limbs, posed by angles and seen from any side.

Body axes: x forward, y up, z to the person's left; metres and degrees. A limb's direction is given by two angles:
`swing` (forward positive, 0 hangs down) and `spread` (away from the body). The poses of each action are functions of
time; `sit-down` and `stand-up` are one movement run forwards and backwards, so no single frame tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ACTIONS = ("jump", "run", "sit-down", "stand-up", "walk", "wave")
SIDES = (1, -1)  # left, right
Colour = tuple[int, int, int]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    """What stays the same in all clips of one person: proportions, clothes, style of moving, and light."""

    height: float  # metres
    legs: float  # share of the height
    build: float  # thickness of the limbs, 1 is medium
    tempo: float  # speed of all movements, 1 is medium
    vigour: float  # size of all movements, 1 is medium
    stoop: float  # degrees of forward lean
    hand: int  # 1 left, -1 right
    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    short_sleeves: bool
    short_trousers: bool
    light: tuple[float, float, float]  # factor on red, green and blue


def draw_person(rng: np.random.Generator) -> Person:
    """A person at random.

    >>> 1.5 < draw_person(np.random.default_rng(0)).height < 2.0
    True
    """
    skins = ((240, 205, 180), (224, 180, 145), (196, 145, 105), (150, 100, 70), (105, 70, 50))
    hairs = ((40, 30, 25), (90, 60, 35), (165, 125, 70), (120, 120, 125), (20, 20, 25))
    warm = rng.uniform(-0.08, 0.08)
    bright = rng.uniform(0.8, 1.12)
    return Person(
        height=rng.uniform(1.55, 1.95),
        legs=rng.uniform(0.46, 0.5),
        build=rng.uniform(0.85, 1.25),
        tempo=rng.uniform(0.85, 1.18),
        vigour=rng.uniform(0.85, 1.18),
        stoop=rng.uniform(-2, 6),
        hand=int(rng.choice(SIDES)),
        skin=skins[rng.integers(len(skins))],
        hair=hairs[rng.integers(len(hairs))],
        shirt=_vivid(rng),
        trousers=_vivid(rng, dull=0.6),
        shoes=_vivid(rng, dull=0.8),
        short_sleeves=bool(rng.random() < 0.5),
        short_trousers=bool(rng.random() < 0.25),
        light=(bright * (1 + warm), bright, bright * (1 - warm)),
    )


@dataclass
class Pose:
    """Angles of all limbs at one moment, in degrees; each pair is (left, right)."""

    lean: float = 0.0  # of the trunk, forward
    thigh: tuple[float, float] = (0.0, 0.0)
    knee: tuple[float, float] = (4.0, 4.0)  # bent by
    stance: float = 4.0  # spread of the legs
    arm: tuple[float, float] = (0.0, 0.0)  # upper arm, swing
    elbow: tuple[float, float] = (12.0, 12.0)  # bent forward by
    arm_spread: tuple[float, float] = (9.0, 9.0)
    forearm_spread: tuple[float, float] = (6.0, 6.0)
    lift: float = 0.0  # of the lower foot above the ground, metres
    travel: float | None = None  # of the pelvis; None keeps the feet where they are


class Motion:
    """One performance of an action: `pose(t)` at `t` seconds, for `duration` seconds.

    >>> person = draw_person(np.random.default_rng(0))
    >>> motion = Motion("sit-down", person, 2.0, np.random.default_rng(1))
    >>> motion.pose(0.0).knee[0] < 20 < 60 < motion.pose(2.0).knee[0]
    True
    """

    def __init__(self, action: str, person: Person, duration: float, rng: np.random.Generator) -> None:
        self.action, self.person, self.duration = action, person, duration
        self.phase = rng.uniform(0, 1)
        self.tempo = person.tempo * rng.uniform(0.93, 1.07)
        self.vigour = person.vigour * rng.uniform(0.93, 1.07)
        self.both_hands = bool(rng.random() < 0.25)
        self.reach = rng.uniform(85, 125)  # spread of a waving upper arm
        self.sway = rng.uniform(1.0, 3.0)
        self.slouch = rng.uniform(0, 10)
        self.takes = min(duration * 0.8, rng.uniform(0.75, 1.1) / self.tempo)  # seconds to sit down
        self.starts = rng.uniform(0.08, 0.92) * (duration - self.takes)

    def pose(self, time: float) -> Pose:
        if self.action == "walk":
            return self._gait(time, pace=0.95, stride=27, knee=48, elbow=20, swing=24, lean=3, bounce=0.0)
        if self.action == "run":
            return self._gait(time, pace=1.45, stride=38, knee=88, elbow=85, swing=42, lean=13, bounce=0.07)
        if self.action == "jump":
            return self._jump(time)
        if self.action == "wave":
            return self._wave(time)
        return self._sit(time if self.action == "sit-down" else self.duration - time)

    def _gait(
        self,
        time: float,
        pace: float,
        stride: float,
        knee: float,
        elbow: float,
        swing: float,
        lean: float,
        bounce: float,
    ) -> Pose:
        frequency, reach = pace * self.tempo, stride * self.vigour  # strides a second, degrees
        phase = 2 * np.pi * (frequency * time + self.phase)
        left, right = phase, phase + np.pi
        speed = (
            4 * frequency * self.person.legs * self.person.height * np.sin(np.radians(reach)) * 0.9
        )  # metres a second
        centre = 4 + bounce * 120  # runners bring their knees up

        def bend(p: float) -> float:
            return 6 + knee * self.vigour * max(0.0, -np.sin(p + 0.35)) ** 1.3

        arms = swing * self.vigour
        return Pose(
            lean=lean + self.person.stoop,
            thigh=(centre + reach * np.cos(left), centre + reach * np.cos(right)),
            knee=(bend(left), bend(right)),
            stance=2.0,
            arm=(-arms * np.cos(left), -arms * np.cos(right)),
            elbow=(elbow - 10 * np.cos(left), elbow - 10 * np.cos(right)),
            lift=bounce * (0.5 + 0.5 * np.cos(2 * phase)),
            travel=speed * (time - self.duration / 2),
        )

    def _jump(self, time: float) -> Pose:
        period = 1.05 / self.tempo
        at = (time / period + self.phase) % 1.0  # 0 stand, crouch to 0.3, fly 0.42 to 0.75, land and rise
        crouch = _bump(at, 0.0, 0.28, 0.42) + 0.6 * _bump(at, 0.75, 0.83, 1.0)
        flight = (at - 0.42) / 0.33
        height = 0.4 * self.vigour * 4 * flight * (1 - flight) if 0 < flight < 1 else 0.0
        raised = _bump(at, 0.3, 0.55, 0.85)
        arm = -35 * crouch + 150 * raised * self.vigour
        return Pose(
            lean=self.person.stoop + 32 * crouch,
            thigh=(58 * crouch + 8 * raised,) * 2,
            knee=(4 + 95 * crouch + 14 * raised,) * 2,
            arm=(arm, arm),
            elbow=(14 + 10 * crouch,) * 2,
            lift=height,
        )

    def _wave(self, time: float) -> Pose:
        beat = np.sin(2 * np.pi * (1.7 * self.tempo * time + self.phase))
        idle = self.sway * np.sin(2 * np.pi * (0.5 * time + self.phase))
        raised = (self.reach + 4 * beat, min(185.0, self.reach + 40) + 38 * self.vigour * beat)
        low = (9.0 + idle, 6.0 + idle)
        waving = [self.both_hands or self.person.hand == side for side in SIDES]
        return Pose(
            lean=self.person.stoop + idle,
            stance=6.0,
            elbow=(0.0 if waving[0] else 12.0, 0.0 if waving[1] else 12.0),
            arm_spread=(raised[0] if waving[0] else low[0], raised[0] if waving[1] else low[0]),
            forearm_spread=(raised[1] if waving[0] else low[1], raised[1] if waving[1] else low[1]),
        )

    def _sit(self, time: float) -> Pose:
        done = min(1.0, max(0.0, (time - self.starts) / self.takes))
        seated = done * done * (3 - 2 * done)
        forward = 4 * done * (1 - done)  # people lean forward on the way
        idle = self.sway * np.sin(2 * np.pi * (0.5 * time + self.phase))
        return Pose(
            lean=self.person.stoop + idle + 34 * forward * self.vigour - self.slouch * seated,
            thigh=(88 * seated, 86 * seated),
            knee=(4 + 86 * seated, 4 + 80 * seated),
            arm=(25 * seated + 22 * forward, 25 * seated + 18 * forward),
            elbow=(12 + 40 * seated,) * 2,
        )


def skeleton(person: Person, pose: Pose) -> dict[str, Vector]:
    """Joint positions (x, y, z) in metres; the lower foot stands on y = pose.lift.

    >>> joints = skeleton(draw_person(np.random.default_rng(0)), Pose())
    >>> bool(joints["head"][1] > joints["pelvis"][1] > joints["knee1"][1] > 0)
    True
    """
    legs, height = person.legs * person.height, person.height
    thigh, shank, foot = legs * 0.51, legs * 0.45, height * 0.115
    trunk, upper, fore = height * 0.3, height * 0.165, height * 0.15
    up = np.array([np.sin(np.radians(pose.lean)), np.cos(np.radians(pose.lean)), 0.0])
    joints = {"pelvis": np.zeros(3), "chest": up * trunk, "head": up * (trunk + height * 0.115)}
    for i, side in enumerate(SIDES):
        hip = np.array([0.0, 0.0, side * height * 0.05])
        knee = hip + thigh * _direction(pose.thigh[i], pose.stance, side)
        ankle = knee + shank * _direction(pose.thigh[i] - pose.knee[i], pose.stance / 2, side)
        toe = ankle + foot * _direction(pose.thigh[i] - pose.knee[i] + 82, 6, side)
        shoulder = joints["chest"] + np.array([0.0, -height * 0.01, side * height * 0.1])
        elbow = shoulder + upper * _direction(pose.arm[i], pose.arm_spread[i], side)
        wrist = elbow + fore * _direction(pose.arm[i] + pose.elbow[i], pose.forearm_spread[i], side)
        named = {
            "hip": hip,
            "knee": knee,
            "ankle": ankle,
            "toe": toe,
            "shoulder": shoulder,
            "elbow": elbow,
            "wrist": wrist,
        }
        joints |= {f"{name}{side}": value for name, value in named.items()}
    feet = [joints[f"{name}{side}"] for name in ("ankle", "toe") for side in SIDES]
    standing = np.mean([joints[f"ankle{side}"][0] for side in SIDES])
    x = -standing if pose.travel is None else pose.travel
    shift = np.array([x, pose.lift - min(point[1] for point in feet) + 0.03 * height / 1.75, 0.0])
    return {name: point + shift for name, point in joints.items()}


def _direction(swing: float, spread: float, side: int) -> Vector:
    f, s = np.radians(swing), np.radians(spread)
    return np.array([np.sin(f) * np.cos(s), -np.cos(f) * np.cos(s), side * np.sin(s)])


def _bump(at: float, start: float, top: float, end: float) -> float:
    """A smooth rise from 0 at `start` to 1 at `top` and back to 0 at `end`."""
    if not start < at < end:
        return 0.0
    part = (at - start) / (top - start) if at < top else (end - at) / (end - top)
    return part * part * (3 - 2 * part)


def _vivid(rng: np.random.Generator, dull: float = 1.0) -> Colour:
    low, high = rng.uniform(20, 90), rng.uniform(130, 245) * dull
    middle = rng.uniform(low, max(low + 1, high))
    r, g, b = rng.permutation([low * dull, middle, max(low, high)]).astype(int).tolist()
    return r, g, b
