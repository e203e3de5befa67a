"""The tiny data set that rows are really trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_set import write_small_set


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips: two actions of six people."""
    people = ("ann", "bob", "cyd", "dan", "eve", "fay")
    return write_small_set(tmp_path_factory.mktemp("data") / "bars", people)
