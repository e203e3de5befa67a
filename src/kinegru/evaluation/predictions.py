"""The table of predictions: one row a clip, every score of every class. All measures are computed from it alone.

Notable:
* The file is a plain CSV, `clip,label,group` (and `fold` where folds were pooled), then `score:<class>` for each class,
  so that anyone can check a number of the report with a spreadsheet.
* Scores are float32 and written with as many digits as bring the same float32 back: a measure of the file is the
  measure of the run, to the last digit.
* Names may hold anything a file name can: commas, quotes, line breaks, Chinese, bytes that are no UTF-8.
* A file that is not such a table is refused with one line that says where and what.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kinegru.errors import DataError
from kinegru.files import atomic_write

SCORE = "score:"
_REQUIRED = ("clip", "label", "group")
_SUM_TOLERANCE = 1e-3  # float32 softmax over hundreds of classes, or a table rounded to four digits


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said about n clips, K probabilities each.

    A clip without a known label (`None`) may stand in the table; measures count labelled clips only. Where scores tie,
    the class listed first wins.

    Raises:
        DataError: if the columns do not fit together, a label is none of the classes, or a row is no probability
            distribution (values in [0, 1] that sum to 1, to 0.001).

    >>> table = Predictions(["run", "walk"], ["a", "b"], ["run", None], ["ann", "bob"], [[0.9, 0.1], [0.2, 0.8]])
    >>> len(table), table.top1().tolist(), table.correct.tolist()
    (2, [0, 1], [True, False])
    """

    classes: list[str]  # K names, in the order of the scores' columns
    clips: list[str]  # n paths, as the report should show them
    labels: list[str | None]  # n true classes, None where not known
    groups: list[str | None]  # n sources (person, recording), None where not known
    scores: np.ndarray  # (n, K) float32 in [0, 1], rows sum to 1
    folds: list[str | None] = field(default_factory=list)  # n names of the fold that tested the clip, or nothing

    def __post_init__(self) -> None:
        scores = np.array(self.scores, dtype=np.float32)  # a copy: the table does not change under its owner
        if scores.size == 0 and not self.clips:
            scores = scores.reshape(0, len(self.classes))
        scores.setflags(write=False)
        values = {
            "classes": list(self.classes),
            "clips": [str(clip) for clip in self.clips],
            "labels": [label or None for label in self.labels],
            "groups": [group or None for group in self.groups],
            "folds": [fold or None for fold in self.folds] or [None] * len(self.clips),
            "scores": scores,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if not self.classes or not all(self.classes):
            raise DataError("predictions need at least one class, and each class a name")
        if len(set(self.classes)) < len(self.classes):
            double = next(name for name in self.classes if self.classes.count(name) > 1)
            raise DataError(f"class {double!r} stands twice among the classes")
        if not all(self.clips):
            raise DataError(f"clip {self.clips.index('') + 1} of {len(self.clips)} has no name")
        for name in ("labels", "groups", "folds"):
            if len(getattr(self, name)) != len(self.clips):
                raise DataError(f"{len(self.clips)} clips but {len(getattr(self, name))} {name}")
        if self.scores.shape != (len(self.clips), len(self.classes)):
            raise DataError(
                f"scores have shape {self.scores.shape}, not {(len(self.clips), len(self.classes))} (clips, classes)"
            )
        known = set(self.classes)
        for clip, label in zip(self.clips, self.labels, strict=True):
            if label is not None and label not in known:
                raise DataError(f"clip {clip!r}: its label {label!r} is none of the {len(known)} classes")
        sums = self.scores.sum(axis=1, dtype=np.float64)  # (n, K) -> (n,)
        inside = ((self.scores >= -_SUM_TOLERANCE) & (self.scores <= 1 + _SUM_TOLERANCE)).all(axis=1)  # False for NaN
        for row in np.flatnonzero(~inside):
            raise DataError(f"clip {self.clips[row]!r}: its scores are no probabilities (each must be from 0 to 1)")
        for row in np.flatnonzero(np.abs(sums - 1) > _SUM_TOLERANCE):
            raise DataError(f"clip {self.clips[row]!r}: its scores sum to {sums[row]:.4g}, not to 1")

    def __len__(self) -> int:
        return len(self.clips)

    def top1(self) -> np.ndarray:
        """The index of the best class of each clip, int64 (n,); the first of equals."""
        return self.scores.argmax(axis=1)  # (n, K) -> (n,)

    def truth(self) -> np.ndarray:
        """The index of the true class of each clip, int64 (n,); -1 where the label is not known."""
        index = {name: column for column, name in enumerate(self.classes)}
        return np.array([-1 if label is None else index[label] for label in self.labels], dtype=np.int64)

    @property
    def correct(self) -> np.ndarray:
        """Whether each clip was recognised, bool (n,); False where the label is not known."""
        return self.top1() == self.truth()

    def labelled(self) -> Predictions:
        """The rows whose label is known: what can be measured.

        >>> Predictions(["run"], ["a", "b"], ["run", None], [None, None], [[1.0], [1.0]]).labelled().clips
        ['a']
        """
        rows = np.flatnonzero(self.truth() >= 0).tolist()

        def pick(values: Sequence[str | None]) -> list:
            return [values[row] for row in rows]

        return replace(
            self,
            clips=pick(self.clips),
            labels=pick(self.labels),
            groups=pick(self.groups),
            folds=pick(self.folds),
            scores=self.scores[rows],
        )

    @classmethod
    def concatenate(cls, parts: Iterable[Predictions], folds: Sequence[str] | None = None) -> Predictions:
        """Pool the predictions of several folds into one table, so that clips are counted and no averages averaged.

        `folds` names the parts, one name each; without it they keep the names they have. Columns are put into the first
        part's order.

        Raises:
            DataError: if there is nothing to pool, the parts have other classes, or `folds` has another length.

        >>> one = Predictions(["run", "walk"], ["a"], ["run"], ["ann"], [[0.9, 0.1]])
        >>> two = Predictions(["walk", "run"], ["b"], ["walk"], ["bob"], [[0.7, 0.3]])
        >>> pooled = Predictions.concatenate([one, two], folds=["ann", "bob"])
        >>> pooled.folds, pooled.top1().tolist()
        (['ann', 'bob'], [0, 1])
        """
        parts = list(parts)
        if not parts:
            raise DataError("no predictions to pool")
        if folds is not None and len(folds) != len(parts):
            raise DataError(f"{len(parts)} tables of predictions to pool but {len(folds)} names of folds")
        classes = parts[0].classes
        for number, part in enumerate(parts[1:], start=2):
            if set(part.classes) != set(classes):
                odd = sorted(set(part.classes) ^ set(classes))[0]
                raise DataError(
                    f"predictions cannot be pooled: class {odd!r} is not in both table 1 and table {number}"
                )
        return cls(
            classes=classes,
            clips=[clip for part in parts for clip in part.clips],
            labels=[label for part in parts for label in part.labels],
            groups=[group for part in parts for group in part.groups],
            scores=np.concatenate([part.scores[:, [part.classes.index(name) for name in classes]] for part in parts]),
            folds=[
                name if folds is None else folds[number] for number, part in enumerate(parts) for name in part.folds
            ],
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as CSV (UTF-8, one header line); it appears whole or not at all.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = Predictions(["run", "walk"], ["a.mp4"], ["run"], [None], [[0.75, 0.25]])
        ...     print(table.write(Path(folder) / "predictions.csv").read_text(), end="")
        clip,label,group,score:run,score:walk
        a.mp4,run,,0.75,0.25
        """
        path = Path(path)
        texts: list[Sequence[str | None]] = [self.clips, self.labels, self.groups]
        header = list(_REQUIRED)
        if any(self.folds):
            texts.append(self.folds)
            header.append("fold")
        lines = [",".join(map(_quoted, header + [SCORE + name for name in self.classes]))]
        for row, scores in enumerate(self.scores):
            lines.append(",".join([*(_quoted(column[row] or "") for column in texts), *map(str, scores)]))
        with atomic_write(path, "wb") as file:
            file.write("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))
        return path

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read a table that `write` wrote, or that was made by hand with the same columns in any order.

        Raises:
            DataError: one line with the file, and the line in it, if it is missing, empty or no such table.

        >>> Predictions.read("nowhere.csv")
        Traceback (most recent call last):
        kinegru.errors.DataError: nowhere.csv: no such file of predictions
        """
        path = Path(path)
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                reader = csv.reader(file, strict=True)
                header = next(reader, [])
                _check_header(header)
                rows = []
                for row in reader:
                    if row:  # a blank line, as editors leave at the end
                        rows.append(_parse(header, row, reader.line_num))
            classes = [name[len(SCORE) :] for name in header if name.startswith(SCORE)]
            texts = {name: [row[0][name] for row in rows] for name in header if not name.startswith(SCORE)}
            return cls(
                classes=classes,
                clips=texts["clip"],
                labels=list(texts["label"]),
                groups=list(texts["group"]),
                scores=np.array([row[1] for row in rows], dtype=np.float32).reshape(len(rows), len(classes)),
                folds=list(texts.get("fold", [])),
            )
        except FileNotFoundError:
            raise DataError(f"{path}: no such file of predictions") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: is no CSV ({error})") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None


def _quoted(text: str) -> str:
    """One CSV field. The csv module of Python < 3.13 leaves a lone carriage return bare and cannot read it back."""
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') or text != text.strip() else text


def _check_header(header: list[str]) -> None:
    """Refuse a first line that is not that of a table of predictions."""
    wanted = f"{','.join(_REQUIRED)},{SCORE}<class>,…"
    if not header:
        raise DataError(f"is empty; a table of predictions starts with the columns {wanted}")
    for name in _REQUIRED:
        if name not in header:
            found = ",".join(header)
            found = found if len(found) <= 60 else found[:60] + "…"
            raise DataError(f"is no table of predictions: no column {name!r} (wanted {wanted}, found {found!r})")
    if not any(name.startswith(SCORE) for name in header):
        raise DataError(f"is no table of predictions: no column starts with {SCORE!r}")
    for column, name in enumerate(header):
        if header.index(name) < column:
            raise DataError(f"column {name!r} stands twice")
        if not name.startswith(SCORE) and name not in (*_REQUIRED, "fold"):
            raise DataError(f"unknown column {name!r}; a table of predictions has {wanted} and perhaps fold")


def _parse(header: list[str], row: list[str], line: int) -> tuple[dict[str, str], list[float]]:
    """One row of the file: its names by column, and its scores (K)."""
    if len(row) != len(header):
        raise DataError(f"line {line}: {len(row)} fields where the header has {len(header)} (a truncated file?)")
    texts, scores = {}, []
    for name, value in zip(header, row, strict=True):
        if name.startswith(SCORE):
            try:
                scores.append(float(value))
            except ValueError:
                raise DataError(f"line {line}: {name!r} is {value!r}, not a number") from None
        else:
            texts[name] = value
    return texts, scores
