"""The clips of the training tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: two actions of six people, twelve videos."""
    return tiny.write_clips(tmp_path_factory.mktemp("tiny") / "clips")
