"""Encoded clips of numbered frames for the video tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from numbered_video import encode, numbered_frame


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`numbered(name, count, ...)` writes a clip of numbered frames, once a session for equal arguments."""
    folder = tmp_path_factory.mktemp("numbered")
    made: dict[str, Path] = {}

    def make(name: str, count: int = 40, width: int = 96, height: int = 64, **settings: object) -> Path:
        key = repr((name, count, width, height, sorted(settings.items(), key=str)))
        if key not in made:
            place = folder / str(len(made))
            place.mkdir()
            made[key] = encode(place / name, [numbered_frame(i, width, height) for i in range(count)], **settings)
        return made[key]

    return make
