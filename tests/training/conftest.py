"""The clips of the training tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: two actions of six people, twelve videos."""
    return tiny.write_clips(tmp_path_factory.mktemp("tiny") / "clips")


@pytest.fixture(scope="module")
def no_reports() -> Iterator[None]:
    """Reports of the runs in this process are not drawn: they take longer than the runs."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("fold", "pool"):
            patch.setattr(f"kinegru.runs.{place}.write_run_report", lambda *_: None)
        yield
