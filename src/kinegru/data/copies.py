"""What a folder of small copies says of itself: which clips they were made of, and how (`kinegru.data.shrink`)."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

SETTINGS = "shrink.json"  # in the folder of copies


def shrink_command(data: str | os.PathLike[str]) -> str | None:
    """The command that made these clips, where they are copies that `shrink_data` made: a folder of them, or its CSV.

    >>> shrink_command("clips") is None
    True
    """
    out = Path(data) if Path(data).is_dir() else Path(data).parent
    settings = said_of(out)
    made_of = settings.pop("data", None)
    return shlex.join(["kinegru", "shrink", made_of, str(out), *words_of(settings)]) if made_of else None


def said_of(out: Path) -> dict[str, Any]:
    """What a folder's note says of how its copies were made; nothing where it has no note that can be read."""
    try:
        said = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def words_of(settings: dict[str, Any]) -> list[str]:
    """The options of `kinegru shrink` that say these settings.

    >>> words_of({"short_side": 128})
    ['--short-side', '128']
    """
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
