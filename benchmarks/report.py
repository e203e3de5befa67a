"""What every benchmark ends with: how it was called, its page with tables, and both written where they are wanted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinegru.files import atomic_write


def command() -> str:
    """The command that repeats this run, without the folders of this machine."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def publish(result: dict[str, Any], page: str, path: Path | None) -> None:
    """Print the page; write the result to `path` as JSON and the page beside it as .md."""
    print(page)
    if path is not None:
        write_result(path, result, page)


def write_result(path: str | os.PathLike[str], result: Any, page: str) -> None:
    """A result as JSON at `path`, and as a page for people beside it, with the ending .md.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_result(Path(folder) / "decode.json", {"ratio": 1.02}, "# Decoding")
    ...     sorted(p.name for p in Path(folder).iterdir())
    ['decode.json', 'decode.md']
    """
    with atomic_write(path) as file:
        json.dump(result, file, indent=1)
    with atomic_write(Path(path).with_suffix(".md")) as file:
        file.write(page)


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A table as Markdown; numbers to the right.

    >>> print(table(["side", "ms"], [["ours", 2.5]]))
    | side | ms |
    |---|--:|
    | ours | 2.5 |
    """
    right = [all(isinstance(row[i], (int, float)) for row in rows) if rows else False for i in range(len(header))]
    lines = [f"| {' | '.join(header)} |", "|" + "|".join("--:" if r else "---" for r in right) + "|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def about(described: Mapping[str, Any]) -> str:
    """A machine's description as a line.

    >>> about({"cores": 2, "torch": "2.13.0"})
    'Machine: cores 2, torch 2.13.0.'
    """
    return f"Machine: {', '.join(f'{key} {value}' for key, value in described.items())}."
