"""Clip tables: the CSV that can be DATA (`path,label[,group,split]`), and any other table of a few columns.

* Comma, semicolon and tab separate; UTF-8, with or without a byte order mark; column names in any case and order.
* Every line that cannot be used is a `Fault` with its number: training stops at the first, the doctor lists them all.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import NamedTuple

from kinegru.errors import DataError

SPLIT_VALUES = ("train", "val", "test")


class Row(NamedTuple):
    """A usable line of a clip table, in the order of the fields of `kinegru.data.catalog.Clip`."""

    path: Path
    label: str
    group: str | None
    split: str | None


class Fault(NamedTuple):
    """A line that cannot be used."""

    line: int  # from 1
    kind: str  # "unlabelled", "duplicate", "split" or "row"
    message: str


def read_clip_table(path: Path) -> tuple[list[Row], list[Fault]]:
    """Read a CSV with columns path and label, optionally group and split; lines that cannot be used come second.

    Paths are relative to the CSV. Raises DataError where the file is no such table at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Path(folder, "clips.csv")
    ...     _ = table.write_text("path,label,split\\na.mp4,walk,train\\nb.mp4,,test\\n")
    ...     rows, faults = read_clip_table(table)
    >>> rows[0].label, faults[0].line, faults[0].message
    ('walk', 3, "no label for 'b.mp4'")
    """
    header, lines = read_rows(path)
    columns = [cell.strip().lower() for cell in header]
    for required in ("path", "label"):
        if required not in columns:
            found = ",".join(columns) or "nothing"
            raise DataError(
                f"{path}:1: no column {required!r}; the first line must be path,label[,group,split], it has {found}"
            )
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}:1: a column is named twice")
    rows: list[Row] = []
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    for line, cells in lines:
        if len(cells) != len(columns):
            message = f"{len(cells)} cells where the header has {len(columns)} (a path with a comma needs quotes)"
            faults.append(Fault(line, "row", message))
            continue
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        name, split = row["path"], row.get("split", "").lower()
        if not name:
            faults.append(Fault(line, "row", "no path"))
            continue
        first = seen.setdefault(os.path.normpath(name), line)
        if not row["label"]:
            faults.append(Fault(line, "unlabelled", f"no label for {name!r}"))
        elif first != line:
            faults.append(Fault(line, "duplicate", f"{name!r} stands already on line {first}"))
        elif split and split not in SPLIT_VALUES:
            faults.append(Fault(line, "split", f"split is {row['split']!r}; it must be train, val or test"))
        else:
            rows.append(Row(_resolve(path.parent, name), row["label"], row.get("group") or None, split or None))
    return rows, faults


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows that are not empty, each with its line number. Raises DataError for what is no text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if "\0" in text:
        raise DataError(f"{path}: is no UTF-8 text; a CSV with path,label or a folder of class folders is needed")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=text.partition("\n")[0].count))
    try:
        header = next(reader, [])
        return header, [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None


def _resolve(folder: Path, name: str) -> Path:
    """A path as written, or with `/` where it was written on Windows."""
    path = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not path.exists() else path
