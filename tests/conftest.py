"""Fixtures every test may use: the real clips where they are at hand, one thread a test process."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real clips and ImageNet weights beside the project; a test that needs it skips without."""
    if not (SHARED / "data" / "weizmann").is_dir():
        pytest.skip("the real clips (../shared) are not at hand")
    return SHARED
