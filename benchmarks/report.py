"""What every benchmark ends with: how it was called, its page printed, and both written where they are wanted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kinegru.files import write_result


def command() -> str:
    """The command that repeats this run, without the folders of this machine."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def publish(result: dict[str, Any], page: str, path: Path | None) -> None:
    """Print the page; write the result to `path` as JSON and the page beside it as .md."""
    print(page)
    if path is not None:
        write_result(path, result, page)
