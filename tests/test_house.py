"""No arrow runs back: which package of `src/kinegru` may import which (CONTRIBUTING.md, "How the house is built")."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "kinegru"
BASE = {"console", "errors", "files", "fonts", "measuring", "parsing"}  # modules that know nothing of video or learning
MAY_IMPORT = {
    "models": set(),
    "video": set(),
    "evaluation": set(),
    "data": {"video"},
    "training": {"data", "models", "video"},
    "recognition": {"models", "video"},
    "runs": {"data", "evaluation", "models", "training", "video"},
    "reproduction": {"data", "evaluation", "models", "runs", "training", "video"},
    "verbs": {"data", "evaluation", "models", "recognition", "reproduction", "runs", "training", "video"},
}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_arrow_runs_back(package: str) -> None:
    allowed = MAY_IMPORT[package] | BASE | {package}
    for file in (SOURCE / package).rglob("*.py"):
        found = {name.split(".")[1] for name in imported(file) if name.startswith("kinegru.")}
        assert found <= allowed, f"{file.name} imports {sorted(found - allowed)}"


def test_every_package_has_its_place() -> None:
    assert {path.parent.name for path in SOURCE.glob("*/__init__.py")} == MAY_IMPORT.keys()
    for file in SOURCE.glob("*.py"):
        if file.stem in BASE:
            assert {name.split(".")[1] for name in imported(file) if name.startswith("kinegru.")} <= BASE
